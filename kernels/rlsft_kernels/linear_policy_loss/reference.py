"""What linear_policy_loss means, in plain PyTorch over the whole batch. Tests treat this file as the truth."""

from __future__ import annotations

import torch
from torch import Tensor

from rlsft_kernels.linear_logprob.reference import linear_logprob_reference
from rlsft_kernels.policy_value_loss.reference import MAX_LOG_RATIO, kl_estimate


def linear_policy_loss_reference(
    hidden: Tensor,  # [N, H]
    weight: Tensor,  # [V, H]
    targets: Tensor,  # [N] int64
    advantages: Tensor,  # [N]
    old_logprobs: Tensor,  # [N]
    *,
    mask: Tensor | None = None,  # [N] bool
    ref_logprobs: Tensor | None = None,  # [N]
    token_weights: Tensor | None = None,  # [N]
    normalizer: float | Tensor | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
    entropy_coef: float = 0.0,
    loss_kind: str = "ppo",
    bias: Tensor | None = None,  # [V]
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`(loss, stats)` for aggregation "token-mean", differentiable by autograd."""
    kept = torch.ones_like(targets, dtype=torch.bool) if mask is None else mask != 0
    hidden, targets = hidden[kept], targets[kept]
    spread = temperature[kept] if isinstance(temperature, Tensor) else temperature
    out = linear_logprob_reference(
        hidden, weight, targets, bias=bias, temperature=spread, softcap=softcap, logit_scale=logit_scale,
        ignore_index=-1,
    )  # fmt: skip
    assert out.logprob is not None
    assert out.entropy is not None
    logp, wide = out.logprob, out.logprob.dtype
    adv, old = advantages[kept].to(wide), old_logprobs[kept].to(wide)
    log_ratio = (logp - old).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    clipped_ratio = ratio.clamp(1 - clip_low, 1 + clip_high)
    unclipped, clipped = -adv * ratio, -adv * clipped_ratio
    is_clipped = clipped > unclipped
    is_bounded = torch.zeros_like(is_clipped)
    if loss_kind == "ppo":  # arXiv 1707.06347, eq. 7; dual clip: arXiv 1912.09729, eq. 4
        policy = torch.where(is_clipped, clipped, unclipped)
        if dual_clip is not None:
            is_bounded = (adv < 0) & (policy > -adv * dual_clip)
            policy = torch.where(is_bounded, -adv * dual_clip, policy)
    elif loss_kind == "cispo":  # arXiv 2506.13585, eq. 4: the clipped ratio is a constant weight
        policy = -clipped_ratio.detach() * adv * logp
        is_clipped = ratio != clipped_ratio
    else:  # REINFORCE
        policy = -adv * logp
        is_clipped = torch.zeros_like(is_clipped)
    per_token = policy - entropy_coef * out.entropy
    at_least_one = torch.tensor(float(max(1, len(logp))), dtype=wide)
    statistics = {
        "loss/policy": policy,
        "entropy": out.entropy,
        "approxkl_k1": -log_ratio,
        "approxkl_k2": log_ratio.square() / 2,
        "approxkl_k3": torch.expm1(log_ratio) - log_ratio,
        "clipfrac": is_clipped.to(wide),
        "clipfrac_lower": is_bounded.to(wide),
        "ratio_mean": ratio,
    }
    if ref_logprobs is not None:
        statistics["kl_ref"] = kl_estimate(logp, ref_logprobs[kept].to(wide), kl_estimator)
        per_token = per_token + kl_coef * statistics["kl_ref"]
    stats = {name: x.detach().sum() / at_least_one for name, x in statistics.items()}
    stats["count"] = torch.tensor(float(len(logp)), dtype=wide)
    stats["ratio_max"] = ratio.detach().max() if len(ratio) else torch.zeros((), dtype=wide)
    stats["ratio_var"] = ratio.detach().var(correction=0) if len(ratio) else torch.zeros((), dtype=wide)
    weights = torch.ones_like(logp) if token_weights is None else token_weights[kept].to(wide)
    return (weights * per_token).sum() / (at_least_one if normalizer is None else normalizer), stats
