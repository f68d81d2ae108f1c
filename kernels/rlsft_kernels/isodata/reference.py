"""What isodata means, in plain NumPy: one group, obvious and slow. Tests treat this file as the truth.

Ball and Hall's ISODATA (1965, textbook form); STR's variant is in reference_str.py. Comparisons that rounding could
decide treat values within a relative 1e-10 as equal; among equals the lowest index wins.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlsft_kernels.isodata.reference_parts import (
    SAME_DIRECTION,
    TIE,
    Floats,
    Ints,
    Step,
    exceeds,
    falls_below,
    lowest_nearest,
    mean_row,
    medoids_of,
    nearest,
    partition_key,
    rounding_floor,
    starting_centers,
    unit_rows,
    variances,
)
from rlsft_kernels.isodata.reference_str import StrReference
from rlsft_kernels.isodata.settings import AUTO_DISTANCE_FACTOR, AUTO_STD_FACTOR, IsodataSettings


class GroupRun(NamedTuple):
    """One group's clustering. `steps` has a row (splits, merges, drops, clusters left) for every pass."""

    labels: NDArray[np.int32]  # [n], -1 = noise
    centers: Floats  # [k, d]
    medoids: Ints  # [k], row within the group
    steps: list[Step]
    stop_reason: str


class BallHallReference:
    """The steps of Ball and Hall's iteration on one group."""

    def __init__(self, rows: Floats, settings: IsodataSettings, weight: Floats | None = None) -> None:
        self.rows, self.settings, self.floor = rows, settings, rounding_floor(settings)
        self.weight = np.ones(len(rows)) if weight is None else weight
        self.wanted = settings.clusters_wanted(int((self.weight > 0).sum()))
        self.is_noise = np.zeros(len(rows), bool)
        total = float(variances(rows, self.floor, self.weight).sum())
        auto_std = AUTO_STD_FACTOR * np.sqrt(total / rows.shape[1])
        self.max_std = auto_std if settings.max_std is None else settings.max_std
        auto_distance = AUTO_DISTANCE_FACTOR * np.sqrt(total)
        self.min_distance = auto_distance if settings.min_distance is None else settings.min_distance
        self.largest_move = settings.tol * total / rows.shape[1]

    def sizes(self, labels: Ints, count: int) -> Floats:
        members = labels >= 0
        return np.bincount(labels[members], weights=self.weight[members], minlength=count).astype(np.float64)

    def on_sphere(self, centers: Floats) -> Floats:
        return unit_rows(centers, SAME_DIRECTION) if self.settings.geometry == "cosine" else centers

    def assign_and_drop(self, centers: Floats) -> tuple[Ints, Floats, int]:
        drops = 0
        while True:
            labels = np.where(self.is_noise, -1, nearest(self.rows, centers, self.floor))
            sizes = self.sizes(labels, len(centers))
            keep = (sizes > 0) & (sizes >= self.settings.min_samples)
            if not keep.any():
                keep[sizes.argmax()] = True
            if keep.all():
                return labels, centers, drops
            drops += int((~keep).sum())
            if self.settings.discard_as_noise:
                self.is_noise |= (labels >= 0) & ~keep[labels]
            centers = centers[keep]

    def means(self, labels: Ints) -> Floats:
        members = [labels == k for k in range(labels.max() + 1)]
        return self.on_sphere(np.stack([mean_row(self.rows[m], self.weight[m]) for m in members]))

    def split(self, labels: Ints, centers: Floats) -> tuple[Floats, int]:
        s, k = self.settings, len(centers)
        clustered = labels >= 0
        squared = ((self.rows[clustered] - centers[labels[clustered]]) ** 2).sum(axis=1)
        spread = np.sqrt(squared) if s.dispersion == "distance" else squared
        sums = np.bincount(labels[clustered], weights=self.weight[clustered] * spread, minlength=k)
        sizes = self.sizes(labels, k)
        kept, added = [], []
        for j in range(k):
            own, overall = sums[j] / sizes[j], sums.sum() / sizes.sum()
            if s.dispersion == "squared":
                own, overall = np.sqrt(own), np.sqrt(overall)
            variance = variances(self.rows[labels == j], self.floor, self.weight[labels == j])
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
        sizes = self.sizes(labels, len(centers))
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

    def run(self, centers: Floats) -> tuple[Floats, list[Step], str]:
        seen: dict[tuple[bytes, int], int] = {}
        steps: list[Step] = []
        was_quiet_as: bytes | None = None
        centers, last, stop_reason = self.on_sphere(centers), self.settings.max_iter, "max_iter"
        for it in range(1, self.settings.max_iter + 1):
            labels, before, drops = self.assign_and_drop(centers)
            centers = self.means(labels)
            key, splits, merges = partition_key(labels[self.weight > 0]), 0, 0
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
            is_settled = self.settings.tol > 0 and is_quiet and was_quiet_as is not None
            if is_settled and float(((centers - before) ** 2).sum()) <= self.largest_move:
                return centers, steps, "tol"
            was_quiet_as = key if is_quiet else None
        return centers, steps, stop_reason if is_last else "stable"


def isodata_reference(
    points: NDArray[np.floating],  # [n, d] float32 or float64, finite
    settings: IsodataSettings,
    *,
    start: Floats | None = None,  # [c, d] starting centres; None: chosen by settings.init
    scores: Floats | None = None,  # [n] tie-break of the medoids
    weight: Floats | None = None,  # [n] >= 0, not all 0
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
        count = settings.starting_clusters(len(rows) if weight is None else int((weight > 0).sum()))
        start = starting_centers(rows, count, settings.init, settings.seed, rounding_floor(settings), weight)
    is_str = settings.variant == "str"
    method = StrReference(rows, settings) if is_str else BallHallReference(rows, settings, weight)
    centers, steps, stop_reason = method.run(np.asarray(start, dtype=np.float64))
    centers = centers.astype(points.dtype).astype(np.float64)
    is_noise = method.is_noise if isinstance(method, BallHallReference) else np.zeros(len(rows), bool)
    labels = nearest(rows, centers, method.floor)
    centers = centers[np.unique(labels[~is_noise if weight is None else ~is_noise & (weight > 0)])]
    labels = np.where(is_noise, -1, nearest(rows, centers, method.floor))
    medoids = medoids_of(rows, labels, centers, scores, method.floor, float(np.finfo(points.dtype).eps), weight)
    return GroupRun(labels.astype(np.int32), centers, medoids, steps, stop_reason)
