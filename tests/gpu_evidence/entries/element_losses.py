"""The element-wise losses: launchers against the plain PyTorch that backend="reference" runs, in float32 or float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsft_kernels.kl_shaped_gae.reference import kl_shaped_gae_reference
from rlsft_kernels.pair_loss import torch_path as pair_path
from rlsft_kernels.pairwise_reward_loss import torch_path as pairwise_path
from rlsft_kernels.policy_value_loss import torch_path as policy_path
from tests.gpu_evidence.registry import Inputs, Kernel, Results

# the only signed 64-bit comparison asks whether a block reaches beyond the end
WHOLE_BLOCKS = {
    "greater becomes greater or equal": "the last whole block is then read with a mask, which changes no value"
}
TOKENS = ("logprobs", "old_logprobs", "advantages", "values", "old_values", "returns", "entropy", "ref_logprobs")
EVERYTHING = policy_path.LossTerms(0.1, 0.3, 1.2, 0.25, 0.5, 0.02, 0.3, "k3")
POLICY_ALONE = policy_path.LossTerms(0.2, 0.2, None, None, 0.0, 0.0, 0.0, "k3")


def _wide(*tensors: Tensor | None) -> list[Any]:
    """float64 stays, everything else becomes float32."""
    return [x if x is None or x.dtype in (torch.bool, torch.float64) else x.float() for x in tensors]


def _per_element(sums: Tensor) -> Results:
    """Sums in one vector would hold the small ones to the error of the largest."""
    return {"count": sums[0], "means": sums[1:] / sums[0].clamp(min=1)}


# --- policy_value_loss -----------------------------------------------------------------------------------------------


def _policy_inputs(count: int, dtype: torch.dtype, terms: policy_path.LossTerms, names: tuple[str, ...]) -> Inputs:
    tokens = {name: torch.randn(count).to(dtype) for name in names}
    tokens["old_logprobs"] = (tokens["logprobs"].float() + 0.4 * torch.randn(count)).to(dtype)
    tokens["advantages"] = tokens["advantages"] + 1
    return {**tokens, "mask": torch.rand(count) > 0.3, "terms": terms}


def _policy_results(total: Tensor, sums: Tensor, *gradients: Tensor) -> Results:
    names = ("grad_logprobs", "grad_values", "grad_entropy")
    return {"loss": total / sums[0].clamp(min=1), **_per_element(sums), **dict(zip(names, gradients, strict=True))}


def _policy(mask: Tensor, terms: policy_path.LossTerms, **tokens: Tensor) -> Results:
    from rlsft_kernels.policy_value_loss.triton_kernel import policy_value_loss_fwd

    return _policy_results(*policy_value_loss_fwd({name: tokens.get(name) for name in TOKENS}, mask, terms, None))


def _policy_reference(mask: Tensor, terms: policy_path.LossTerms, **tokens: Tensor) -> Results:
    dtype = torch.float64 if tokens["logprobs"].dtype == torch.float64 else torch.float32
    given = {name: tokens.get(name) for name in TOKENS}
    return _policy_results(*policy_path.policy_value_loss_fwd(given, mask, terms, None, dtype))


# --- kl_shaped_gae ---------------------------------------------------------------------------------------------------


def _gae_inputs(num_rows: int, width: int, dtype: torch.dtype, kl_estimator: str = "k1") -> Inputs:
    tokens = {
        n: (torch.randn(num_rows, width) + at).to(dtype) for n, at in (("logprobs", 0), ("ref", -1), ("values", 2))
    }
    mask = torch.rand(num_rows, width) > 0.3
    return {
        **tokens, "scores": torch.randn(num_rows).to(dtype), "bootstrap": torch.randn(num_rows).to(dtype), "mask": mask,
        "kl_coef": torch.tensor(0.2), "kl_estimator": kl_estimator,
    }  # fmt: skip


def _gae_results(advantages: Tensor, returns: Tensor, moments: Tensor, stats: Tensor) -> Results:
    return {
        "advantages": advantages, "returns": returns, "moments": moments, "count": stats[0], "sequences": stats[1],
        "means": stats[2:],
    }  # fmt: skip


def _gae(
    scores: Tensor, logprobs: Tensor, ref: Tensor, values: Tensor, mask: Tensor, bootstrap: Tensor, **settings: Any
) -> Results:
    from rlsft_kernels.kl_shaped_gae.triton_kernel import kl_shaped_gae_fwd

    settings |= {"gamma": 0.97, "lam": 0.9, "whiten": False, "bootstrap_values": bootstrap}
    return _gae_results(*kl_shaped_gae_fwd(scores, logprobs, ref, values, mask, **settings))


def _gae_reference(
    scores: Tensor, logprobs: Tensor, ref: Tensor, values: Tensor, mask: Tensor, bootstrap: Tensor, **settings: Any
) -> Results:
    tensors = _wide(scores, logprobs, ref, values, mask)
    settings |= {"gamma": 0.97, "lam": 0.9, "whiten": False, "bootstrap_values": _wide(bootstrap)[0]}
    return _gae_results(*kl_shaped_gae_reference(*tensors, **settings))


# --- pairs -----------------------------------------------------------------------------------------------------------


def _pairwise_inputs(count: int, dtype: torch.dtype) -> Inputs:
    chosen, rejected, margin = ((2 * torch.randn(count) + at).to(dtype) for at in (3, 1, 0))
    return {"chosen": chosen, "rejected": rejected, "margin": margin}


def _pairwise_results(total: Tensor, sums: Tensor, grad_chosen: Tensor, grad_rejected: Tensor) -> Results:
    gradients = {"grad_chosen": grad_chosen, "grad_rejected": grad_rejected}
    return {"loss": total / sums[0].clamp(min=1), **_per_element(sums), **gradients}


def _pairwise(chosen: Tensor, rejected: Tensor, margin: Tensor) -> Results:
    from rlsft_kernels.pairwise_reward_loss.triton_kernel import pairwise_reward_loss_fwd

    return _pairwise_results(*pairwise_reward_loss_fwd(chosen, rejected, margin, 0.01))


def _pairwise_reference(chosen: Tensor, rejected: Tensor, margin: Tensor) -> Results:
    dtype = torch.float64 if chosen.dtype == torch.float64 else torch.float32
    return _pairwise_results(*pairwise_path.pairwise_reward_loss_fwd(chosen, rejected, margin, 0.01, dtype))


def _pair_inputs(count: int, dtype: torch.dtype, kind: str) -> Inputs:
    real, generated = ((4 * torch.randn(count) + at).to(dtype) for at in (2, -1))
    return {
        "real": real, "generated": generated, "mask": torch.rand(count) > 0.3,
        "terms": pair_path.PairTerms(kind, 0.5, 0.25, 0.1 if kind == "logistic" else 0.0),
    }  # fmt: skip


def _pair_results(loss: Tensor, stats: Tensor, grad_real: Tensor, grad_generated: Tensor) -> Results:
    gradients = {"grad_real": grad_real, "grad_generated": grad_generated}
    return {"loss": loss, "count": stats[0], "means": stats[1:], **gradients}


def _pair(real: Tensor, generated: Tensor, mask: Tensor, terms: pair_path.PairTerms) -> Results:
    from rlsft_kernels.pair_loss.triton_kernel import pair_loss_fwd

    return _pair_results(*pair_loss_fwd(real, generated, mask, None, terms))


def _pair_reference(real: Tensor, generated: Tensor, mask: Tensor, terms: pair_path.PairTerms) -> Results:
    dtype = torch.float64 if real.dtype == torch.float64 else torch.float32
    return _pair_results(*pair_path.pair_loss_fwd(real, generated, mask, None, terms, dtype))


KERNELS = (
    Kernel(
        "policy_value_loss", _policy, _policy_reference,
        harmless=WHOLE_BLOCKS,
        cases={
            "tail": lambda: _policy_inputs(1100, torch.float32, EVERYTHING, TOKENS),
            "bf16": lambda: _policy_inputs(2048, torch.bfloat16, EVERYTHING, TOKENS),
            "policy alone": lambda: _policy_inputs(1025, torch.float32, POLICY_ALONE, TOKENS[:3]),
            "empty": lambda: _policy_inputs(0, torch.float32, EVERYTHING, TOKENS),
        },
        budget={
            "everything fp32": lambda: _policy_inputs(65536, torch.float32, EVERYTHING, TOKENS),
            "everything bf16": lambda: _policy_inputs(65536, torch.bfloat16, EVERYTHING, TOKENS),
            "policy alone": lambda: _policy_inputs(65536, torch.float32, POLICY_ALONE, TOKENS[:3]),
        },
    ),
    Kernel(
        "kl_shaped_gae", _gae, _gae_reference,
        cases={
            "short rows": lambda: _gae_inputs(5, 45, torch.float32),
            "cut rows": lambda: _gae_inputs(2, 2100, torch.float32, "k3"),
            "many rows": lambda: _gae_inputs(130, 33, torch.bfloat16),
            "empty": lambda: _gae_inputs(3, 0, torch.float32),
        },
        budget={
            "many rows": lambda: _gae_inputs(512, 1024, torch.float32),
            "cut rows": lambda: _gae_inputs(4, 8192, torch.float32),
        },
    ),
    Kernel(
        "pairwise_reward_loss", _pairwise, _pairwise_reference,
        harmless=WHOLE_BLOCKS,
        cases={
            "tail": lambda: _pairwise_inputs(1100, torch.float32),
            "bf16": lambda: _pairwise_inputs(1025, torch.bfloat16),
            "empty": lambda: _pairwise_inputs(0, torch.float32),
        },
        budget={"fp32": lambda: _pairwise_inputs(65536, torch.float32)},
    ),
    Kernel(
        "pair_loss", _pair, _pair_reference,
        harmless=WHOLE_BLOCKS,
        cases={
            **{kind: lambda kind=kind: _pair_inputs(1025, torch.float32, kind)
               for kind in ("logistic", "linear", "hinge", "bernoulli", "kliep")},
            "bf16": lambda: _pair_inputs(1100, torch.bfloat16, "logistic"),
            "empty": lambda: _pair_inputs(0, torch.float32, "logistic"),
        },
        budget={kind: lambda kind=kind: _pair_inputs(65536, torch.float32, kind) for kind in ("logistic", "bernoulli")},
    ),
)  # fmt: skip
