"""Means over seeds with 95 % intervals of Student's t. Two methods are compared seed by seed: they share the start."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.replicate.rows import Row

# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
     2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A mean over `count` seeds and half the width of its 95 % interval; infinite for one seed."""

    mean: float
    half: float
    count: int

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def text(self, digits: int = 3) -> str:
        """`0.512 ± 0.020`"""
        return (
            f"{self.mean:.{digits}f} ± {self.half:.{digits}f}"
            if math.isfinite(self.half)
            else f"{self.mean:.{digits}f}"
        )


def interval(values: Sequence[float]) -> Interval:
    """Of one number a seed."""
    count = len(values)
    if count < 2:
        return Interval(statistics.fmean(values), math.inf, count)
    quantile = T[min(count - 1, len(T)) - 1]
    return Interval(statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(count), count)


def paired(rows: Iterable[Row], metric: str, method: str, control: str) -> Interval:
    """Of `method - control`, over the seeds that have both."""
    by_method: dict[str, dict[int, float]] = {method: {}, control: {}}
    for row in rows:
        if row["method"] in by_method:
            by_method[row["method"]][row["seed"]] = row[metric]
    seeds = sorted(by_method[method].keys() & by_method[control].keys())
    return interval([by_method[method][seed] - by_method[control][seed] for seed in seeds])
