"""STR's variant of isodata on one group (arXiv 2402.18284, Algorithm 2), in plain NumPy.

The paper's listing bounds clusters by size and its text by variance; here both bounds hold, and two clusters are merged
when their union keeps them, so that the outcome depends on the bounds rather than on the random start.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from rlsft_kernels.isodata.reference_parts import (
    TIE,
    Floats,
    Ints,
    Step,
    exceeds,
    lowest_nearest,
    mean_row,
    nearest,
    partition_key,
    rounding_floor,
    variances,
)
from rlsft_kernels.isodata.settings import IsodataSettings


class StrReference:
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
            # both members of a pair are equally far from their mean, whatever rounding says
            is_farthest = (distances >= distances.max() * (1 - TIE)) | (len(members) == 2)
            farthest = free[np.argmax(is_farthest)]
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

    def run(self, centers: Floats) -> tuple[Floats, list[Step], str]:
        seen: set[bytes] = set()
        steps: list[Step] = []
        was_quiet_as: bytes | None = None
        for _ in range(self.settings.max_iter):
            labels = nearest(self.rows, centers, self.floor)
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
