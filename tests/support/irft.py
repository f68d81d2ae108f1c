"""Small IRFT runs for tests: a quiet config and a trainer of a tiny model on demonstrations of uneven length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlsft.trainers.irft.config import IRFTConfig
from rlsft.trainers.irft.trainer import IRFTTrainer
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.training import demonstrations


def irft_settings(folder: Path | str, **changes: Any) -> IRFTConfig:
    """Four pairs a step, two rounds of all prompts, two passes a round, nothing saved or shown."""
    values: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "rounds": 2,
        "refresh": "full",
        "learning_rate": 2e-3,
        "lr_scheduler_type": "constant",
        "max_completion_length": 6,
        "max_length": 128,
        "save_strategy": "no",
        "use_cpu": True,
        "show_progress": False,
        **changes,
    }
    return IRFTConfig(str(folder), **values)


def irft_trainer(folder: Path | str, model: nn.Module | None = None, rows: Any = None, **changes: Any) -> IRFTTrainer:
    """A trainer of a tiny llama on six demonstrations; trainer arguments and settings by keyword."""
    names = ("eval_dataset", "peft_config", "callbacks", "compute_metrics", "engine", "processing_class")
    own: dict[str, Any] = {"processing_class": tiny_tokenizer()}
    own |= {name: changes.pop(name) for name in names if name in changes}
    model = tiny_model("llama", initializer_range=0.1) if model is None else model
    rows = demonstrations(6) if rows is None else rows
    trainer = IRFTTrainer(model, irft_settings(folder, **changes), rows, **own)
    # most draws of a random model never end; these end tokens make lengths vary
    trainer.maker.engine.stop_token_ids = list(range(0, 400, 5))  # type: ignore[attr-defined]
    return trainer


def round_starts(trainer: IRFTTrainer) -> list[dict[str, Any]]:
    """The logged row of the first step of every round."""
    rows = [row for row in trainer.state.log_history if "loss" in row]
    numbers = [row["round"] for row in rows]
    return [row for before, row in zip([None, *numbers], rows, strict=False) if row["round"] != before]


def first_batch(trainer: IRFTTrainer) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
    """The micro-batches of the step that is due, drawn and scored, and its pairs."""
    batches, items = trainer.get_batch_samples(iter(()), 0, torch.device("cpu"))
    assert items is not None
    return batches, items


def preference_rows() -> list[dict[str, str]]:
    """Prompts with a better and a worse answer."""
    return [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": f"No{'.' * (2 * i)} I do not."}
        for i, row in enumerate(demonstrations(5))
    ]
