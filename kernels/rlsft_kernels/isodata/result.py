"""What isodata returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlsft_kernels._groups import Array

STOP_REASONS = ("stable", "cycle", "max_iter", "tol")


@dataclass(frozen=True, eq=False)
class IsodataHistory:
    """How every group came to its clusters, always as NumPy arrays on the CPU. One set counts as one group."""

    steps: NDArray[np.int64]  # [sum of passes, 4]: splits, merges, drops in this pass, clusters after it
    step_offsets: NDArray[np.int64]  # [groups + 1]: rows of `steps` that belong to each group
    center_offsets: NDArray[np.int64]  # [groups + 1]: rows of `centers` that belong to each group
    stop_reasons: tuple[str, ...]  # a group: "stable", "cycle", "max_iter" or "tol"

    def of_group(self, group: int) -> NDArray[np.int64]:
        """The passes of one group: [passes, 4] = splits, merges, drops, clusters left."""
        return self.steps[self.step_offsets[group] : self.step_offsets[group + 1]]

    def totals(self) -> NDArray[np.int64]:
        """[groups, 3]: all splits, merges and drops of each group."""
        running = np.zeros((len(self.steps) + 1, 3), np.int64)
        np.cumsum(self.steps[:, :3], axis=0, out=running[1:])
        return np.diff(running[self.step_offsets], axis=0)


class IsodataResult(NamedTuple):
    """Clusters of one set or of a batch of groups. Arrays are of the kind (NumPy or torch) that `points` was."""

    labels: Array  # int32, points.shape[:-1]: cluster within the group, 0..k-1, all used; -1 = noise
    centers: Array  # [sum k, d], dtype of points: group by group, see center_offsets
    medoids: Array  # [sum k] int64: the member nearest each centre, as a row of points.reshape(-1, d)
    n_iter: Array  # passes of each group, int64 [groups]; 0-d for one set
    history: IsodataHistory

    @property
    def center_offsets(self) -> NDArray[np.int64]:
        """[groups + 1]: centers[center_offsets[g]:center_offsets[g + 1]] belong to group g."""
        return self.history.center_offsets

    @property
    def n_clusters(self) -> int | NDArray[np.int64]:
        """Clusters found: an int for one set, int64 [groups] for a batch."""
        return self._per_group(np.diff(self.history.center_offsets))

    @property
    def n_splits(self) -> int | NDArray[np.int64]:
        return self._per_group(self.history.totals()[:, 0])

    @property
    def n_merges(self) -> int | NDArray[np.int64]:
        return self._per_group(self.history.totals()[:, 1])

    @property
    def n_discarded(self) -> int | NDArray[np.int64]:
        """Clusters dropped for having fewer than min_samples members (or, for "str", none)."""
        return self._per_group(self.history.totals()[:, 2])

    @property
    def stop_reason(self) -> str | tuple[str, ...]:
        """ "stable", "cycle" (a state came back), "tol" or "max_iter"; one for each group of a batch."""
        return self.history.stop_reasons[0] if self.n_iter.ndim == 0 else self.history.stop_reasons

    def _per_group(self, values: NDArray[np.int64]) -> int | NDArray[np.int64]:
        return int(values[0]) if self.n_iter.ndim == 0 else values
