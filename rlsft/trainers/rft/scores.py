"""Rewards of a round's demonstrations and answers, and the reward that a policy step sees: centred by prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlsft.data import completion_text
from rlsft.rewards import RewardModel
from rlsft.trainers.ppo.scoring import Answers, ModelReward

BASELINE = "reward_baseline"  # the column of a policy step's prompts that its reward subtracts


def prompt_key(prompt: Any) -> str:
    """A prompt, string or chat list, as a key."""
    return json.dumps(prompt, ensure_ascii=False, sort_keys=True)


def scorer_of(reward: RewardModel, tokenizer: Any, args: Any) -> Callable[[Sequence[Any], Sequence[str]], NDArray[Any]]:
    """`(prompts, completions) -> rewards [n]` with the settings of the run; answers without words are scored too."""
    model = ModelReward(reward, tokenizer, args.per_device_eval_batch_size, args.max_length or 1024, args.system_prompt)

    def score(prompts: Sequence[Any], completions: Sequence[str]) -> NDArray[np.float64]:
        return model(Answers(list(prompts), list(completions), [[] for _ in prompts], {}))

    return score


def score_samples(score: Callable[..., NDArray[Any]], samples: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`prompt`, `demonstration_reward` and `response_rewards` of every row of samples.jsonl."""
    prompts = [row["prompt"] for row in samples for _ in range(1 + len(row["responses"]))]
    texts = [text for row in samples for text in (row["demonstration"], *row["responses"])]
    values = iter(score(prompts, texts).tolist())
    return [
        {
            "prompt": row["prompt"],
            "demonstration_reward": next(values),
            "response_rewards": [next(values) for _ in row["responses"]],
        }
        for row in samples
    ]


def policy_prompts(scores: Sequence[Mapping[str, Any]], *, center: bool) -> list[dict[str, Any]]:
    """Prompts of the policy step with what is subtracted from their rewards: the mean over the round's samples, or 0.

    A pair loss sees differences within a prompt only, so that `r + c(x)` fits as well as `r` for every `c`; without a
    baseline the policy step would take the accident of `c(x)` for signal.
    """
    return [
        {"prompt": row["prompt"], BASELINE: float(np.mean(row["response_rewards"])) if center else 0.0}
        for row in scores
    ]


def centered_reward(score: Callable[..., NDArray[Any]]) -> Callable[..., list[float]]:
    """A reward function of `PPOTrainer` that subtracts the baseline of the prompt's row."""

    def reward_model(prompts: list[Any], completions: list[Any], **columns: Any) -> list[float]:
        texts = [completion_text(completion) for completion in completions]
        return (score(prompts, texts) - np.asarray(columns[BASELINE], dtype=np.float64)).tolist()

    return reward_model
