"""Weights of weighted fine-tuning: exp(reward / beta), self-normalised, so that their mean is one."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def exponential_weights(
    log_weights: ArrayLike,  # [n]
    *,
    groups: Sequence[Hashable] | None = None,  # [n]
    cap: float | None = None,
) -> NDArray[np.float64]:  # [n]
    """`w_i = exp(l_i) / mean_j exp(l_j)` over all rows, or over the rows of one group, at most `cap`.

    With `l = r / beta` on answers `z` of a policy this is self-normalised importance weighting: the weighted
    log-likelihood `E[w log pi(z)]` is largest, over all policies, at `pi(z) ∝ policy(z) exp(r(z) / beta)`, the closed
    form of the KL-regularised problem (arXiv 2405.17888). A cap trades bias for variance.

    Args:
        log_weights: finite numbers.
        groups: which rows share a mean (those of one prompt); None = all of them.
        cap: largest weight; None = none. Weights that it cuts are not made up for.

    Raises:
        ValueError: numbers that are not finite, another number of groups, or a cap that is not positive.
    """
    logs = np.asarray(log_weights, dtype=np.float64)
    if logs.ndim != 1 or not np.isfinite(logs).all():
        raise ValueError(f"log_weights must be [n] finite numbers, got shape {list(logs.shape)}")
    if groups is not None and len(groups) != len(logs):
        raise ValueError(f"groups must have one entry a row, {len(logs)}, got {len(groups)}")
    if cap is not None and not cap > 0:
        raise ValueError(f"cap must be > 0, got {cap!r}")
    weights = np.empty_like(logs)
    for places in _places(groups, len(logs)):
        shifted = np.exp(logs[places] - logs[places].max())
        weights[places] = shifted / shifted.mean()
    return weights if cap is None else np.minimum(weights, cap)


def _places(groups: Sequence[Hashable] | None, count: int) -> list[list[int]]:
    if count == 0:
        return []
    if groups is None:
        return [list(range(count))]
    found: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        found.setdefault(group, []).append(place)
    return list(found.values())
