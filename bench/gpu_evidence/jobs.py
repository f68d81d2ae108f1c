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
    """One way to do one piece of work; `run` launches it on CPU tensors and returns how far its loss is
    from eager's (the largest distance of a log-probability where the kernel returns those).

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


OURS = "rlsft_kernels._head.triton_rows"


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


def our_cross_entropy() -> float:
    logits = _logits()
    targets = torch.randint(0, VOCABULARY, (ROWS,))
    expected = torch.nn.functional.cross_entropy(logits.float(), targets)
    logprobs = _our_rows(logits, targets, rule="nll", weight_R=torch.full((ROWS,), 1 / ROWS))
    return float((-logprobs.mean() - expected).abs())


def our_policy_loss() -> float:
    """The loss of the GRPO job: clipped, with the k3 estimate of the KL; returns the error of the log-probabilities."""
    logits = _logits()
    targets = torch.randint(0, VOCABULARY, (ROWS,))
    expected = torch.log_softmax(logits.float(), -1).gather(-1, targets[:, None])[:, 0]
    tokens = {"advantages_R": torch.randn(ROWS), "ref_logprobs_R": 0.3 * torch.randn(ROWS) - 11}
    logprobs = _our_rows(
        logits, targets, rule="ppo", weight_R=torch.full((ROWS,), 1 / ROWS), mask_R=torch.ones(ROWS, dtype=torch.bool),
        old_logprobs_R=expected.clone(), kl_coef=0.04, **tokens,
    )  # fmt: skip
    return float((logprobs - expected).abs().max())


def our_linear_cross_entropy() -> float:
    """GEMM, row kernel in place, two GEMMs: the path of the op for one tile."""
    hidden, weight, targets, expected = _fused_inputs()
    with torch.no_grad():
        tile = hidden @ weight.T
        weights = torch.full((FUSED_ROWS,), 1 / FUSED_ROWS)
        logprobs = _our_rows(tile, targets, rule="nll", weight_R=weights)
        _gradients = tile @ weight, tile.T @ hidden
    return float((-logprobs.mean() - expected).abs())


def _our_rows(tile: torch.Tensor, targets: torch.Tensor, **settings: Any) -> torch.Tensor:
    from rlsft_kernels._head.triton_rows import loss_tile_

    logprobs = torch.empty(len(tile))
    loss_tile_(tile, targets, logprob_R=logprobs, with_gradient=True, grad_logprob_R=torch.empty(len(tile)), **settings)
    return logprobs


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
_OUR_TILE = ("tile_ptr",)
JOBS = (
    Job("cross entropy of logits", "rlsft", OURS, our_cross_entropy, _CHUNK, _OUR_TILE),
    Job("cross entropy of logits", "Liger", "liger_kernel", liger_cross_entropy, _CHUNK, ("X_ptr",)),
    Job("GRPO of logits", "rlsft", OURS, our_policy_loss, _CHUNK, _OUR_TILE),
    Job("GRPO of logits", "Liger", "liger_kernel", liger_grpo, _CHUNK, ("LOGITS", "DLOGITS")),
    Job(
        "linear cross entropy", "rlsft", OURS, our_linear_cross_entropy, _FUSED, _OUR_TILE, gemm_flops=6 * _NHV
    ),
    Job(
        "linear cross entropy", "Liger", "liger_kernel", liger_fused_linear_cross_entropy, _FUSED, ("X_ptr",),
        gemm_flops=6 * _NHV,
    ),
    Job("linear cross entropy", "Apple CCE", "cut_cross_entropy", apple_cce, _FUSED),
)  # fmt: skip
