"""What ppo_chain means, from the definitions of its four steps. Tests treat this file as the truth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsft_kernels.kl_shaped_gae.reference import kl_shaped_gae_reference
from rlsft_kernels.linear_logprob.reference import linear_logprob_reference
from rlsft_kernels.policy_value_loss.reference import policy_value_loss_reference


def ppo_chain_reference(
    hidden: Tensor,  # [B, T, H]
    ref_hidden: Tensor | None,  # [B, T, H]
    weight: Tensor,  # [V, H]
    targets: Tensor,  # [B, T] int64
    scores: Tensor,  # [B] or [B, T]
    values: Tensor,  # [B, T]
    mask: Tensor,  # [B, T] bool
    *,
    old_logprobs: Tensor | None = None,  # [B, T]
    old_values: Tensor | None = None,  # [B, T]
    kl_coef: float = 0.05,
    kl_estimator: str = "k1",
    gamma: float = 1.0,
    lam: float = 0.95,
    whiten: bool = True,
    temperature: float | Tensor = 1.0,
    **loss_settings: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`(loss, policy statistics)`, differentiable by autograd."""
    marked = torch.where(mask, targets, -100).reshape(-1)
    spread = temperature.reshape(-1) if isinstance(temperature, Tensor) else temperature

    def of(states: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
        rows_NH = torch.where(mask[..., None], states, 0).reshape(-1, states.shape[-1])
        out = linear_logprob_reference(rows_NH, head, marked, temperature=spread)
        assert out.logprob is not None
        assert out.entropy is not None
        return out.logprob.view(mask.shape), out.entropy.view(mask.shape)

    logprobs, entropy = of(hidden, weight)
    ref_logprobs = None if ref_hidden is None else of(ref_hidden.detach(), weight.detach())[0]
    drawn = logprobs.detach() if old_logprobs is None else old_logprobs.to(logprobs.dtype)
    valued = values.detach() if old_values is None else old_values
    advantages, returns, _, _ = kl_shaped_gae_reference(
        scores, drawn, ref_logprobs, valued.to(logprobs.dtype), mask, kl_coef=kl_coef, kl_estimator=kl_estimator,
        gamma=gamma, lam=lam, whiten=whiten,
    )  # fmt: skip
    return policy_value_loss_reference(
        logprobs, drawn, advantages, values.to(logprobs.dtype), valued.to(logprobs.dtype), returns, mask,
        entropy=entropy, **loss_settings,
    )  # fmt: skip
