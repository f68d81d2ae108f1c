"""Row kernels in Triton, for tiles on a GPU; `triton_launch.py` has the launchers."""

from __future__ import annotations

import torch
from torch import Tensor

from rlsft_kernels._head.head import Head
from rlsft_kernels._head.rows import FoldState, RowGradients
from rlsft_kernels._head.token_rule import TokenRule
from rlsft_kernels._head.triton_launch import fold_tile_, gradient_tile_, loss_tile_


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """What a GPU adds fast."""
    return torch.float32


def fold_(
    head: Head, tile_RC: Tensor, columns: slice, targets_R: Tensor, temperature: float | Tensor, state: FoldState
) -> None:
    """See `RowKernels.fold_`."""
    fold_tile_(
        tile_RC, columns.start, targets_R, state=state, bias_V=head.bias_of(columns), temperature=temperature,
        logit_scale=head.logit_scale, softcap=head.softcap,
    )  # fmt: skip


def gradient_(
    head: Head, tile_RC: Tensor, columns: slice, gradients: RowGradients, order: Tensor | None, out: Tensor
) -> None:
    """See `RowKernels.gradient_`."""
    g = gradients if order is None else gradients.of(order)
    if out.data_ptr() != tile_RC.data_ptr() or order is not None:
        out.copy_(tile_RC if order is None else tile_RC[order])  # the kernel works in place
    gradient_tile_(
        out, columns.start, g.targets, row_max_R=g.row_max, log_sum_R=g.log_sum, logprob_R=g.logprob,
        entropy_R=g.entropy, grad_logprob_R=g.by_logprob, grad_entropy_R=g.by_entropy, grad_lse_R=g.by_lse,
        bias_V=head.bias_of(columns), temperature=g.temperature, logit_scale=head.logit_scale, softcap=head.softcap,
    )  # fmt: skip


def loss_(
    head: Head, tile_RV: Tensor, targets_R: Tensor, temperature: float | Tensor, rule: TokenRule
) -> dict[str, Tensor] | None:
    """See `RowKernels.loss_`: one launch reads a row, scores it and overwrites it."""
    num_rows, device = len(tile_RV), tile_RV.device
    floats = {name: torch.empty(num_rows, dtype=torch.float32, device=device) for name in ("logprob", "entropy")}
    is_top1 = torch.empty(num_rows, dtype=torch.bool, device=device)
    loss_tile_(
        tile_RV, targets_R, rule=rule.kind, logprob_R=floats["logprob"], with_gradient=True,
        entropy_R=floats["entropy"], is_top1_R=is_top1, weight_R=rule.weights, advantages_R=rule.advantages,
        old_logprobs_R=rule.old_logprobs, ref_logprobs_R=rule.ref_logprobs if rule.kl_coef != 0 else None,
        clip_low=rule.clip_low, clip_high=rule.clip_high, dual_clip=rule.dual_clip, kl_coef=rule.kl_coef,
        kl_estimator=rule.kl_estimator, entropy_coef=rule.entropy_coef, bias_V=head.bias_of(slice(0, head.num_columns)),
        temperature=temperature, logit_scale=head.logit_scale, softcap=head.softcap,
    )  # fmt: skip
    return {**floats, "is_top1": is_top1}


def accumulate_(total_VH: Tensor, grad_tile_RV: Tensor, hidden_RH: Tensor, *, first: bool) -> None:
    """See `RowKernels.accumulate_`: a GPU's product of half-precision factors adds into float32."""
    if total_VH.dtype == grad_tile_RV.dtype:
        total_VH.addmm_(grad_tile_RV.t(), hidden_RH, beta=0 if first else 1)
    elif grad_tile_RV.is_cuda:
        factors = (grad_tile_RV.t(), hidden_RH)
        if first:
            torch.mm(*factors, out_dtype=torch.float32, out=total_VH)
        else:
            torch.addmm(total_VH, *factors, out_dtype=torch.float32, out=total_VH)
    elif first:  # the interpreter
        total_VH.copy_(grad_tile_RV.t() @ hidden_RH)
    else:
        total_VH += grad_tile_RV.t() @ hidden_RH


def accumulates(dtype: torch.dtype) -> bool:
    """See `RowKernels.accumulates`."""
    return True
