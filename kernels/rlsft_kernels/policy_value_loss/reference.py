"""What policy_value_loss means, in plain PyTorch on the unmasked tokens. Tests treat this file as the truth."""

from __future__ import annotations

import torch
from torch import Tensor

KL_ESTIMATORS = ("k1", "k2", "k3")
MAX_LOG_RATIO = 20.0  # exp(20) is finite in every dtype; beyond it a token has no gradient
MAX_K3 = 10.0  # as verl's low_var_kl


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, kind: str) -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens drawn by the policy (Schulman 2020: k1, k2,
    k3).

    With `d = clamp(logprobs - ref_logprobs, -20, 20)`: k1 is `d`, k2 `d**2 / 2`, k3 `exp(-d) - 1 + d` up to
    10.
    """
    difference = (logprobs - ref_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if kind == "k1":
        return difference
    if kind == "k2":
        return difference.square() / 2
    return (torch.expm1(-difference) + difference).clamp(max=MAX_K3)


def policy_value_loss_reference(
    logprobs: Tensor,  # [B, T]
    old_logprobs: Tensor,  # [B, T]
    advantages: Tensor,  # [B, T]
    values: Tensor | None,  # [B, T]
    old_values: Tensor | None,  # [B, T]
    returns: Tensor | None,  # [B, T]
    mask: Tensor,  # [B, T] bool
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    value_clip: float | None = 0.2,
    vf_coef: float = 0.1,
    entropy: Tensor | None = None,  # [B, T]
    entropy_coef: float = 0.0,
    ref_logprobs: Tensor | None = None,  # [B, T]
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
    moments: Tensor | None = None,  # [2]: mean, reciprocal standard deviation
    normalizer: float | Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`(loss, stats)`, differentiable by autograd."""
    logp, old, adv = logprobs[mask], old_logprobs[mask], advantages[mask]
    if moments is not None:
        adv = (adv - moments[0]) * moments[1]
    count = torch.tensor(float(len(logp)), dtype=logp.dtype)
    at_least_one = count.clamp(min=1)

    log_ratio = (logp - old).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    unclipped, clipped = -adv * ratio, -adv * ratio.clamp(1 - clip_low, 1 + clip_high)
    policy = torch.where(clipped > unclipped, clipped, unclipped)
    bounded = torch.zeros_like(adv, dtype=torch.bool)
    if dual_clip is not None:
        bounded = (adv < 0) & (policy > -adv * dual_clip)
        policy = torch.where(bounded, -adv * dual_clip, policy)
    per_token = policy

    stats = {
        "count": count,
        "loss/policy": policy.sum() / at_least_one,
        "approxkl_k1": -log_ratio.sum() / at_least_one,
        "approxkl_k2": log_ratio.square().sum() / 2 / at_least_one,
        "approxkl_k3": (torch.expm1(log_ratio) - log_ratio).sum() / at_least_one,
        "clipfrac": (clipped > unclipped).sum() / at_least_one,
        "clipfrac_lower": bounded.sum() / at_least_one,
        "ratio_mean": ratio.sum() / at_least_one,
        "ratio_var": ratio.var(correction=0) if len(ratio) else torch.zeros_like(count),
        "ratio_max": ratio.max() if len(ratio) else torch.zeros_like(count),
    }
    if values is not None and old_values is not None and returns is not None:
        value, old_value, target = values[mask], old_values[mask], returns[mask]
        capped = value if value_clip is None else old_value + (value - old_value).clamp(-value_clip, value_clip)
        error, capped_error = (value - target).square(), (capped - target).square()
        value_loss = torch.where(capped_error > error, capped_error, error) / 2
        per_token = per_token + vf_coef * value_loss
        stats["loss/value"] = value_loss.sum() / at_least_one
        stats["vf_clipfrac"] = (capped_error > error).sum() / at_least_one
    if entropy is not None:
        per_token = per_token - entropy_coef * entropy[mask]
        stats["entropy"] = entropy[mask].sum() / at_least_one
    if ref_logprobs is not None:
        kl = kl_estimate(logp, ref_logprobs[mask], kl_estimator)
        per_token = per_token + kl_coef * kl
        stats["kl_ref"] = kl.sum() / at_least_one
    loss = per_token.sum() / (at_least_one if normalizer is None else normalizer)
    return loss, {name: value.detach() for name, value in stats.items()}
