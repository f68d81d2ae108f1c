"""Advantage-induced policy alignment: regression of the log-ratio on the advantage (arXiv 2306.02231)."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0  # of the statistics; the loss itself is not cut


def apa_loss(
    logprobs: Tensor,  # [B, T]
    ref_logprobs: Tensor,  # [B, T]
    advantages: Tensor,  # [B, T]
    mask: Tensor,  # [B, T] bool
    *,
    beta: float,
    old_logprobs: Tensor | None = None,  # [B, T]
    values: Tensor | None = None,  # [B, T]
    returns: Tensor | None = None,  # [B, T]
    vf_coef: float = 1.0,
    entropy: Tensor | None = None,  # [B, T]
    entropy_coef: float = 0.0,
    normalizer: float | Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`mean_t (log pi - log pi_ref - A_t / beta)^2 + vf_coef * mean_t (V - R)^2 / 2 - entropy_coef * mean_t H`.

    Its minimiser is `pi = pi_ref * exp(A / beta)`, the closed form of the KL-regularised problem (arXiv 2405.17888)
    wherever `A` is normalised so that this sums to one; there is no importance ratio, so answers may be reused.

    Args:
        logprobs: of the action tokens under the policy, with gradient.
        ref_logprobs: the same under the reference.
        advantages: a constant; without the KL, which the regression accounts for.
        mask: the action tokens.
        beta: weight of the KL, in units of the advantage; `1 / beta` is the lambda of the APA paper.
        old_logprobs: under the policy that drew the answers, for the statistics only.
        values, returns: of the value model and its targets; None = no value loss.
        vf_coef: weight of the value loss.
        entropy: of the policy at each action token.
        entropy_coef: weight of its mean.
        normalizer: what sums over tokens are divided by; None = the tokens of the mask.

    Returns:
        The 0-d loss and 0-d statistics under the names of `rlsft_kernels.policy_value_loss`.

    Raises:
        ValueError: beta is not positive.
    """
    if not beta > 0:
        raise ValueError(f"beta must be > 0 (the target is A / beta), got {beta!r}")
    count = mask.sum()
    total = count.clamp(min=1) if normalizer is None else normalizer
    per_token = count.clamp(min=1)
    residuals_N = (logprobs - ref_logprobs - advantages / beta)[mask]
    policy = residuals_N.square().sum()
    loss = policy / total
    stats = {"count": count, "loss/policy": policy / per_token}
    if values is not None and returns is not None:
        value = 0.5 * (values - returns)[mask].square().sum()
        loss = loss + vf_coef * value / total
        stats["loss/value"] = value / per_token
    if entropy is not None:
        entropy_sum = entropy[mask].sum()
        stats["entropy"] = entropy_sum / per_token
        if entropy_coef:
            loss = loss - entropy_coef * entropy_sum / total
    stats |= _ratio_stats(logprobs.detach(), logprobs.detach() if old_logprobs is None else old_logprobs, mask)
    return loss, {name: value.detach() for name, value in stats.items()}


def _ratio_stats(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """How far the policy is from the one that drew the answers."""
    log_ratio_N = (logprobs - old_logprobs)[mask].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio_N = log_ratio_N.exp()
    at_least_one = mask.sum().clamp(min=1)
    mean = ratio_N.sum() / at_least_one
    return {
        "ratio_mean": mean,
        "ratio_var": (ratio_N - mean).square().sum() / at_least_one,
        "approxkl_k2": log_ratio_N.square().sum() / (2 * at_least_one),
        "clipfrac": torch.zeros_like(mean),
    }
