"""Small trainings that tests of several rooms share: rows of uneven length, quiet settings, comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlsft.trainers.sft import SFTConfig, SFTTrainer
from tests.support.models import tiny_tokenizer

WORDS = ("park", "rain", "film", "pizza", "rice", "weekend", "children", "weather")


def demonstrations(count: int = 8) -> list[dict[str, str]]:
    """Prompts and completions whose lengths all differ, so that a mean of batch means is not the mean."""
    return [
        {
            "prompt": f"What about the {WORDS[i % len(WORDS)]} {i}?" + " And then?" * (i % 3),
            "completion": f"I like the {WORDS[(3 * i) % len(WORDS)]}" + ", really" * (i % 5) + f" {i}.",
        }
        for i in range(count)
    ]


def sft_settings(folder: Path | str, **changes: Any) -> SFTConfig:
    """Eight rows a step, no scheduler surprises, every step logged, nothing saved."""
    values: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "learning_rate": 5e-3,
        "lr_scheduler_type": "constant",
        "max_steps": 3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "max_length": 128,
        **changes,
    }
    return SFTConfig(str(folder), **values)


def sft_trainer(model: nn.Module, folder: Path | str, rows: Any = None, **changes: Any) -> SFTTrainer:
    """A trainer of `model` on `demonstrations()`; trainer arguments and settings by keyword."""
    own = {
        name: changes.pop(name)
        for name in ("eval_dataset", "peft_config", "callbacks", "compute_metrics")
        if name in changes
    }
    rows = demonstrations() if rows is None else rows
    return SFTTrainer(model, sft_settings(folder, **changes), rows, processing_class=tiny_tokenizer(), **own)


def logged(trainer: Any, name: str) -> list[float]:
    """The values of one key over the logged rows."""
    return [row[name] for row in trainer.state.log_history if name in row]


def equal_parameters(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models have bit-identical parameters under the same names."""
    left, right = dict(first.named_parameters()), dict(second.named_parameters())
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all gradients by name."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
