"""What a method starts from, what it may spend, and how its policy is measured."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
START = ("demonstrations", "held_out", "batch", "warm_up_steps", "sft_learning_rate")  # settings of the common start


@dataclass(frozen=True)
class Budget:
    """Of one training after the common fine-tuning; the settings were chosen on seeds that are not reported."""

    demonstrations: int = 1500
    held_out: int = 256
    batch: int = 32
    warm_up_steps: int = 300  # of the common fine-tuning
    steps: int = 120
    sft_learning_rate: float = 1e-3
    pair_learning_rate: float = 1e-4
    beta: float = 1.0
    sft_coef: float = 0.0
    kept_sft_coef: float = 1.0  # of the variant that keeps an SFT term
    kept_learning_rate: float = 1e-3
    rft_rounds: int = 2
    rft_samples: int = 1  # answers a prompt
    rft_beta: float = 0.5  # kl_coef
    rft_learning_rate: float = 1e-3  # of weighted_sft, which is fine-tuning
    rft_ppo_learning_rate: float = 1e-4
    reward_learning_rate: float = 1e-3
    reward_epochs: float = 2.0

    def of(self, method: str) -> dict[str, Any]:
        """The settings that decide what the method gives: another value of these is another row."""
        prefixes: tuple[str, ...] = ()
        if method.startswith(("spin", "irft", "dpo")):
            prefixes = ("pair_", "beta", "sft_coef")
        if method == "irft_2_sft":
            prefixes = ("kept_", "beta")
        if method.startswith("rft"):
            prefixes = ("rft_", "reward_")
        names = (*START, *(("steps",) if method != "start" else ()))
        return {name: value for name, value in asdict(self).items() if name in names or name.startswith(prefixes)}


@dataclass(frozen=True)
class Measured:
    """Of one policy: numbers for the row, and its answers where they are to be judged later."""

    numbers: dict[str, float]
    answers: Rows | None = None  # prompt, answer


@dataclass(frozen=True)
class Task:
    """One task at one seed."""

    policy: Any  # the fine-tuned model; a method trains a copy
    tokenizer: Any
    rows: Rows  # prompt, completion
    held_out: Rows  # of other prompts: prompt, completion, chosen, rejected and what `measure` wants
    seed: int
    budget: Budget
    folder: Path
    max_length: int
    completion_tokens: int
    measure: Callable[[Task, Any], Measured]
    adapter: Mapping[str, Any] = field(default_factory=dict)  # settings of every trainer; none = all weights train
    callbacks: tuple[Any, ...] = ()

    def copy(self) -> Any:
        return copy.deepcopy(self.policy)


Method = Callable[[Task], Any]  # -> the trained policy
Build = Callable[[int, Budget, Path], Task]  # -> the task with the model before any fine-tuning


@dataclass(frozen=True)
class Condition:
    """One setting of an experiment: what its rows say of it, and how its tasks are made."""

    facts: dict[str, Any]
    budget: Budget
    build: Build
    methods: tuple[str, ...] = ()  # that it runs; none = all
