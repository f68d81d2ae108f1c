"""What a TextRank score means, slow and obvious, in float64. Tests treat this file as the truth."""

from __future__ import annotations

import torch

SURELY_BELOW = 1 - 1e-9  # closer to a * rho = 1 the eigenvector, which Katz falls back to, must have converged
Ranked = tuple[torch.Tensor, int, float]  # scores [n], sweeps, L1 step of the last sweep


def textrank_reference(
    weights: torch.Tensor,  # [n, n] float64, row i holds the edges that leave i
    teleport: torch.Tensor,  # [n] float64, sums to 1
    start: torch.Tensor,  # [n] float64, sums to 1
    *,
    damping: float,
    tol: float,
    max_iter: int,
    form: str,
) -> Ranked:
    """Scores of one graph; see `textrank`."""
    if len(weights) == 0:
        return teleport.clone(), 0, 0.0
    if form == "stochastic":
        scores, sweeps, step = _stochastic(weights, teleport, start, damping, tol, max_iter)
    else:
        scores, sweeps, step = _eigenvector(weights, teleport, start, damping, tol, max_iter)
    scores = _equalise_twins(scores, weights, teleport, near=1e-12 + 10 * tol)
    return (scores if form == "stochastic" else _largest_is_one(scores)), sweeps, step


def _stochastic(
    weights: torch.Tensor,
    teleport: torch.Tensor,
    start: torch.Tensor,
    damping: float,
    tol: float,
    max_iter: int,
) -> Ranked:
    """x_j = (1-a) v_j + a (sum_{i: s_i>0} x_i w_ij / s_i + D v_j), D = sum of x_i over rows with s_i = 0."""
    largest = weights.amax(dim=1, keepdim=True)  # scaled first: row sums near the end of double's range overflow
    scaled = weights / torch.where(largest > 0, largest, torch.ones_like(largest))
    strength = scaled.sum(dim=1, keepdim=True)
    is_dangling = strength[:, 0] == 0
    transition = torch.where(is_dangling[:, None], teleport[None, :], scaled / strength)
    x, step, sweeps = start.clone(), float("inf"), 0
    while sweeps < max_iter and not step < tol:
        following = (1 - damping) * teleport + damping * (transition.T @ x)
        step = float((following - x).abs().sum())
        x, sweeps = following, sweeps + 1
    return x, sweeps, step


def _eigenvector(
    weights: torch.Tensor,
    teleport: torch.Tensor,
    start: torch.Tensor,
    damping: float,
    tol: float,
    max_iter: int,
) -> Ranked:
    """Principal eigenvector of W^T; where a * rho(W) <= 1 the iteration x = a W^T x + (1-a) tends to Katz instead."""
    # without a share of some node, power iteration may find another eigenvector, and the bound below means nothing
    x = start.clone() if bool((start > 0).all()) else (start + 1 / len(start)) / 2
    step, sweeps, rho = float("inf"), 0, 0.0
    nonnegative = bool((weights >= 0).all())
    while sweeps < max_iter and not step < tol:
        grown = weights.T @ x
        rho, sweeps = float(grown.abs().sum()), sweeps + 1
        bound = float((grown / x).nan_to_num(nan=0.0).max())  # Collatz-Wielandt: rho(W) is at most this
        if rho == 0.0 or (nonnegative and damping * bound <= SURELY_BELOW):
            return _katz(weights, teleport, damping, x), sweeps, 0.0
        # the shift by rho/4 changes no eigenvector, and a bipartite graph no longer oscillates
        shifted = grown + 0.25 * rho * x
        shifted = shifted / shifted.abs().sum()
        step, x = float((shifted - x).abs().sum()), shifted
    if step < tol and damping * rho <= 1:
        return _katz(weights, teleport, damping, x), sweeps, 0.0
    return x, sweeps, step


def _katz(weights: torch.Tensor, teleport: torch.Tensor, damping: float, eigenvector: torch.Tensor) -> torch.Tensor:
    """Falls back to the eigenvector where a * rho is 1, or above by less than power iteration could tell."""
    identity = torch.eye(len(weights), dtype=weights.dtype, device=weights.device)
    x, is_singular = torch.linalg.solve_ex(identity - damping * weights.T, teleport)
    norm = x.abs().sum()
    if is_singular or not norm.isfinite():
        return eigenvector
    if bool((weights >= 0).all()):
        if bool((x < -1e-12 * norm).any()):
            return eigenvector
        x = x.clamp(min=0)
    return x / norm


def _largest_is_one(x: torch.Tensor) -> torch.Tensor:
    return x / (x.min() if -x.min() > x.max() else x.max())


def _equalise_twins(x: torch.Tensor, weights: torch.Tensor, teleport: torch.Tensor, *, near: float) -> torch.Tensor:
    """Nodes the graph cannot tell apart tie exactly, however rounding fell: they share their mean."""
    first_twin = list(range(len(x)))
    for k in range(1, len(x)):
        close = ((x[:k] - x[k]).abs() <= near) & (teleport[:k] == teleport[k])
        for i in close.nonzero()[:, 0].tolist():
            swap = torch.arange(len(x), device=x.device)
            swap[i], swap[k] = k, i
            if (
                first_twin[i] == i
                and torch.equal(weights[i], weights[k][swap])
                and torch.equal(weights[:, i], weights[swap, k])
            ):
                first_twin[k] = i
                break
    twins = torch.tensor(first_twin, dtype=torch.int64, device=x.device)
    sums, sizes = torch.zeros_like(x).index_add(0, twins, x), torch.bincount(twins, minlength=len(x))
    return sums[twins] / sizes[twins]
