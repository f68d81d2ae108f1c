"""Row kernels of the language-model head: fold, gradient, and the token losses around both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsft_kernels._head.rows import start_fold
from rlsft_kernels._head.triton_launch import fold_tile_, gradient_tile_, loss_tile_
from tests.gpu_evidence.registry import Inputs, Kernel, Results

EVERYTHING: dict[str, Any] = {"logit_scale": 1.3, "softcap": 8.0}


def _inputs(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16, edge: int = 0, **settings: Any) -> Inputs:
    targets_R = torch.randint(0, columns, (rows,))
    targets_R[:1], targets_R[-1:] = 0, columns - 1
    inputs: Inputs = {"tile_RV": (2 * torch.randn(rows, columns)).to(dtype), "targets_R": targets_R, "edge": edge}
    if settings:
        inputs |= {"bias_V": torch.randn(columns), "temperature_R": torch.rand(rows) + 0.5, **settings}
    return inputs | {"upstream_3R": torch.randn(3, rows)}


WANTED = frozenset(("entropy", "log_sum_sq_probs", "mean_logit", "is_top1"))


def _settings(bias_V: Tensor | None, temperature_R: Tensor | None, columns: slice, **scale: Any) -> dict[str, Any]:
    bias = None if bias_V is None else bias_V[columns].clone()
    return {"bias_V": bias, "temperature": 1.0 if temperature_R is None else temperature_R, **scale}


def _fold_gradient(
    tile_RV: Tensor, targets_R: Tensor, edge: int, upstream_3R: Tensor, bias_V: Tensor | None = None,
    temperature_R: Tensor | None = None, **scale: Any,
) -> Results:  # fmt: skip
    num_columns = tile_RV.shape[1]
    tiles = [slice(a, b) for a, b in ((0, edge), (edge, num_columns)) if a < b]
    state = start_fold(len(tile_RV), WANTED, device=tile_RV.device, dtype=torch.float32)
    for part in tiles:
        fold_tile_(
            tile_RV[:, part].clone(), part.start, targets_R, state=state,
            **_settings(bias_V, temperature_R, part, **scale),
        )  # fmt: skip
    log_sum_R = state.sum_exp.log()
    logprob_R = (state.target_logit - state.row_max) - log_sum_R
    entropy_R = log_sum_R - state.sum_exp_shifted / state.sum_exp
    grads = []
    for part in tiles:
        grad = tile_RV[:, part].clone()
        gradient_tile_(
            grad, part.start, targets_R, row_max_R=state.row_max, log_sum_R=log_sum_R, logprob_R=logprob_R,
            entropy_R=entropy_R, grad_logprob_R=upstream_3R[0].clone(), grad_entropy_R=upstream_3R[1].clone(),
            grad_lse_R=upstream_3R[2].clone(), **_settings(bias_V, temperature_R, part, **scale),
        )  # fmt: skip
        grads.append(grad)
    return {
        "logprob": logprob_R, "entropy": entropy_R, "lse": state.row_max + log_sum_R,
        "log_sum_sq_probs": state.sum_exp_sq.log() - 2 * log_sum_R, "mean_logit": state.sum_logit / num_columns,
        "argmax": state.first_largest.float(), "gradient": torch.cat(grads, dim=1),
    }  # fmt: skip


def _logits(tile_RV: Tensor, bias_V: Tensor | None, temperature_R: Tensor | None, scale: dict[str, Any]) -> Tensor:
    logits_RV = tile_RV if bias_V is None else tile_RV + bias_V.to(tile_RV.dtype)
    logits_RV = logits_RV * scale.get("logit_scale", 1.0)
    if scale.get("softcap") is not None:
        logits_RV = scale["softcap"] * torch.tanh(logits_RV / scale["softcap"])
    return logits_RV if temperature_R is None else logits_RV / temperature_R.to(tile_RV.dtype)[:, None]


def _statistics(logits_RV: Tensor, targets_R: Tensor) -> Results:
    logprobs_RV = logits_RV.log_softmax(-1)
    return {
        "logprob": logprobs_RV.gather(-1, targets_R[:, None])[:, 0],
        "entropy": -(logprobs_RV.exp() * logprobs_RV).sum(-1),
        "lse": logits_RV.logsumexp(-1),
        "log_sum_sq_probs": (2 * logprobs_RV).logsumexp(-1),
        "mean_logit": logits_RV.mean(-1),
        "argmax": logits_RV.argmax(-1).to(logits_RV.dtype),
    }


def _fold_gradient_reference(
    tile_RV: Tensor, targets_R: Tensor, edge: int, upstream_3R: Tensor, bias_V: Tensor | None = None,
    temperature_R: Tensor | None = None, **scale: Any,
) -> Results:  # fmt: skip
    wide = torch.float64 if tile_RV.dtype == torch.float64 else torch.float32
    scores_RV = tile_RV.to(wide).requires_grad_()
    values = _statistics(_logits(scores_RV, bias_V, temperature_R, scale), targets_R)
    differentiable = torch.stack([values[name] for name in ("logprob", "entropy", "lse")])
    grad = torch.autograd.grad((upstream_3R.to(wide) * differentiable).sum(), scores_RV)[0]
    return {name: x.detach() for name, x in values.items()} | {"gradient": grad.to(tile_RV.dtype)}


def _loss(
    tile_RV: Tensor, targets_R: Tensor, edge: int, upstream_3R: Tensor, bias_V: Tensor | None = None,
    temperature_R: Tensor | None = None, **scale: Any,
) -> Results:  # fmt: skip
    """PPO with k3 and an entropy bonus; `upstream_3R` holds advantages, old minus reference log-probability, weight."""
    logprob_R, entropy_R, g_R, e_R = torch.empty(4, len(tile_RV)).unbind()
    is_top1_R = torch.empty(len(tile_RV), dtype=torch.bool)
    advantages_R, ref_R, weight_R = (x.clone() for x in upstream_3R)
    loss_tile_(
        tile_RV, targets_R, rule="ppo", with_gradient=True, logprob_R=logprob_R, entropy_R=entropy_R,
        is_top1_R=is_top1_R, grad_logprob_R=g_R, grad_entropy_R=e_R, advantages_R=advantages_R,
        old_logprobs_R=ref_R - 8.0, ref_logprobs_R=ref_R - 7.5, weight_R=weight_R, dual_clip=3.0, kl_coef=0.1,
        entropy_coef=0.05, **_settings(bias_V, temperature_R, slice(None), **scale),
    )  # fmt: skip
    return {"logprob": logprob_R, "entropy": entropy_R, "gradient": tile_RV}


def _loss_reference(
    tile_RV: Tensor, targets_R: Tensor, edge: int, upstream_3R: Tensor, bias_V: Tensor | None = None,
    temperature_R: Tensor | None = None, **scale: Any,
) -> Results:  # fmt: skip
    wide = torch.float64 if tile_RV.dtype == torch.float64 else torch.float32
    scores_RV = tile_RV.to(wide).requires_grad_()
    values = _statistics(_logits(scores_RV, bias_V, temperature_R, scale), targets_R)
    advantages_R, ref_R, weight_R = upstream_3R.to(wide)
    ratio_R = (values["logprob"] - (ref_R - 8.0)).clamp(-20, 20).exp()
    unclipped_R, clipped_R = -advantages_R * ratio_R, -advantages_R * ratio_R.clamp(0.8, 1.2)
    policy_R = torch.where(clipped_R > unclipped_R, clipped_R, unclipped_R)
    bound_R = -advantages_R * 3.0
    policy_R = torch.where((advantages_R < 0) & (policy_R > bound_R), bound_R, policy_R)
    difference_R = (values["logprob"] - (ref_R - 7.5)).clamp(-20, 20)
    kl_R = (torch.expm1(-difference_R) + difference_R).clamp(max=10)
    loss = (weight_R * (policy_R + 0.1 * kl_R - 0.05 * values["entropy"])).sum()
    grad = torch.autograd.grad(loss, scores_RV)[0]
    return {name: values[name].detach() for name in ("logprob", "entropy")} | {"gradient": grad.to(tile_RV.dtype)}


KERNELS = (
    Kernel(
        "head_fold_gradient", _fold_gradient, _fold_gradient_reference,
        cases={
            "aligned": lambda: _inputs(2, 2048),
            "tail": lambda: _inputs(3, 1025, edge=512),
            "everything": lambda: _inputs(3, 1000, edge=304, **EVERYTHING),
            "float32": lambda: _inputs(2, 1000, torch.float32),
            "float16": lambda: _inputs(2, 1000, torch.float16),
            "one column": lambda: _inputs(2, 1),
        },
        budget={
            "bf16": lambda: _inputs(2, 131072),
            "bf16 4096": lambda: _inputs(2, 4096),
            "bf16 everything": lambda: _inputs(2, 131072, **EVERYTHING),
            "float32": lambda: _inputs(2, 131072, torch.float32),
        },
    ),
    Kernel(
        "head_loss", _loss, _loss_reference,
        cases={
            "aligned": lambda: _inputs(2, 2048),
            "tail": lambda: _inputs(3, 1025),
            "everything": lambda: _inputs(3, 1000, **EVERYTHING),
            "float32": lambda: _inputs(2, 1000, torch.float32),
            "float16": lambda: _inputs(2, 1000, torch.float16),
        },
        budget={
            "bf16": lambda: _inputs(2, 131072),
            "bf16 everything": lambda: _inputs(2, 131072, **EVERYTHING),
            "float32": lambda: _inputs(2, 131072, torch.float32),
        },
    ),
)  # fmt: skip
