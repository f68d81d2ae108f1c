"""What isodata means, in plain NumPy: one group, obvious and slow. Tests treat this file as the truth.

Ball and Hall 1965 in its textbook form, and the variant of arXiv 2402.18284 (Algorithm 2). Comparisons that rounding
could decide treat values within a relative `TIE` as equal; among equals the lowest index wins.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlsft_kernels.isodata.settings import AUTO_DISTANCE_FACTOR, AUTO_STD_FACTOR, IsodataSettings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TIE = 1e-10
SAME_DIRECTION = 1e-28  # squared distance (or variance) of unit rows that differ by rounding alone
_MASK = (1 << 64) - 1


class GroupRun(NamedTuple):
    """One group's clustering. `steps` has a row (splits, merges, drops, clusters left) for every pass."""

    labels: NDArray[np.int32]  # [n], -1 = noise
    centers: Floats  # [k, d]
    medoids: Ints  # [k], row within the group
    steps: list[tuple[int, int, int, int]]
    stop_reason: str


class SplitMix64:
    """The generator of Steele, Lea and Flood 2014; the C++ core draws the same numbers."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def uniform(self) -> float:
        """The next number in [0, 1), a multiple of 2**-53."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & _MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53

    def below(self, bound: int) -> int:
        return int(self.uniform() * bound)


def rounding_floor(settings: IsodataSettings) -> float:
    """Equal rows have no variance to the last bit; rows scaled to unit length only up to rounding."""
    return SAME_DIRECTION if settings.geometry == "cosine" else 0.0


def exceeds(value: float, threshold: float) -> bool:
    return value > threshold * (1 + TIE)


def falls_below(value: float, threshold: float) -> bool:
    return value < threshold * (1 - TIE)


def lowest_nearest(distances: Floats) -> int:
    """Index of the smallest value; values within TIE of it count as equal and the lowest index wins."""
    return int(np.argmax(distances <= distances.min() * (1 + TIE)))


def unit_rows(rows: Floats, floor: float = 0.0) -> Floats:
    squared = (rows * rows).sum(axis=1, keepdims=True)
    return rows * np.divide(1.0, np.sqrt(squared), out=np.zeros_like(squared), where=squared > floor)


def squared_distances(rows: Floats, centers: Floats) -> Floats:  # [n, k]
    return np.stack([((rows - center) ** 2).sum(axis=1) for center in centers], axis=1)


def nearest(rows: Floats, centers: Floats) -> Ints:  # [n]
    distances = squared_distances(rows, centers)
    return np.argmax(distances <= distances.min(axis=1, keepdims=True) * (1 + TIE), axis=1)


def mean_row(rows: Floats) -> Floats:
    """The mean, summed around the first row so that equal rows have exactly that mean and no variance."""
    return rows[0] + (rows - rows[0]).sum(axis=0) / len(rows)


def variances(rows: Floats, floor: float) -> Floats:  # [d]
    variance = ((rows - mean_row(rows)) ** 2).sum(axis=0) / len(rows)
    return np.where(variance <= floor, 0.0, variance)


def partition_key(labels: Ints) -> bytes:
    """The same bytes for the same partition, whatever its clusters are numbered."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    key = np.argsort(np.argsort(first))[inverse]
    return bytes(np.where(labels < 0, -1, key))


def starting_centers(rows: Floats, count: int, init: str, seed: int, floor: float) -> Floats:
    """At most `count` distinct rows. "k-means++": D-squared sampling (Arthur and Vassilvitskii 2007)."""

    def distances_to(row: int) -> Floats:
        squared = ((rows - rows[row]) ** 2).sum(axis=1)
        return np.where(squared <= floor, 0.0, squared)

    random = SplitMix64(seed)
    if init == "random":
        order = np.arange(len(rows))
        chosen: list[int] = []
        for i in range(len(rows)):
            j = i + random.below(len(rows) - i)
            order[i], order[j] = order[j], order[i]
            if all(distances_to(c)[order[i]] > 0 for c in chosen):
                chosen.append(int(order[i]))
            if len(chosen) == count:
                break
        return rows[chosen]
    chosen = [random.below(len(rows))]
    to_chosen = distances_to(chosen[0])
    while len(chosen) < count and to_chosen.max() > 0:
        cumulative = np.cumsum(to_chosen)
        pick = int(np.argmax(cumulative > random.uniform() * cumulative[-1]))
        chosen.append(pick)
        to_chosen = np.minimum(to_chosen, distances_to(pick))
    return rows[chosen]


class _BallHall:
    """The steps of Ball and Hall's iteration on one group."""

    def __init__(self, rows: Floats, settings: IsodataSettings) -> None:
        self.rows, self.settings, self.floor = rows, settings, rounding_floor(settings)
        self.wanted = settings.clusters_wanted(len(rows))
        self.is_noise = np.zeros(len(rows), bool)
        total = float(variances(rows, self.floor).sum())
        auto_std = AUTO_STD_FACTOR * np.sqrt(total / rows.shape[1])
        self.max_std = auto_std if settings.max_std is None else settings.max_std
        auto_distance = AUTO_DISTANCE_FACTOR * np.sqrt(total)
        self.min_distance = auto_distance if settings.min_distance is None else settings.min_distance

    def on_sphere(self, centers: Floats) -> Floats:
        return unit_rows(centers, SAME_DIRECTION) if self.settings.geometry == "cosine" else centers

    def assign_and_drop(self, centers: Floats) -> tuple[Ints, Floats, int]:
        drops = 0
        while True:
            labels = np.where(self.is_noise, -1, nearest(self.rows, centers))
            sizes = np.bincount(labels[labels >= 0], minlength=len(centers))
            keep = sizes >= self.settings.min_samples
            if not keep.any():
                keep[sizes.argmax()] = True
            if keep.all():
                return labels, centers, drops
            drops += int((~keep).sum())
            if self.settings.discard_as_noise:
                self.is_noise |= (labels >= 0) & ~keep[labels]
            centers = centers[keep]

    def means(self, labels: Ints) -> Floats:
        return self.on_sphere(np.stack([mean_row(self.rows[labels == k]) for k in range(labels.max() + 1)]))

    def split(self, labels: Ints, centers: Floats) -> tuple[Floats, int]:
        s, k = self.settings, len(centers)
        clustered = labels >= 0
        squared = ((self.rows[clustered] - centers[labels[clustered]]) ** 2).sum(axis=1)
        spread = np.sqrt(squared) if s.dispersion == "distance" else squared
        sums = np.bincount(labels[clustered], weights=spread, minlength=k)
        sizes = np.bincount(labels[clustered], minlength=k)
        kept, added = [], []
        for j in range(k):
            own, overall = sums[j] / sizes[j], sums.sum() / sizes.sum()
            if s.dispersion == "squared":
                own, overall = np.sqrt(own), np.sqrt(overall)
            variance = variances(self.rows[labels == j], self.floor)
            axis = int(np.argmax(variance >= variance.max() * (1 - TIE)))
            largest = float(np.sqrt(variance[axis]))
            deviation = largest if s.split_criterion == "max" else float(np.sqrt(variance.mean()))
            loose = exceeds(own, overall) and sizes[j] > 2 * (s.min_samples + 1)
            if exceeds(deviation, self.max_std) and (loose or 2 * k <= self.wanted):
                step = np.zeros_like(centers[j])
                step[axis] = s.split_factor * largest
                kept.append(centers[j] + step)
                added.append(centers[j] - step)
            else:
                kept.append(centers[j])
        return self.on_sphere(np.stack(kept + added)) if added else centers, len(added)

    def merge(self, labels: Ints, centers: Floats) -> tuple[Floats, int]:
        sizes = np.bincount(labels[labels >= 0], minlength=len(centers)).astype(float)
        centers, lumped, gone = centers.copy(), set[int](), set[int]()
        distances = {
            (a, b): float(np.sqrt(((centers[a] - centers[b]) ** 2).sum()))
            for a, b in combinations(range(len(centers)), 2)
        }
        close = {pair: d for pair, d in distances.items() if falls_below(d, self.min_distance)}
        while close and len(gone) < self.settings.max_merges:
            a, b = list(close)[lowest_nearest(np.array(list(close.values())))]
            centers[a] = (sizes[a] * centers[a] + sizes[b] * centers[b]) / (sizes[a] + sizes[b])
            centers[a] = self.on_sphere(centers[a : a + 1])[0]
            lumped |= {a, b}
            gone.add(b)
            close = {pair: d for pair, d in close.items() if not lumped & set(pair)}
        return np.delete(centers, sorted(gone), axis=0), len(gone)

    def run(self, centers: Floats) -> tuple[Floats, list[tuple[int, int, int, int]], str]:
        seen: dict[tuple[bytes, int], int] = {}
        steps: list[tuple[int, int, int, int]] = []
        was_quiet_as: bytes | None = None
        centers, last, stop_reason = self.on_sphere(centers), self.settings.max_iter, "max_iter"
        for it in range(1, self.settings.max_iter + 1):
            labels, centers, drops = self.assign_and_drop(centers)
            centers = self.means(labels)
            key, splits, merges = partition_key(labels), 0, 0
            if self.settings.stop_early and stop_reason == "max_iter" and (key, it % 2) in seen:
                period = it - seen[key, it % 2]
                last, stop_reason = it + (last - it) % period, "cycle"  # the phase that max_iter passes end in
            seen.setdefault((key, it % 2), it)
            is_last = it == last
            few = 2 * len(centers) <= self.wanted
            if not is_last and (few or (it % 2 == 1 and len(centers) < 2 * self.wanted)):
                centers, splits = self.split(labels, centers)
            if not is_last and not splits:
                centers, merges = self.merge(labels, centers)
            steps.append((splits, merges, drops, len(centers)))
            is_quiet = not (is_last or splits or merges or drops)
            if is_last or (self.settings.stop_early and is_quiet and was_quiet_as == key):
                break
            was_quiet_as = key if is_quiet else None
        return centers, steps, stop_reason if is_last else "stable"


class _Str:
    """The steps of STR's variant on one group; a cluster is an ascending array of row indices."""

    def __init__(self, rows: Floats, settings: IsodataSettings) -> None:
        self.rows, self.settings, self.floor = rows, settings, rounding_floor(settings)
        self.max_size = len(rows) + 1 if settings.max_size is None else settings.max_size

    def variance(self, members: Ints) -> float:
        per_coordinate = variances(self.rows[members], self.floor)
        if self.settings.variance_kind == "trace":
            return float(per_coordinate.sum())
        largest = float(per_coordinate.max())
        return largest if self.settings.variance_kind == "max_component_variance" else float(np.sqrt(largest))

    def centroid(self, members: Ints) -> Floats:
        return mean_row(self.rows[members])

    def merge_small(self, clusters: list[Ints], is_frozen: NDArray[np.bool_]) -> int:
        merges = 0
        while len(clusters) > 1 and min(map(len, clusters)) <= self.settings.min_size:
            c = int(np.argmin([len(members) for members in clusters]))
            center = self.centroid(clusters[c])
            distances = [((self.centroid(other) - center) ** 2).sum() for other in clusters]
            distances[c] = np.inf
            target = lowest_nearest(np.array(distances))
            is_frozen[clusters[c]] = True
            clusters[target] = np.sort(np.concatenate([clusters[target], clusters[c]]))
            del clusters[c]
            merges += 1
        return merges

    def split_wide(self, clusters: list[Ints], is_frozen: NDArray[np.bool_]) -> int:
        splits = c = 0
        while c < len(clusters):
            members = clusters[c]
            free = members[~is_frozen[members]]
            is_wide = len(members) >= self.max_size or exceeds(self.variance(members), self.settings.var_threshold)
            if len(members) < 2 or not len(free) or not is_wide:
                c += 1
                continue
            distances = ((self.rows[free] - self.centroid(members)) ** 2).sum(axis=1)
            farthest = free[np.argmax(distances >= distances.max() * (1 - TIE))]
            clusters[c] = members[members != farthest]
            clusters.append(np.array([farthest]))
            splits += 1
        return splits

    def merge_alike(self, clusters: list[Ints]) -> int:
        merges = 0
        while True:
            pairs, distances = [], []
            for a, b in combinations(range(len(clusters)), 2):
                union = np.sort(np.concatenate([clusters[a], clusters[b]]))
                too_wide = exceeds(self.variance(union), self.settings.var_threshold)
                if len(union) < self.max_size and not too_wide:
                    pairs.append((a, b))
                    distances.append(((self.centroid(clusters[a]) - self.centroid(clusters[b])) ** 2).sum())
            if not pairs:
                return merges
            a, b = pairs[lowest_nearest(np.array(distances))]
            clusters[a] = np.sort(np.concatenate([clusters[a], clusters[b]]))
            del clusters[b]
            merges += 1

    def run(self, centers: Floats) -> tuple[Floats, list[tuple[int, int, int, int]], str]:
        seen: set[bytes] = set()
        steps: list[tuple[int, int, int, int]] = []
        was_quiet_as: bytes | None = None
        for _ in range(self.settings.max_iter):
            labels = nearest(self.rows, centers)
            clusters = [np.flatnonzero(labels == k) for k in np.unique(labels)]
            drops, key = len(centers) - len(clusters), partition_key(labels)
            centers = np.stack([self.centroid(members) for members in clusters])
            if key in seen:
                reason = "stable" if key == was_quiet_as else "cycle"
                return centers, [*steps, (0, 0, drops, len(centers))], reason
            seen.add(key)
            is_frozen = np.zeros(len(self.rows), bool)  # merged in this pass: not split off again in it
            merges = self.merge_small(clusters, is_frozen)
            splits = self.split_wide(clusters, is_frozen)
            merges += self.merge_alike(clusters)
            centers = np.stack([self.centroid(members) for members in clusters])
            steps.append((splits, merges, drops, len(clusters)))
            was_quiet_as = None if splits or merges else key
        return centers, steps, "max_iter"


def medoids_of(rows: Floats, labels: Ints, centers: Floats, scores: Floats | None) -> Ints:
    """Per cluster the member nearest the centre; tie: the higher score, then the lower index."""
    medoids = []
    for k, center in enumerate(centers):
        members = np.flatnonzero(labels == k)
        distances = ((rows[members] - center) ** 2).sum(axis=1)
        tied = members[distances <= distances.min() * (1 + TIE)]
        medoids.append(tied[0] if scores is None else tied[np.argmax(scores[tied])])
    return np.array(medoids, dtype=np.int64)


def isodata_reference(
    points: NDArray[np.floating],  # [n, d] float32 or float64, finite
    settings: IsodataSettings,
    *,
    start: Floats | None = None,  # [c, d] starting centres; None: chosen by settings.init
    scores: Floats | None = None,  # [n] tie-break of the medoids
) -> GroupRun:
    """Cluster one group. The labels returned are the nearest of the centres returned, rounded to points.dtype."""
    if len(points) == 0:
        nothing = np.zeros((0, points.shape[1]))
        return GroupRun(np.zeros(0, np.int32), nothing, np.zeros(0, np.int64), [], "stable")
    rows = np.asarray(points, dtype=np.float64)
    if settings.geometry == "cosine":
        rows = unit_rows(rows)
    if start is None:
        assert settings.init is not None
        count = settings.starting_clusters(len(rows))
        start = starting_centers(rows, count, settings.init, settings.seed, rounding_floor(settings))
    method = _BallHall(rows, settings) if settings.variant == "ball_hall" else _Str(rows, settings)
    centers, steps, stop_reason = method.run(np.asarray(start, dtype=np.float64))
    centers = centers.astype(points.dtype).astype(np.float64)
    labels = nearest(rows, centers)
    if isinstance(method, _BallHall):
        labels[method.is_noise] = -1
    used = np.unique(labels[labels >= 0])
    centers = centers[used]
    labels = np.where(labels < 0, -1, np.searchsorted(used, labels))
    return GroupRun(labels.astype(np.int32), centers, medoids_of(rows, labels, centers, scores), steps, stop_reason)
