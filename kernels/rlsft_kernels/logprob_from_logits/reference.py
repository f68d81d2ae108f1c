"""What logprob_from_logits means, in plain PyTorch. Tests treat this file as the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from rlsft_kernels._head.head import statistics_dtype
from rlsft_kernels.linear_logprob.reference import LogprobOutput, statistics_of_logits


def logprob_from_logits_reference(
    logits: Tensor,  # [N, V]
    targets: Tensor,  # [N] int64
    *,
    temperature: float | Tensor = 1.0,  # or [N]
    softcap: float | None = None,
    logit_scale: float = 1.0,
    ignore_index: int = -100,
) -> LogprobOutput:
    """Every output of the op, differentiable by autograd."""
    wide = statistics_dtype(logits.dtype)
    final_NV = logit_scale * logits.to(wide)
    if softcap is not None:
        final_NV = softcap * torch.tanh(final_NV / softcap)
    spread = temperature.to(wide)[:, None] if isinstance(temperature, Tensor) else temperature
    return statistics_of_logits(final_NV / spread, targets, ignore_index)
