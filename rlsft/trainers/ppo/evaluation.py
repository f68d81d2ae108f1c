"""How good the policy is on held-out prompts: reward, distance to the reference, length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rlsft.rollouts import RolloutBatch
from rlsft.trainers.ppo.metrics import health
from rlsft.trainers.ppo.prompts import PromptRows
from rlsft.trainers.ppo.rollout import ExperienceMaker, Rollouts
from rlsft.trainers.ppo.shaping import token_kl


def draw_held_out(maker: ExperienceMaker, rows: PromptRows, *, seed: int, rank: int, num_ranks: int) -> Rollouts | None:
    """One answer to each of this rank's share of `rows`; None for no share.

    A row's answer does not depend on the number of ranks.
    """
    share = -(-len(rows) // num_ranks)
    first = min(rank * share, len(rows))
    indices = range(first, min(first + share, len(rows)))
    if not indices:
        return None
    return maker.draw(rows.take(indices), maker.sampling(seed, first), 1)


def evaluate_policy(
    maker: ExperienceMaker,
    rows: PromptRows,
    *,
    seed: int,
    batch_size: int,
    rank: int = 0,
    num_ranks: int = 1,
    reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    compute_metrics: Callable[[Rollouts], dict[str, float]] | None = None,
) -> dict[str, float]:
    """Means over `rows`: `objective/scores`, `reward` (the same), `objective/kl`, lengths, health.

    Scores are as the reward gave them: no penalty, no whitening. `compute_metrics` sees this rank's share.
    """
    rollouts = draw_held_out(maker, rows, seed=seed, rank=rank, num_ranks=num_ranks)
    sums = dict.fromkeys(_SUMMED, 0.0)
    own: dict[str, float] = {}
    if rollouts is not None:
        chunks = list(torch.arange(len(rollouts.batch)).split(batch_size))
        rollouts = replace(rollouts, batch=maker.score_policy(rollouts.batch, chunks))
        sums = _sums(rollouts.batch)
        own = dict(compute_metrics(rollouts)) if compute_metrics is not None else {}
    device = next(maker.actor_critic.parameters()).device
    total = reduce(torch.tensor(list(sums.values()), dtype=torch.float64, device=device))
    return own | _means(dict(zip(_SUMMED, total.tolist(), strict=True)))


_SUMMED = ("count", "score", "score_square", "kl", "kl_k3", "length", "cut_off", "distinct_2", "repetition")


def _sums(batch: RolloutBatch) -> dict[str, float]:
    (raw,) = batch.need("raw_scores")
    scores, count, signs = raw.double(), len(batch), health(batch.token_lists())
    values: tuple[Any, ...] = (
        count, scores.sum(), scores.square().sum(), token_kl(batch, "k1").double().sum(),
        token_kl(batch, "k3").double().sum(), batch.lengths.sum(), (~batch.ended).sum(),
        signs["health/distinct_2"] * count, signs["health/repetition"] * count,
    )  # fmt: skip
    return {name: float(value) for name, value in zip(_SUMMED, values, strict=True)}


def _means(total: dict[str, float]) -> dict[str, float]:
    mean = {name: value / total["count"] for name, value in total.items()}
    return {
        "reward": mean["score"],
        "objective/scores": mean["score"],
        "reward_std": max(mean["score_square"] - mean["score"] ** 2, 0.0) ** 0.5,
        "objective/kl": mean["kl"],
        "objective/kl_k3": mean["kl_k3"],
        "completions/mean_length": mean["length"],
        "completions/clipped_ratio": mean["cut_off"],
        "health/distinct_2": mean["distinct_2"],
        "health/repetition": mean["repetition"],
    }
