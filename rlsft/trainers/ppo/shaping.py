"""From the scores of an iteration to its advantages, returns and weights: arithmetic over all ranks, no models."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rlsft.objectives import penalize_missing_eos, whiten_scores
from rlsft.rollouts import RolloutBatch
from rlsft.trainers.ppo.config import PPOConfig
from rlsft_kernels import kl_shaped_gae


class RewardShaper:
    """What the loss learns from, made of raw scores, log-probabilities and values.

    Args:
        args: settings.
        gather: concatenates a tensor over all ranks along its first dimension.
        rank: which part of what `gather` gives is ours.
    """

    def __init__(self, args: PPOConfig, gather: Callable[[Tensor], Tensor], rank: int) -> None:
        self.args = args
        self.gather = gather
        self.rank = rank

    def shape(self, batch: RolloutBatch, kl_coef: float) -> RolloutBatch:
        """Penalise, clip and whiten the scores; then advantages, returns and importance weights."""
        batch = batch.with_(scores=self._shaped_scores(batch))
        batch = self._with_rloo(batch, kl_coef) if self.args.advantage == "rloo" else self._with_gae(batch, kl_coef)
        weights = importance_weights(batch, self.args.importance_correction, self.args.importance_cap)
        if weights is None:
            return batch
        (advantages,) = batch.need("advantages")
        # a weight >= 0 in the advantage multiplies the clipped policy loss of its token
        return batch.with_(weights=weights, advantages=advantages * weights)

    def _shaped_scores(self, batch: RolloutBatch) -> Tensor:
        (scores,) = batch.need("raw_scores")
        if self.args.missing_eos_penalty is not None:
            scores = penalize_missing_eos(scores, batch.ended, self.args.missing_eos_penalty)
        if self.args.score_clip is not None:
            scores = scores.clamp(-self.args.score_clip, self.args.score_clip)
        if self.args.whiten_scores:
            group = self.args.samples_per_prompt if self.args.whiten_by_prompt else None
            everyone = whiten_scores(self.gather(scores).double(), group_size=group)
            scores = everyone[self.rank * len(scores) : (self.rank + 1) * len(scores)].float()
        return scores

    def _with_gae(self, batch: RolloutBatch, kl_coef: float) -> RolloutBatch:
        scores, old_logprobs, values = batch.need("scores", "old_logprobs", "values")
        if batch.token_rewards is not None:
            scores = placed_scores(batch)
        scale = self._reward_scale(batch, kl_coef) if self.args.whiten_rewards else 1.0
        out = kl_shaped_gae(
            scores * scale,
            old_logprobs,
            batch.ref_logprobs,
            values,
            batch.completion_mask,
            kl_coef=kl_coef * float(scale),
            kl_estimator=self.args.kl_estimator,
            gamma=self.args.gamma,
            lam=self.args.lam,
            whiten=False,
        )
        advantages = self._whitened(out.advantages, batch.completion_mask)
        return batch.with_(advantages=advantages, returns=out.returns)

    def _with_rloo(self, batch: RolloutBatch, kl_coef: float) -> RolloutBatch:
        """`A_i = r_i - mean of the prompt's other r_j`, r the score minus the summed KL (arXiv 2402.14740)."""
        (scores,) = batch.need("scores")
        rewards = scores - kl_coef * token_kl(batch, self.args.kl_estimator).sum(dim=1)
        groups = rewards.view(-1, self.args.samples_per_prompt)
        size = groups.shape[1]
        advantages = ((groups - groups.mean(dim=1, keepdim=True)) * size / (size - 1)).view(-1, 1)
        mask = batch.completion_mask
        per_token = torch.where(mask, advantages.expand(mask.shape), 0.0)
        return batch.with_(advantages=self._whitened(per_token, mask), values=None, returns=None)

    def _whitened(self, advantages: Tensor, mask: Tensor) -> Tensor:
        """Mean 0 and deviation 1 over the action tokens of all ranks, as `kl_shaped_gae` whitens those of one."""
        if not self.args.whiten_advantages:
            return advantages
        mean, variance, count = self._moments(advantages, mask)
        if count < 2:
            return advantages
        return torch.where(mask, (advantages - mean) * (variance + 1e-8).rsqrt(), 0.0).float()

    def _reward_scale(self, batch: RolloutBatch, kl_coef: float) -> float:
        """What brings the token rewards to deviation 1 without moving their mean (TRL's `whiten_rewards`)."""
        rewards = placed_scores(batch) - kl_coef * token_kl(batch, self.args.kl_estimator)
        _, variance, _ = self._moments(rewards, batch.completion_mask)
        return float((variance + 1e-8).rsqrt())

    def _moments(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, int]:
        """Mean, unbiased variance and count over the unmasked of all ranks, in float64."""
        sums = torch.stack([torch.where(mask, x, 0).double().sum(), mask.sum().double()])
        total, count = self.gather(sums[None]).sum(dim=0)
        mean = total / count.clamp(min=1)
        squares = torch.where(mask, x.double() - mean, 0).square().sum()
        variance = self.gather(squares[None]).sum() / (count - 1).clamp(min=1)
        return mean, variance, int(count)


def placed_scores(batch: RolloutBatch) -> Tensor:
    """`[S, Tc]`: each token's own reward, and on the last action token what the score holds beyond their sum.

    Without token rewards that is the whole score; with them it is a penalty or another reward's share. Rows sum to
    the scores either way.
    """
    (scores,) = batch.need("scores")
    placed = torch.zeros(batch.completion_ids.shape, dtype=torch.float64, device=scores.device)
    if batch.token_rewards is not None:
        placed = torch.where(batch.completion_mask, batch.token_rewards.double(), 0.0)
    rows = torch.arange(len(batch), device=scores.device)
    placed[rows, batch.lengths - 1] += scores.double() - placed.sum(dim=1)
    return placed.float()


def token_kl(batch: RolloutBatch, estimator: str) -> Tensor:
    """Estimate `[S, Tc]` of KL(policy || reference) at the drawn tokens, 0 outside the mask (Schulman 2020)."""
    old_logprobs, ref_logprobs = batch.need("old_logprobs", "ref_logprobs")
    log_ratio = (old_logprobs - ref_logprobs).clamp(-20, 20)
    if estimator == "k2":
        log_ratio = log_ratio.square() / 2
    elif estimator == "k3":
        log_ratio = (torch.expm1(-log_ratio) + log_ratio).clamp(max=10)
    return torch.where(batch.completion_mask, log_ratio, 0.0)


def importance_weights(batch: RolloutBatch, correction: str, cap: float) -> Tensor | None:
    """`w = exp(ours - sampler's)` a token for draws of an engine that computes otherwise; None without correction.

    truncate: `min(w, cap)` (truncated importance sampling); mask: w where `w <= cap`, else 0.
    """
    if correction == "none" or batch.sampler_logprobs is None:
        return None
    (old_logprobs,) = batch.need("old_logprobs")
    weights = (old_logprobs - batch.sampler_logprobs).clamp(-20, 20).exp()
    weights = weights.clamp(max=cap) if correction == "truncate" else torch.where(weights <= cap, weights, 0.0)
    return torch.where(batch.completion_mask, weights, 0.0)
