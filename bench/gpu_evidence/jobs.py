"""The jobs whose traffic is counted: the same loss by us, Liger and Apple's CCE. Peers are optional and only run.

Import inside a process in which `tests.gpu_evidence.traffic` was imported first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

ROWS, VOCABULARY, WIDTH = 8, 50304, 128
FUSED_ROWS, FUSED_VOCABULARY = 64, 4096


@dataclass(frozen=True)
class Job:
    """One way to do one piece of work; `run` launches it on CPU tensors and returns |loss - eager loss|.

    `tile` is the tensor of logits whose passes are counted, by the name of the kernel's parameter; `gemm_flops` what
    the matrix products outside the kernels need, by formula.
    """

    work: str
    provider: str
    package: str
    run: Callable[[], float]
    tile_bytes: int
    tile: tuple[str, ...] = ()
    gemm_flops: int = 0


def _logits(rows: int = ROWS) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(rows, VOCABULARY).bfloat16()


def liger_cross_entropy() -> float:
    from liger_kernel.ops import cross_entropy

    logits = _logits()
    targets = torch.randint(0, VOCABULARY, (ROWS,))
    expected = torch.nn.functional.cross_entropy(logits.float(), targets)
    loss = cross_entropy.LigerCrossEntropyFunction.apply(logits.requires_grad_(), targets, None)[0]
    return float((loss - expected).abs())


def liger_grpo() -> float:
    from liger_kernel.ops import grpo_loss

    batch, length = 2, ROWS // 2
    logits = _logits(batch * (length + 1)).view(batch, length + 1, VOCABULARY)
    ids = torch.randint(0, VOCABULARY, (batch, length))
    advantages, reference = torch.randn(batch), 0.3 * torch.randn(batch, length) - 11
    mask = torch.ones(batch, length, dtype=torch.bool)
    logprobs = torch.log_softmax(logits[:, :-1].float(), -1).gather(-1, ids[..., None])[..., 0]
    kl = (reference - logprobs).exp() - (reference - logprobs) - 1
    expected = (-advantages[:, None] + 0.04 * kl).mean()
    result = grpo_loss.GrpoLossFunction.apply(
        logits.requires_grad_(), None, reference, ids, advantages, mask, 1.0, 0.04, 0.2, 0.2, False, "grpo"
    )
    result[0].backward()
    return float((result[0] - expected).abs())


def _fused_inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(FUSED_ROWS, WIDTH).bfloat16()
    weight = (torch.randn(FUSED_VOCABULARY, WIDTH) / WIDTH**0.5).bfloat16()
    targets = torch.randint(0, FUSED_VOCABULARY, (FUSED_ROWS,))
    expected = torch.nn.functional.cross_entropy(hidden.float() @ weight.float().T, targets)
    return hidden.requires_grad_(), weight.requires_grad_(), targets, expected


def liger_fused_linear_cross_entropy() -> float:
    from liger_kernel.ops import fused_linear_cross_entropy

    hidden, weight, targets, expected = _fused_inputs()
    function = fused_linear_cross_entropy.LigerFusedLinearCrossEntropyFunction
    loss: Any = function.apply(hidden, weight, targets, None)[0]
    return float((loss - expected).abs())


def apple_cce() -> float:
    from cut_cross_entropy import linear_cross_entropy

    hidden, weight, targets, expected = _fused_inputs()
    loss = linear_cross_entropy(hidden, weight, targets)
    loss.backward()
    return float((loss - expected).abs())


_CHUNK = ROWS * VOCABULARY * 2
_FUSED = FUSED_ROWS * FUSED_VOCABULARY * 2
_NHV = FUSED_ROWS * WIDTH * FUSED_VOCABULARY
JOBS = (
    Job("cross entropy of logits", "Liger", "liger_kernel", liger_cross_entropy, _CHUNK, ("X_ptr",)),
    Job("GRPO of logits", "Liger", "liger_kernel", liger_grpo, _CHUNK, ("LOGITS", "DLOGITS")),
    Job(
        "linear cross entropy", "Liger", "liger_kernel", liger_fused_linear_cross_entropy, _FUSED, ("X_ptr",),
        gemm_flops=6 * _NHV,
    ),
    Job("linear cross entropy", "Apple CCE", "cut_cross_entropy", apple_cce, _FUSED),
)  # fmt: skip
