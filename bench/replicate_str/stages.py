"""The stages of STR on a small model in memory, through the trainers and the ranking of `rlsft`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.replicate_str.task import Rows, Task


@dataclass(frozen=True)
class Ranker:
    """How samples become pairs: the paper's ranker, or parts of it changed."""

    teleport: str | None = None  # the paper has none
    cluster: str | None = "str"  # the paper's ISODATA; None = every answer stays
    noise: bool = False


PAPER = Ranker()
PAPER_NOISE = Ranker(noise=True)
NO_ISODATA = Ranker(cluster=None, noise=True)
OURS = Ranker(teleport="demonstration", cluster="ball_hall", noise=True)


@dataclass(frozen=True)
class Learned:
    """A reward model, and the pairs of prompts that it never saw."""

    model: Any
    train_pairs: int
    held_out_pairs: Rows
    accuracy: float  # on those pairs
    ranked_share: float  # share of the prompts that gave a pair


def trainer_settings(task: Task, name: str, steps: int, learning_rate: float) -> dict[str, Any]:
    """What every trainer takes."""
    return {
        "output_dir": str(task.folder / name), "per_device_train_batch_size": task.budget.batch, "max_steps": steps,
        "learning_rate": learning_rate, "lr_scheduler_type": "cosine", "warmup_steps": max(1, steps // 20),
        "logging_steps": 1000, "save_strategy": "no", "use_cpu": True, "seed": task.seed,
        "max_length": task.max_length, "truncate_prompt": True, "show_progress": False, "disable_dropout": True,
    }  # fmt: skip


def fine_tune(task: Task, model: Any, name: str, *, steps: int, learning_rate: float, **changes: Any) -> Any:
    """Cross-entropy on the demonstrations; what is trained of `model` is the caller's choice."""
    from rlsft import SFTConfig, SFTTrainer

    args = SFTConfig(**trainer_settings(task, name, steps, learning_rate) | changes)
    trainer = SFTTrainer(model, args, task.train, processing_class=task.tokenizer)
    trainer.train()
    return trainer.model


def draw_samples(task: Task, policy: Any) -> Rows:
    """m answers to each of the first ranked prompts; equal prompts count once."""
    from rlsft.evaluation import sample_answers
    from rlsft.rollouts import SamplingParams, TransformersEngine

    rows = list({row["prompt"]: row for row in task.train}.values())[: task.budget.rank_prompts]
    sampling = SamplingParams(temperature=0.8, top_p=0.95, max_new_tokens=task.completion_tokens, seed=task.seed)
    drawn = sample_answers(
        TransformersEngine(policy, task.tokenizer, batch_size=512), task.tokenizer, [row["prompt"] for row in rows],
        model="sft", sampling=sampling, num_samples=task.budget.samples,
        max_prompt_length=task.max_length - task.completion_tokens, truncate_prompt=True,
    )  # fmt: skip
    texts = [generation.completion for generation in drawn.generations]
    m = task.budget.samples
    return [row | {"responses": texts[i * m : (i + 1) * m]} for i, row in enumerate(rows)]


def rank(task: Task, samples: Rows, ranker: Ranker) -> Any:
    """`RankedResponses` of the samples; embeddings are kept for the next ranker of the seed."""
    from rlsft import rank_responses

    return rank_responses(
        [row["prompt"] for row in samples],
        [row["responses"] for row in samples],
        demonstrations=[row["completion"] for row in samples],
        encoder=task.encoder,
        teleport=ranker.teleport,  # type: ignore[arg-type]
        cluster=ranker.cluster,
        noise_rate=task.budget.noise_rate if ranker.noise else 0.0,
        max_pairs_per_prompt=task.budget.pairs_per_prompt,
        seed=task.seed,
        cache_dir=task.folder / "embeddings",
    )


def learn_reward(task: Task, sft_folder: Path, ranked: Any, name: str, *, steps: int | None = None) -> Learned:
    """A reward model from the SFT model on the pairs of nine tenths of the prompts, measured on the rest."""
    from rlsft import RewardConfig, RewardModel, RewardTrainer
    from rlsft.rewards import split_by_prompt

    train, held_out = split_by_prompt(ranked.pairs, 0.15, seed=task.seed)
    args = RewardConfig(
        **trainer_settings(task, name, task.budget.reward_steps if steps is None else steps, task.budget.reward_rate)
    )
    trainer = RewardTrainer(
        RewardModel.from_pretrained(sft_folder, attn_implementation="eager"), args, train,
        eval_dataset=held_out, processing_class=task.tokenizer,
    )  # fmt: skip
    trainer.train()
    measured = trainer.evaluate()
    summary = ranked.summary()
    ranked_share = 1 - summary["skipped"]["prompts"] / summary["prompts"]
    return Learned(trainer.reward_model, len(train), held_out, measured["eval_accuracy"], ranked_share)


def improve(
    task: Task, sft_folder: Path, reward: Any, name: str, *, kl_coef: float | None = None, **changes: Any
) -> Any:
    """PPO on `reward` (a reward model, or functions), from the SFT policy and held to it."""
    from rlsft import PPOConfig, PPOTrainer
    from rlsft.models import load_causal_lm

    budget = task.budget
    settings = trainer_settings(task, name, -1, budget.policy_rate) | {
        "rollout_batch_size": budget.episodes_per_iteration,
        "per_device_train_batch_size": budget.episodes_per_iteration // 2,
        "total_episodes": budget.episodes,
        "generation_batch_size": 256,
        "num_ppo_epochs": 2,
        "num_mini_batches": 2,
        "max_completion_length": task.completion_tokens,
        "kl_coef": budget.kl_coef if kl_coef is None else kl_coef,
        "missing_eos_penalty": budget.missing_eos_penalty or None,
        "whiten_scores": True,
        "num_sample_generations": 0,
        "lr_scheduler_type": "linear",
    }
    policy = load_causal_lm(sft_folder, dtype="float32", attn_implementation="eager")
    prompts = list({row["prompt"]: row for row in task.train}.values())
    args = PPOConfig(**settings | changes)
    trainer = PPOTrainer(policy, args, reward, train_dataset=prompts, processing_class=task.tokenizer)
    trainer.train()
    return trainer.policy


def rank_reward(task: Task, ranker: Ranker) -> Any:
    """A reward without a reward model: the TextRank score of an answer among all that were drawn for its prompt.

    The scores of a prompt are scaled to mean 0 and deviation 1, so that prompts of different spread count alike.
    """
    from rlsft import rank_responses

    def textrank_score(prompts: Any, completions: Any, completion: Any, **_: Any) -> list[float]:
        places: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            places.setdefault(prompt, []).append(place)
        scores = np.full(len(prompts), np.nan)
        known = list(places)
        ranked = rank_responses(
            known,
            [[completions[place] or " " for place in places[prompt]] for prompt in known],
            demonstrations=[completion[places[prompt][0]] for prompt in known],
            encoder=task.encoder, teleport=ranker.teleport, cluster=None, noise_rate=0.0,  # type: ignore[arg-type]
        )  # fmt: skip
        for row in ranked.rows:
            scores[places[known[row["prompt_index"]]][row["response_index"]]] = row["score"]
        for prompt in known:
            group = scores[places[prompt]]
            filled = np.where(np.isnan(group), np.nanmin(group) if np.isfinite(group).any() else 0.0, group)
            scores[places[prompt]] = (filled - filled.mean()) / (filled.std() + 1e-8)
        return scores.tolist()

    return [textrank_score]
