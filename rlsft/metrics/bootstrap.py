"""Intervals for means, paired differences and ratios, and the verdict that an interval allows."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlsft.errors import ConfigError

MIN_UNITS_FOR_VERDICT = 20
Better = Literal["higher", "lower"]
Verdict = Literal["better", "worse", "higher", "lower", "no clear change", "too few to say"]

_MAX_GATHERED = 2_000_000  # numbers gathered at once while resampling; bounds memory, changes no result


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    `n` counts the values and `units` what was resampled (groups where values come in groups, otherwise the
    values). `low` and `high` are NaN where fewer than two units allow no interval.
    """

    mean: float
    low: float
    high: float
    n: int
    units: int = -1  # -1: the same as n
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.units < 0:
            object.__setattr__(self, "units", self.n)

    @property
    def is_known(self) -> bool:
        """Whether there is an estimate with both bounds."""
        return all(math.isfinite(bound) for bound in (self.mean, self.low, self.high))

    def format(self, digits: int = 3) -> str:
        """`mean [low, high]`, or the mean alone without bounds, or an en dash without values."""
        if not math.isfinite(self.mean):
            return "–"
        if not self.is_known:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def bootstrap_mean(
    values: ArrayLike,  # [n] floats
    *,
    groups: Sequence[Hashable] | None = None,  # [n]; values of one group are resampled together
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of `values` with its percentile bootstrap interval (Efron 1979).

    Values that belong together (prompts of one conversation) are not independent: give their `groups`, and
    whole groups are drawn, so that the interval is not too narrow.

    Raises:
        ConfigError: `values` is not one finite row, `groups` has another length, or a setting is out of
        range.
    """
    array = _one_row("values", values)
    _check_settings(level, num_resamples)
    sums, counts = _by_group(array, groups)
    units = len(sums)
    if units == 0:
        return Interval(math.nan, math.nan, math.nan, 0, level=level)
    mean = float(array.mean())
    if units == 1:
        return Interval(mean, math.nan, math.nan, len(array), units, level)
    means = _resampled_means(sums, counts, num_resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    # With equal values the quantiles may miss the mean by a rounding error.
    return Interval(mean, min(float(low), mean), max(float(high), mean), len(array), units, level)


def paired_bootstrap(
    before: ArrayLike,  # [n] floats
    after: ArrayLike,  # [n] floats, the same prompts in the same order
    *,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of `after - before` over the same prompts, with its percentile bootstrap interval (Koehn 2004).

    Raises:
        ConfigError: the two have different lengths or hold something that is not finite.
    """
    before_row, after_row = _one_row("before", before), _one_row("after", after)
    if len(before_row) != len(after_row):
        raise ConfigError(
            f"before and after must be paired, got {len(before_row)} and {len(after_row)} values; "
            "give one value a prompt on each side, in the same order"
        )
    return bootstrap_mean(after_row - before_row, groups=groups, level=level, num_resamples=num_resamples, seed=seed)


def jackknife_interval(
    value: float,
    leave_one_out: ArrayLike,  # [n] the statistic without each unit
    *,
    level: float = 0.95,
) -> Interval:
    """Interval for a statistic that is no mean, from its values with each unit left out (Tukey's jackknife).

    For corpus statistics such as distinct-n, where a bootstrap sample repeats texts and so is less diverse
    than the corpus by construction. The variance `(n-1)/n * sum((theta_i - mean)^2)` is on average not too
    small (Efron and Stein 1981).
    """
    _check_settings(level, 1)
    loo = _one_row("leave_one_out", leave_one_out)
    n = len(loo)
    if n < 2 or not math.isfinite(value):
        return Interval(value if n else math.nan, math.nan, math.nan, n, level=level)
    error = math.sqrt((n - 1) / n * float(((loo - loo.mean()) ** 2).sum()))
    margin = NormalDist().inv_cdf((1 + level) / 2) * error
    return Interval(value, value - margin, value + margin, n, level=level)


def verdict(
    difference: Interval,
    *,
    better: Better | None,
    min_units: int = MIN_UNITS_FOR_VERDICT,
    resolution: float = 0.0,
) -> Verdict:
    """What the interval of a paired difference allows to say.

    "better" or "worse" only when the interval leaves out 0 and at least `min_units` units were compared;
    "higher" or "lower" for a metric without a good direction (`better=None`, such as length). A mean difference
    below `resolution`, the last digit that is shown, is no change: unsmoothed BLEU of short answers is 1e-77 or 1e-80.
    """
    if difference.units < min_units or not difference.is_known:
        return "too few to say"
    if difference.low <= 0.0 <= difference.high or abs(difference.mean) < resolution:
        return "no clear change"
    is_up = difference.low > 0.0
    if better is None:
        return "higher" if is_up else "lower"
    return "better" if is_up == (better == "higher") else "worse"


def _one_row(name: str, values: ArrayLike) -> NDArray[np.float64]:
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1:
        raise ConfigError(f"{name} must be one row of numbers [n], got shape {list(row.shape)}")
    bad = np.flatnonzero(~np.isfinite(row))
    if bad.size:
        raise ConfigError(f"{name} must be finite, got {row[bad[0]]} at position {bad[0]}; drop such rows first")
    return row


def _check_settings(level: float, num_resamples: int) -> None:
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level must lie between 0 and 1 (0.95 is usual), got {level}")
    if num_resamples < 1:
        raise ConfigError(f"num_resamples must be at least 1 (2000 is usual), got {num_resamples}")


def _by_group(
    values: NDArray[np.float64], groups: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and count of the values of each group, groups in order of first appearance."""
    if groups is None:
        return values, np.ones_like(values)
    if len(groups) != len(values):
        raise ConfigError(f"groups must name one group a value, got {len(groups)} for {len(values)} values")
    index_of: dict[Hashable, int] = {}
    positions = np.fromiter((index_of.setdefault(group, len(index_of)) for group in groups), np.int64, len(values))
    return (
        np.bincount(positions, weights=values, minlength=len(index_of)).astype(np.float64),
        np.bincount(positions, minlength=len(index_of)).astype(np.float64),
    )


def _resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], num_resamples: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    units = len(sums)
    rows = max(1, _MAX_GATHERED // units)
    means = []
    for start in range(0, num_resamples, rows):
        picks = rng.integers(units, size=(min(rows, num_resamples - start), units))
        means.append(sums[picks].sum(axis=1) / counts[picks].sum(axis=1))
    return np.concatenate(means)
