"""How far rankings or raters agree: Kendall tau-b, top-1, exact order, Cohen's and Fleiss' kappa."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlsft.errors import ConfigError


def kendall_tau_b(x: ArrayLike, y: ArrayLike) -> float:
    """Rank correlation with ties: `(C - D) / sqrt((P - Tx) * (P - Ty))`.

    C and D count concordant and discordant pairs, P all pairs, Tx and Ty the pairs tied in one ranking. NaN
    with fewer than two items or when all items of one ranking are tied. O(n^2) time, O(n) memory: made for
    lists of answers.
    """
    x_row, y_row = _rankings(x, y)
    balance = untied_x = untied_y = 0.0
    for i in range(len(x_row) - 1):
        x_sign, y_sign = np.sign(x_row[i + 1 :] - x_row[i]), np.sign(y_row[i + 1 :] - y_row[i])
        balance += float(x_sign @ y_sign)
        untied_x += float(np.abs(x_sign).sum())
        untied_y += float(np.abs(y_sign).sum())
    scale = math.sqrt(untied_x) * math.sqrt(untied_y)
    return max(-1.0, min(1.0, balance / scale)) if scale else math.nan


def top1_agreement(x: ArrayLike, y: ArrayLike) -> float:
    """Probability that both rankings put the same item first, ties for the first place broken at random.

    1 or 0 without ties; with a items tied first in `x` and b in `y`, of which c are common: `c / (a * b)`.
    """
    x_row, y_row = _rankings(x, y)
    if not len(x_row):
        raise ConfigError("x and y must hold at least one item to have a first place, got none")
    x_first, y_first = x_row == x_row.max(), y_row == y_row.max()
    return float((x_first & y_first).sum() / (x_first.sum() * y_first.sum()))


def is_exact_order(x: ArrayLike, y: ArrayLike) -> bool:
    """Whether both rankings order every pair in the same way, ties included."""
    x_row, y_row = _rankings(x, y)
    return all(
        np.array_equal(np.sign(x_row[i + 1 :] - x_row[i]), np.sign(y_row[i + 1 :] - y_row[i]))
        for i in range(len(x_row) - 1)
    )


def exact_order_rate(pairs: Sequence[tuple[ArrayLike, ArrayLike]]) -> float:
    """Share of lists whose whole order both rankings give; chance is 1/k! for k items without ties."""
    if not pairs:
        raise ConfigError("pairs must hold at least one (x, y) pair of rankings, got none")
    return sum(is_exact_order(x, y) for x, y in pairs) / len(pairs)


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Agreement of two raters beyond chance: `(p_o - p_e) / (1 - p_e)`, `p_e = sum_c p1_c * p2_c`.

    `first` and `second` are categories of the same items. For rankings, give the category "which of the two
    is better" of every pair. NaN when both raters always use one and the same category.
    """
    if len(first) != len(second) or not first:
        raise ConfigError(f"both raters must judge the same items, got {len(first)} and {len(second)} judgements")
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    expected = sum((list(first).count(c) / n) * (list(second).count(c) / n) for c in set(first))
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan


def fleiss_kappa(counts: ArrayLike) -> float:
    """Agreement of several raters beyond chance; `counts` [items, categories] says how many chose what.

    With r raters an item: `P_i = (sum_c n_ic^2 - r) / (r * (r - 1))`, `p_e = sum_c p_c^2`,
    `kappa = (mean P_i - p_e) / (1 - p_e)`. NaN when only one category was ever used.

    Raises:
        ConfigError: items have different numbers of raters, or fewer than two.
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise ConfigError(f"counts must be [items, categories], got shape {list(table.shape)}")
    raters = table.sum(axis=1)
    if raters[0] < 2 or (raters != raters[0]).any():
        raise ConfigError(
            f"counts must give every item the same number of raters, at least 2, got {sorted(set(raters.tolist()))}"
        )
    r = raters[0]
    observed = float((((table**2).sum(axis=1) - r) / (r * (r - 1))).mean())
    expected = float(((table.sum(axis=0) / table.sum()) ** 2).sum())
    return (observed - expected) / (1 - expected) if expected < 1 else math.nan


def _rankings(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x_row, y_row = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x_row.ndim != 1 or x_row.shape != y_row.shape:
        raise ConfigError(f"x and y must rank the same items, got shapes {list(x_row.shape)} and {list(y_row.shape)}")
    if np.isnan(x_row).any() or np.isnan(y_row).any():
        raise ConfigError("x and y must not hold NaN: an item without a score has no rank")
    return x_row, y_row
