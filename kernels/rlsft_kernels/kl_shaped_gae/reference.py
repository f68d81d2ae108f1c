"""What kl_shaped_gae means, in plain PyTorch: rewards, a reverse loop over time, whitening."""

from __future__ import annotations

import torch
from torch import Tensor

from rlsft_kernels.policy_value_loss.reference import kl_estimate

STATS = (
    "count", "sequences", "kl", "kl_sum", "non_score_reward", "scores", "rlhf_reward", "advantages_mean",
    "advantages_var", "returns_mean", "returns_var", "values_mean", "too_few_to_whiten",
)  # fmt: skip


def kl_shaped_gae_reference(
    scores: Tensor,  # [B], or [B, T] for a reward per token
    logprobs: Tensor,  # [B, T]
    ref_logprobs: Tensor | None,  # [B, T]
    values: Tensor,  # [B, T]
    mask: Tensor,  # [B, T] bool
    *,
    kl_coef: float | Tensor,
    kl_estimator: str = "k1",
    gamma: float = 1.0,
    lam: float = 0.95,
    whiten: bool = True,
    bootstrap_values: Tensor | None = None,  # [B]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(advantages [B, T], returns [B, T], moments [2], stats [len(STATS)])."""
    # masked tokens may hold NaN: replaced before any arithmetic, because 0 * NaN is NaN
    values_BT = torch.where(mask, values, 0)
    kl_BT = torch.zeros_like(values_BT)
    if ref_logprobs is not None:
        kl_BT = kl_estimate(torch.where(mask, logprobs, 0), torch.where(mask, ref_logprobs, 0), kl_estimator)
    score_BT = torch.where(mask, scores, 0) if scores.ndim == 2 else _on_last_token(scores, mask)
    rewards_BT = score_BT - kl_coef * kl_BT

    advantages_BT = gae(rewards_BT, values_BT, mask, gamma, lam, bootstrap_values)
    returns_BT = torch.where(mask, advantages_BT + values_BT, 0)
    count = mask.sum().to(values_BT.dtype)
    moments = whitening_moments(advantages_BT, mask)
    statistics = _statistics(kl_BT, -kl_coef * kl_BT, score_BT, advantages_BT, returns_BT, values_BT, mask)
    stats = torch.stack((*statistics, ((count <= 1) & whiten).to(count.dtype)))
    if whiten:
        advantages_BT = torch.where(mask, (advantages_BT - moments[0]) * moments[1], 0)
    return advantages_BT, returns_BT, moments, stats


def gae(
    rewards: Tensor,  # [B, T], 0 where masked
    values: Tensor,  # [B, T], 0 where masked
    mask: Tensor,  # [B, T] bool
    gamma: float,
    lam: float,
    bootstrap_values: Tensor | None = None,  # [B]
) -> Tensor:  # [B, T], 0 where masked
    """Generalised advantage estimation (arXiv 1506.02438, eq. 16) that passes through masked tokens.

    `delta_t = r_t + gamma * V_next - V_t`, `A_t = delta_t + gamma * lam * A_next`, where next is the next
    unmasked token; after the last one V_next is the bootstrap value (0 for a finished answer) and A_next is
    0.
    """
    no_value_B = values.new_zeros(values.shape[0])
    next_value_B = no_value_B if bootstrap_values is None else bootstrap_values.to(values.dtype)
    next_advantage_B = no_value_B
    advantages_BT = torch.zeros_like(values)
    for t in reversed(range(values.shape[1])):
        delta_B = rewards[:, t] + gamma * next_value_B - values[:, t]
        advantage_B = delta_B + gamma * lam * next_advantage_B
        next_value_B = torch.where(mask[:, t], values[:, t], next_value_B)
        next_advantage_B = torch.where(mask[:, t], advantage_B, next_advantage_B)
        advantages_BT[:, t] = torch.where(mask[:, t], advantage_B, 0)
    return advantages_BT


def whitening_moments(x: Tensor, mask: Tensor) -> Tensor:
    """[2]: mean and `rsqrt(var + 1e-8)` (unbiased) of the unmasked; (0, 1) for fewer than two."""
    mean, variance, count = masked_mean_var(x, mask)
    neutral = torch.stack((torch.zeros_like(mean), torch.ones_like(mean)))
    return torch.where(count > 1, torch.stack((mean, (variance + 1e-8).rsqrt())), neutral)


def masked_mean_var(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, unbiased variance and count of the unmasked; variance 0 for fewer than two."""
    count = mask.sum().to(x.dtype)
    mean = torch.where(mask, x, 0).sum() / count.clamp(min=1)
    variance = torch.where(mask, x - mean, 0).square().sum() / (count - 1).clamp(min=1)
    return mean, variance, count


def _on_last_token(scores_B: Tensor, mask: Tensor) -> Tensor:
    """[B, T] with each score on the last unmasked token of its row; a row without one drops its score."""
    after_BT = mask.long().flip(1).cumsum(1).flip(1)  # unmasked tokens from here on
    return torch.where(mask & (after_BT == 1), scores_B[:, None], 0)


def _statistics(
    kl_BT: Tensor,
    penalty_BT: Tensor,
    score_BT: Tensor,
    advantages_BT: Tensor,
    returns_BT: Tensor,
    values_BT: Tensor,
    mask: Tensor,
) -> list[Tensor]:
    """All of STATS but the last: means over tokens, or over sequences that have a token."""
    advantages_mean, advantages_var, count = masked_mean_var(advantages_BT, mask)
    returns_mean, returns_var, _ = masked_mean_var(returns_BT, mask)
    sequences = mask.any(dim=1).sum().to(count.dtype)
    per_sequence, per_token = sequences.clamp(min=1), count.clamp(min=1)
    return [
        count,
        sequences,
        kl_BT.sum() / per_token,
        kl_BT.sum() / per_sequence,
        penalty_BT.sum() / per_sequence,
        score_BT.sum() / per_sequence,
        (penalty_BT + score_BT).sum() / per_sequence,
        advantages_mean,
        advantages_var,
        returns_mean,
        returns_var,
        values_BT.sum() / per_token,
    ]
