"""What linear_logprob means, in plain PyTorch over the whole batch. Tests treat this file as the truth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlsft_kernels._head.head import statistics_dtype


class LogprobOutput(NamedTuple):
    """Per-token outputs of `linear_logprob`, each shaped like `targets`; None where `outputs` did not ask."""

    logprob: Tensor | None = None
    entropy: Tensor | None = None
    lse: Tensor | None = None
    log_sum_sq_probs: Tensor | None = None  # log sum p^2, no gradient
    mean_logit: Tensor | None = None  # of the final logits, no gradient
    is_top1: Tensor | None = None  # bool: the target is the first of the largest logits


def head_logits_reference(
    hidden: Tensor,  # [N, H]
    weight: Tensor,  # [V, H]
    bias: Tensor | None = None,  # [V]
    temperature: float | Tensor = 1.0,  # or [N]
    softcap: float | None = None,
    logit_scale: float = 1.0,
) -> Tensor:  # [N, V], float32 (float64 for float64 input)
    """`softcap(logit_scale * (hidden @ weight.T + bias)) / temperature`, wide after the GEMM."""
    wide = statistics_dtype(hidden.dtype)
    logits_NV = (hidden @ weight.T).to(wide)
    if bias is not None:
        logits_NV = logits_NV + bias.to(wide)
    logits_NV = logit_scale * logits_NV
    if softcap is not None:
        logits_NV = softcap * torch.tanh(logits_NV / softcap)
    return logits_NV / (temperature.to(wide)[:, None] if isinstance(temperature, Tensor) else temperature)


def linear_logprob_reference(
    hidden: Tensor,  # [N, H]
    weight: Tensor,  # [V, H]
    targets: Tensor,  # [N] int64
    *,
    bias: Tensor | None = None,  # [V]
    temperature: float | Tensor = 1.0,  # or [N]
    softcap: float | None = None,
    logit_scale: float = 1.0,
    ignore_index: int = -100,
) -> LogprobOutput:
    """Every output of the op, differentiable by autograd."""
    logits_NV = head_logits_reference(hidden, weight, bias, temperature, softcap, logit_scale)
    return statistics_of_logits(logits_NV, targets, ignore_index)


def statistics_of_logits(
    logits_NV: Tensor,
    targets: Tensor,  # [N] int64
    ignore_index: int,
) -> LogprobOutput:
    """The outputs for final logits."""
    labelled_N = targets != ignore_index
    targets_N1 = torch.where(labelled_N, targets, 0)[:, None]
    logprobs_NV = logits_NV.log_softmax(dim=-1)
    probs_NV = logprobs_NV.exp()
    # where twice: the second keeps 0 * -inf out of the value, the first keeps it out of the gradient
    finite_NV = torch.where(probs_NV > 0, logprobs_NV, 0)
    surprise_NV = torch.where(probs_NV.isnan(), probs_NV, -probs_NV * finite_NV)
    values = (
        logprobs_NV.gather(-1, targets_N1)[:, 0],
        surprise_NV.sum(dim=-1),
        logits_NV.logsumexp(dim=-1),
        (2 * logprobs_NV.detach()).logsumexp(dim=-1),
        logits_NV.detach().mean(dim=-1),
    )
    logprob, entropy, lse, log_sum_sq_probs, mean_logit = (torch.where(labelled_N, x, 0) for x in values)
    is_top1 = (logits_NV.argmax(dim=-1) == targets) & labelled_N
    return LogprobOutput(logprob, entropy, lse, log_sum_sq_probs, mean_logit, is_top1)
