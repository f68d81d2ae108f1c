"""What linear_pair_loss means, in plain PyTorch over the whole batch. Tests treat this file as the truth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsft_kernels.linear_logprob.reference import linear_logprob_reference
from rlsft_kernels.pair_loss.reference import pair_loss_reference


def linear_pair_loss_reference(
    hidden: Tensor,  # [2P, T, H]: P demonstrations, then the P answers they are compared with
    weight: Tensor,  # [V, H]
    targets: Tensor,  # [2P, T] int64
    mask: Tensor,  # [2P, T] bool
    ref_logprob_sums: Tensor | None = None,  # [2P]
    *,
    beta: float,
    normalize_length: bool = False,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    **pair_settings: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`(loss, stats)`, differentiable by autograd."""
    marked = torch.where(mask, targets, -100).reshape(-1)
    rows_NH = torch.where(mask[..., None], hidden, 0).reshape(-1, hidden.shape[-1])
    logprob = linear_logprob_reference(rows_NH, weight, marked, bias=bias, temperature=temperature).logprob
    assert logprob is not None
    sums = logprob.view(mask.shape).sum(dim=1)
    if ref_logprob_sums is not None:
        sums = sums - ref_logprob_sums.to(sums.dtype)
    if normalize_length:
        sums = sums / mask.sum(dim=1).clamp(min=1)
    pairs = len(sums) // 2
    return pair_loss_reference(sums[:pairs], sums[pairs:], beta=beta, **pair_settings)
