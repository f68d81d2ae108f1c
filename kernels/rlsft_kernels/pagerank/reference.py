"""What a PageRank score means, slow and obvious, in float64. Tests treat this file as the truth."""

from __future__ import annotations

import torch

Ranked = tuple[torch.Tensor, int, float]  # scores [n], sweeps, L1 step of the last sweep


def pagerank_reference(
    starts: torch.Tensor,  # [E] int64
    ends: torch.Tensor,  # [E] int64
    weights: torch.Tensor,  # [E] float64
    teleport: torch.Tensor,  # [n] float64, sums to 1
    dangling: torch.Tensor,  # [n] float64, sums to 1
    start: torch.Tensor,  # [n] float64, sums to 1
    *,
    damping: float,
    tol: float,
    max_iter: int,
) -> Ranked:
    """x_j = (1-a) v_j + a (sum_{i: s_i>0} x_i w_ij / s_i + D d_j), D = sum of x_i over nodes with s_i = 0."""
    if len(teleport) == 0:
        return teleport.clone(), 0, 0.0
    # scaled first: sums near the end of double's range overflow
    largest = torch.zeros_like(teleport).scatter_reduce(0, starts, weights, "amax")
    scaled = weights / torch.where(largest > 0, largest, torch.ones_like(largest))[starts]
    strength = torch.zeros_like(teleport).index_add(0, starts, scaled)
    probability = scaled / torch.where(strength > 0, strength, torch.ones_like(strength))[starts]
    x, step, sweeps = start.clone(), float("inf"), 0
    while sweeps < max_iter and not step < tol:
        followed = torch.zeros_like(x).index_add(0, ends, x[starts] * probability)
        lost = x[strength == 0].sum()
        following = (1 - damping) * teleport + damping * (followed + lost * dangling)
        step = float((following - x).abs().sum())
        x, sweeps = following, sweeps + 1
    return x / x.sum(), sweeps, step
