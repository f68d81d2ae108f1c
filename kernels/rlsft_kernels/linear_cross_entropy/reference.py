"""What linear_cross_entropy means, in plain PyTorch over the whole batch. Tests treat this file as the truth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rlsft_kernels.linear_logprob.reference import head_logits_reference


def linear_cross_entropy_reference(
    hidden: Tensor,  # [N, H]
    weight: Tensor,  # [V, H]
    targets: Tensor,  # [N] int64
    *,
    bias: Tensor | None = None,  # [V]
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`(loss, stats)`, differentiable by autograd."""
    logits_NV = head_logits_reference(hidden, weight, bias, 1.0, softcap, logit_scale)
    labelled_N = targets != ignore_index
    num_tokens = labelled_N.sum().to(logits_NV.dtype)
    nll = F.cross_entropy(logits_NV, targets, ignore_index=ignore_index, reduction="sum")
    with torch.no_grad():
        correct = (logits_NV.argmax(dim=-1) == targets) & labelled_N
        entropy_N = torch.special.entr(logits_NV.softmax(dim=-1)).sum(dim=-1)
        at_least_one = num_tokens.clamp(min=1)
        stats = {
            "num_tokens": num_tokens,
            "sum_nll": nll.detach(),
            "accuracy": correct.sum() / at_least_one,
            "entropy": torch.where(labelled_N, entropy_N, 0).sum() / at_least_one,
        }
    return nll / (at_least_one if normalizer is None else normalizer), stats
