"""The methods of the table, each from the common pretrained model of a seed, with one budget of fine-tuning.

STR's methods start from the fully fine-tuned policy and share its samples. `full_more` is the control that a paper
leaves out: fine-tuning goes on for as many optimizer steps as STR takes for its reward model and its policy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.replicate_str.small_adapters import add_bottlenecks, only_biases
from bench.replicate_str.stages import (
    NO_ISODATA,
    OURS,
    PAPER,
    PAPER_NOISE,
    Learned,
    Ranker,
    draw_samples,
    fine_tune,
    improve,
    learn_reward,
    rank,
    rank_reward,
)
from bench.replicate_str.task import Rows, Task


@dataclass
class Outcome:
    """A policy, and what was found out on the way to it."""

    policy: Any
    reward: Learned | None = None
    notes: dict[str, float] = field(default_factory=dict)


class Seed:
    """What the methods of one seed share: the fine-tuned policy and its samples, made when they are first needed."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @cached_property
    def full(self) -> Any:
        budget = self.task.budget
        return fine_tune(self.task, self.task.copy(), "full", steps=budget.steps, learning_rate=budget.full_rate)

    @cached_property
    def sft_folder(self) -> Path:
        folder = self.task.folder / "sft_model"
        self.full.save_pretrained(folder)
        self.task.tokenizer.save_pretrained(folder)
        return folder

    @cached_property
    def samples(self) -> Rows:
        return draw_samples(self.task, self.full)


Method = Callable[[Seed], Outcome]


def full(seed: Seed) -> Outcome:
    """All weights."""
    return Outcome(seed.full)


def full_more(seed: Seed) -> Outcome:
    """All weights, and as many more steps as STR spends."""
    import copy

    budget = seed.task.budget
    steps = budget.reward_steps + 4 * (budget.episodes // budget.episodes_per_iteration)
    rate = budget.full_rate / 3
    return Outcome(fine_tune(seed.task, copy.deepcopy(seed.full), "full_more", steps=steps, learning_rate=rate))


def lora(seed: Seed) -> Outcome:
    """Low-rank updates of every linear layer (peft), merged."""
    from rlsft.models import merge_lora

    task, budget = seed.task, seed.task.budget
    tuned = fine_tune(
        task, task.copy(), "lora", steps=budget.steps, learning_rate=budget.lora_rate, use_peft=True,
        lora_r=budget.lora_rank, lora_alpha=2 * budget.lora_rank, lora_dropout=0.0,
    )  # fmt: skip
    return Outcome(merge_lora(tuned))


def adapter(seed: Seed) -> Outcome:
    """Houlsby's bottlenecks and the layer norms."""
    task, budget = seed.task, seed.task.budget
    model = add_bottlenecks(task.copy(), budget.adapter_width, seed=task.seed)
    return Outcome(fine_tune(task, model, "adapter", steps=budget.steps, learning_rate=budget.adapter_rate))


def bitfit(seed: Seed) -> Outcome:
    """Biases alone."""
    task, budget = seed.task, seed.task.budget
    model = only_biases(task.copy())
    return Outcome(fine_tune(task, model, "bitfit", steps=budget.steps, learning_rate=budget.bitfit_rate))


def str_method(ranker: Ranker) -> Method:
    """Samples, ranks, a reward model, PPO."""

    def run(seed: Seed) -> Outcome:
        learned = reward_of(seed, ranker)
        return Outcome(improve(seed.task, seed.sft_folder, learned.model, "policy"), learned)

    return run


def reward_of(seed: Seed, ranker: Ranker, *, steps: int | None = None) -> Learned:
    """The reward model that the ranker's pairs teach."""
    ranked = rank(seed.task, seed.samples, ranker)
    return learn_reward(seed.task, seed.sft_folder, ranked, "reward", steps=steps)


def critic_free(seed: Seed) -> Outcome:
    """RLOO on the rank itself: neither a reward model nor a value network."""
    m = seed.task.budget.samples
    policy = improve(
        seed.task, seed.sft_folder, rank_reward(seed.task, OURS), "policy", advantage="rloo", samples_per_prompt=m
    )
    return Outcome(policy)


METHODS: dict[str, Method] = {
    "full": full,
    "full_more": full_more,
    "lora": lora,
    "adapter": adapter,
    "bitfit": bitfit,
    "str": str_method(PAPER),
    "str_noise": str_method(PAPER_NOISE),
    "str_no_isodata": str_method(NO_ISODATA),
    "str_ours": str_method(OURS),
    "str_rloo": critic_free,
}
