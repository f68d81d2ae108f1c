"""What a keyword's score means, slow and obvious, in float64. Tests treat this file as the truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ranked = tuple[list[int], npt.NDArray[np.float64], list[int], int, float]  # ids, scores, counts, sweeps, last step


def cooccurrences(
    tokens: Sequence[int],
    keep: Sequence[bool],  # which tokens may be words
    window: int,
    *,
    directed: bool,
) -> Counter[tuple[int, int]]:
    """How often each pair of different kept words stands less than `window` tokens apart, earlier word first."""
    pairs: Counter[tuple[int, int]] = Counter()
    for later in range(len(tokens)):
        for earlier in range(max(0, later - window + 1), later):
            if keep[earlier] and keep[later] and tokens[earlier] != tokens[later]:
                pairs[tokens[earlier], tokens[later]] += 1
                if not directed:
                    pairs[tokens[later], tokens[earlier]] += 1
    return pairs


def keyword_rank_reference(
    tokens: Sequence[int],
    keep: Sequence[bool],
    *,
    window: int,
    weighted: bool,
    directed: bool,
    damping: float,
    tol: float,
    max_iter: int,
) -> Ranked:
    """Words of one text in the order of their first appearance, and their scores; see `keyword_rank`."""
    counts = Counter(token for token, kept in zip(tokens, keep, strict=True) if kept)
    number = {word: i for i, word in enumerate(counts)}
    n = len(counts)
    if n == 0:
        return [], np.empty(0), [], 0, 0.0
    weights = np.zeros((n, n))
    for (a, b), times in cooccurrences(tokens, keep, window, directed=directed).items():
        weights[number[a], number[b]] = times if weighted else 1.0
    scores, sweeps, step = _power_iteration(weights, directed, damping, tol, max_iter)
    return list(counts), scores, list(counts.values()), sweeps, step


def _power_iteration(
    weights: npt.NDArray[np.float64],  # [n, n], row i holds the edges that leave i
    directed: bool,
    damping: float,
    tol: float,
    max_iter: int,
) -> tuple[npt.NDArray[np.float64], int, float]:
    """x_j = (1-a)/n + a (sum_{i: s_i>0} x_i w_ij / s_i + D/n), from a s/sum(s) + (1-a)/n in an undirected graph."""
    n = len(weights)
    strength = weights.sum(axis=1)
    is_dangling = strength == 0
    transition = np.where(is_dangling[:, None], 1.0 / n, weights / np.where(is_dangling, 1.0, strength)[:, None])
    x = np.full(n, 1.0 / n)
    if not directed and strength.sum() > 0:
        x = damping * strength / strength.sum() + (1 - damping) / n
    step, sweeps = np.inf, 0
    while sweeps < max_iter and not step < tol:
        following = (1 - damping) / n + damping * (x @ transition)
        step = float(np.abs(following - x).sum())
        x, sweeps = following, sweeps + 1
    return x, sweeps, float(step)
