"""Pearson and Spearman correlation with bootstrap intervals."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlsft.errors import ConfigError
from rlsft.metrics.bootstrap import Interval


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Linear correlation of two rows; NaN with fewer than two values or when one side is constant."""
    x_row, y_row = _pair(x, y)
    return _pearson_rows(x_row[None], y_row[None])[0] if len(x_row) > 1 else math.nan


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson correlation of the average ranks; NaN with fewer than two values or a constant side."""
    x_row, y_row = _pair(x, y)
    return pearson(average_ranks(x_row), average_ranks(y_row))


def correlate(
    x: ArrayLike,  # [n]
    y: ArrayLike,  # [n]
    *,
    kind: Literal["spearman", "pearson"] = "spearman",
    level: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Correlation of `x` and `y` with its percentile bootstrap interval; pairs are drawn together.

    The bounds are NaN with fewer than three pairs or when one side is constant. Resamples in which one side
    is constant have no correlation and are left out.
    """
    x_row, y_row = _pair(x, y)
    n = len(x_row)
    value = spearman(x_row, y_row) if kind == "spearman" else pearson(x_row, y_row)
    if n < 3 or not math.isfinite(value):
        return Interval(value, math.nan, math.nan, n, level=level)
    picks = np.random.default_rng(seed).integers(n, size=(num_resamples, n))
    xs, ys = x_row[picks], y_row[picks]
    if kind == "spearman":
        xs, ys = (np.stack([average_ranks(row) for row in rows]) for rows in (xs, ys))
    values = np.asarray(_pearson_rows(xs, ys))
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(value, math.nan, math.nan, n, level=level)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, min(float(low), value), max(float(high), value), n, level=level)


def average_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1, smallest value first; equal values share the mean of their ranks."""
    row = np.asarray(values, dtype=np.float64)
    _, position, count = np.unique(row, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(count)
    return (last_rank - (count - 1) / 2.0)[position.reshape(-1)]


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x_row, y_row = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x_row.ndim != 1 or x_row.shape != y_row.shape:
        raise ConfigError(f"x and y must be two rows of one length, got {list(x_row.shape)} and {list(y_row.shape)}")
    if not (np.isfinite(x_row).all() and np.isfinite(y_row).all()):
        raise ConfigError("x and y must be finite; drop the rows that have no value on one side first")
    return x_row, y_row


def _pearson_rows(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[float]:
    """Correlation of each row of `x` [R, n] with the same row of `y`; NaN where one is constant."""
    x_centered = x - x.mean(axis=1, keepdims=True)
    y_centered = y - y.mean(axis=1, keepdims=True)
    x_norm, y_norm = np.linalg.norm(x_centered, axis=1), np.linalg.norm(y_centered, axis=1)
    # A constant row keeps a rounding error after centring, which must not count as spread.
    is_flat = (np.ptp(x, axis=1) == 0) | (np.ptp(y, axis=1) == 0)
    scale = np.where(is_flat, np.nan, x_norm * y_norm)
    return np.clip((x_centered * y_centered).sum(axis=1) / scale, -1.0, 1.0).tolist()
