"""PPO's statistics under TRL's names, as sums and weights that add up over micro-batches and ranks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlsft.trainers.ppo.rollout import Rollouts
from rlsft.trainers.ppo.shaping import token_kl
from rlsft.trainers.running import RunningStats

logger = logging.getLogger(__name__)

# statistic of `policy_value_loss` -> our name; all are means over the action tokens of a micro-batch
UPDATE_NAMES = {
    "approxkl_k2": "policy/approxkl_avg",
    "clipfrac": "policy/clipfrac_avg",
    "entropy": "policy/entropy_avg",
    "loss/policy": "loss/policy_avg",
    "loss/value": "loss/value_avg",
    "vf_clipfrac": "val/clipfrac_avg",
    "ratio_mean": "val/ratio",
    "ratio_var": "val/ratio_var",
}


def add_update_metrics(stats: RunningStats, loss_stats: Mapping[str, Tensor]) -> None:
    """What one micro-batch says about the update, weighted by its action tokens."""
    count = loss_stats["count"].double()
    for name, ours in UPDATE_NAMES.items():
        if name in loss_stats:
            stats.add(ours, loss_stats[name].double() * count, count)


def add_rollout_metrics(stats: RunningStats, rollouts: Rollouts, kl_coef: float, samples_per_prompt: int) -> None:
    """What the answers of one iteration say about policy, reward and health; means over answers.

    `objective/kl` is k1 summed over an answer; `objective/kl_k3` the same with k3, which cannot be negative.
    """
    batch = rollouts.batch
    old_logprobs, scores, raw_scores = batch.need("old_logprobs", "scores", "raw_scores")
    kl = token_kl(batch, "k1").sum(dim=1)
    non_score = -kl_coef * kl
    per_answer = {
        "objective/kl": kl,
        "objective/kl_k3": token_kl(batch, "k3").sum(dim=1),
        "objective/entropy": -torch.where(batch.completion_mask, old_logprobs, 0.0).sum(dim=1),
        "objective/non_score_reward": non_score,
        "objective/rlhf_reward": non_score + scores,
        "objective/scores": raw_scores,
        "reward": raw_scores,
        "completions/mean_length": batch.lengths.double(),
        "completions/clipped_ratio": (~batch.ended).double(),
    }
    for name, values in per_answer.items():
        stats.add(name, values.double().sum(), len(batch))
    for name, theirs in rollouts.by_reward.items():
        _add_reward(stats, name, theirs, kl.device)
    ended = batch.ended.double()
    stats.add("completions/mean_terminated_length", (batch.lengths * ended).sum(), ended.sum())
    stats.add_range("completions/min_length", "completions/max_length", batch.lengths)
    one = torch.ones((), device=kl.device)
    stats.add("val/num_eos_tokens", ended.sum(), one)
    stats.add("objective/kl_coef", one.double() * kl_coef, one)
    _add_groups(stats, raw_scores, samples_per_prompt)
    _add_fit(stats, batch.values, batch.returns, batch.completion_mask)
    _add_sampler_gap(stats, rollouts)
    for name, value in health(batch.token_lists()).items():
        stats.add(name, one.double() * value * len(batch), len(batch))


def _add_reward(stats: RunningStats, name: str, scores: Any, device: torch.device) -> None:
    known = torch.tensor(scores[~np.isnan(scores)], device=device)
    stats.add(f"rewards/{name}/mean", known.sum(), len(known))
    stats.add(f"rewards/{name}/std", known.std(correction=0) * len(known) if len(known) else known.sum(), len(known))


def _add_groups(stats: RunningStats, scores: Tensor, samples_per_prompt: int) -> None:
    """Spread of the scores: over all answers, or within prompts where there are several."""
    groups = scores.double().view(-1, samples_per_prompt) if samples_per_prompt > 1 else scores.double()[None]
    deviation = groups.std(dim=1, correction=0)
    stats.add("reward_std", deviation.sum(), len(deviation))
    stats.add("frac_reward_zero_std", (deviation < 1e-8).double().sum(), len(deviation))


def _add_fit(stats: RunningStats, values: Tensor | None, returns: Tensor | None, mask: Tensor) -> None:
    """Explained variance of the returns: 1 = perfect, 0 = as good as their mean, negative = worse."""
    if values is None or returns is None:
        return
    target, error = returns[mask].double(), (returns - values)[mask].double()
    variance = target.var(correction=0)
    explained = torch.where(variance > 1e-12, 1 - error.var(correction=0) / variance.clamp(min=1e-12), 0.0)
    stats.add("objective/explained_variance", explained * mask.sum(), mask.sum())


def _add_sampler_gap(stats: RunningStats, rollouts: Rollouts) -> None:
    batch = rollouts.batch
    if batch.sampler_logprobs is not None and batch.old_logprobs is not None:
        gap = torch.where(batch.completion_mask, (batch.old_logprobs - batch.sampler_logprobs).abs(), 0.0)
        stats.add("sampling/sampling_logp_difference/mean", gap.sum(), batch.completion_mask.sum())


def health(token_lists: Sequence[list[int]]) -> dict[str, float]:
    """Signs of collapse on token ids, whatever the language.

    `health/distinct_2` is the share of different bigrams among all bigrams of the answers; `health/repetition` the
    mean share of an answer's 4-grams that it has said before.
    """
    bigrams = [pair for tokens in token_lists for pair in _ngrams(tokens, 2)]
    repeated = [
        1 - len(set(grams)) / len(grams) if (grams := list(_ngrams(tokens, 4))) else 0.0 for tokens in token_lists
    ]
    return {
        "health/distinct_2": len(set(bigrams)) / len(bigrams) if bigrams else 1.0,
        "health/repetition": float(np.mean(repeated)),
    }


def _ngrams(tokens: list[int], n: int) -> Iterable[tuple[int, ...]]:
    return zip(*(tokens[k:] for k in range(n)), strict=False)


class KLWatch:
    """Says once what a strongly negative KL means: an estimate of something that cannot be negative."""

    THRESHOLD = -1.0  # nats an answer, mean k1

    def __init__(self) -> None:
        self._said = False

    def check(self, mean_kl: float) -> None:
        """Warn at the first iteration whose mean KL is below the threshold."""
        if mean_kl >= self.THRESHOLD or self._said:
            return
        self._said = True
        logger.warning(
            "objective/kl is %.2f nats an answer; a KL is not negative, so answers were drawn from another "
            "distribution than the one that is scored. Causes: top_p < 1 or top_k > 0 in the rollouts, an engine with "
            "old weights or another temperature, dropout, or a reference with other padding. Look at "
            "sampling/sampling_logp_difference/mean and objective/kl_k3.",
            mean_kl,
        )
