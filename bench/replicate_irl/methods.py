"""The methods that are compared, each from the same fine-tuned policy with a budget of optimizer steps.

`sft_steps` takes as many optimizer steps as the others, `sft_tokens` trains on as many tokens: a pair holds two
answers, so it takes twice the steps. `spin` is one IRFT round with all prompts, which is DPO on the pairs of
demonstration and own answer with the fixed reference; `irft_T` draws anew for each of T shards of the data.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Budget:
    """What a method may spend after the common fine-tuning, and the settings found on seeds that are not reported."""

    demonstrations: int = 500
    batch: int = 32
    warm_up_steps: int = 300  # of the common fine-tuning
    steps: int = 300
    sft_learning_rate: float = 1e-3
    pair_learning_rate: float = 3e-4
    beta: float = 0.1
    sft_coef: float = 0.0


@dataclass(frozen=True)
class Task:
    """What a method starts from."""

    policy: Any  # the fine-tuned model; a method trains a copy
    tokenizer: Any
    rows: Rows
    seed: int
    budget: Budget
    folder: Path
    max_length: int
    max_completion_length: int
    callbacks: tuple[TrainerCallback, ...] = ()

    def copy(self) -> Any:
        return copy.deepcopy(self.policy)


Method = Callable[[Task], Any]  # -> the trained policy


def common(task: Task, name: str, steps: int, learning_rate: float) -> dict[str, Any]:
    """Settings that every trainer takes."""
    return {
        "output_dir": str(task.folder / name), "per_device_train_batch_size": task.budget.batch, "max_steps": steps,
        "learning_rate": learning_rate, "lr_scheduler_type": "cosine", "warmup_steps": 10, "logging_steps": 50,
        "save_strategy": "no", "use_cpu": True, "seed": task.seed, "max_length": task.max_length,
        "show_progress": False,
    }  # fmt: skip


def sft(task: Task, *, steps: int, name: str, learning_rate: float | None = None) -> Any:
    """More fine-tuning on the demonstrations."""
    from rlsft import SFTConfig, SFTTrainer

    policy = task.copy()
    args = SFTConfig(**common(task, name, steps, learning_rate or task.budget.sft_learning_rate))
    SFTTrainer(policy, args, task.rows, processing_class=task.tokenizer).train()
    return policy


def irft(task: Task, *, name: str, **changes: Any) -> Any:
    """IRFT with `steps` optimizer steps over all its rounds."""
    from rlsft import IRFTConfig, IRFTTrainer

    policy = task.copy()
    settings = common(task, name, task.budget.steps, task.budget.pair_learning_rate)
    settings |= {
        "beta": task.budget.beta,
        "sft_coef": task.budget.sft_coef,
        "max_completion_length": task.max_completion_length,
    } | changes
    IRFTTrainer(policy, IRFTConfig(**settings), task.rows, processing_class=task.tokenizer).train()
    return policy


def twice(task: Task) -> Any:
    """Twice the steps: as many tokens as a pair method trains on."""
    return sft(task, steps=2 * task.budget.steps, name="sft_tokens")


def irft_rounds(rounds: int, **changes: Any) -> Method:
    """T rounds over T shards of the data; K follows from the budget."""

    def run(task: Task) -> Any:
        per_round = task.budget.steps // rounds
        return irft(task, name=f"irft_{rounds}", refresh="shards", rounds=rounds, steps_per_round=per_round, **changes)

    return run


METHODS: dict[str, Method] = {
    "sft_steps": lambda task: sft(task, steps=task.budget.steps, name="sft_steps"),
    "sft_tokens": twice,
    "spin": lambda task: irft(task, name="spin", refresh="full", rounds=1, steps_per_round=task.budget.steps),
    "irft_1": irft_rounds(1),
    "irft_2": irft_rounds(2),
    "irft_5": irft_rounds(5),
}
