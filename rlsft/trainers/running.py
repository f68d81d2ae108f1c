"""Statistics between two logged rows: sums kept on the device, one reduction over the ranks a row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class RunningStats:
    """Weighted means, minima and maxima of what happened since the last `reduce`.

    Every rank must add the same names in the same order, as one training loop on all of them does.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start a new window."""
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}
        self._low: dict[str, Tensor] = {}
        self._high: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, name: str, total: Tensor, weight: Tensor | float) -> None:
        """Add `total`, a sum over `weight` items, to the mean `name`."""
        total = total.detach().double()
        self._sums[name] = self._sums.get(name, torch.zeros_like(total)) + total
        self._weights[name] = self._weights.get(name, torch.zeros_like(total)) + weight

    @torch.no_grad()
    def add_range(self, low_name: str, high_name: str, values: Tensor) -> None:
        """Let `values` (any shape, not empty) widen the minimum `low_name` and the maximum `high_name`."""
        low, high = values.detach().double().aminmax()
        self._low[low_name] = torch.minimum(self._low.get(low_name, low), low)
        self._high[high_name] = torch.maximum(self._high.get(high_name, high), high)

    def reduce(self, accelerator: Any) -> dict[str, float]:
        """The statistics over all ranks, as floats; starts the next window. A mean over nothing is NaN."""
        means: dict[str, float] = {}
        if self._sums:
            pairs = torch.stack([torch.stack([self._sums[n], self._weights[n]]) for n in self._sums])
            for name, (total, weight) in zip(self._sums, accelerator.reduce(pairs, "sum").tolist(), strict=True):
                means[name] = total / weight if weight else float("nan")
        for extremes, choose in ((self._low, Tensor.amin), (self._high, Tensor.amax)):
            if extremes:
                rows = accelerator.gather(torch.stack(list(extremes.values()))[None])
                means |= dict(zip(extremes, choose(rows, dim=0).tolist(), strict=True))
        self.clear()
        return means
