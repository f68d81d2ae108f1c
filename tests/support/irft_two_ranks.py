"""What each rank of tests/trainers/test_irft_two_ranks.py runs: `python -m torch.distributed.run … FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from tests.support.irft import irft_trainer
from tests.support.models import tiny_model
from tests.support.training import demonstrations

# Not the clock.
KEYS = (
    "loss", "grad_norm", "accuracy", "margin", "rewards/real", "rewards/generated", "logps/real", "logps/generated",
    "kl/generator", "round", "num_tokens", "completions/mean_length", "completions/clipped_ratio", "eval_loss",
    "eval_accuracy", "eval_margin",
)  # fmt: skip


def train(folder: Path, micro_batch: int, accumulation: int, **settings: object) -> list[dict[str, float]]:
    """Two rounds on seven demonstrations, so that a pass ends with a step that has fewer pairs than places."""
    trainer = irft_trainer(
        folder,
        tiny_model("llama", initializer_range=0.3),
        demonstrations(7),
        eval_dataset=demonstrations(5),
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        learning_rate=0.01,
        save_strategy="steps",
        save_steps=3,
        **settings,
    )
    trainer.train()
    trainer.evaluate()
    return [{key: row[key] for key in KEYS if key in row} for row in trainer.state.log_history]


def both(folder: Path, micro_batch: int, accumulation: int) -> dict[str, list[dict[str, float]]]:
    """A schedule that draws ahead and depends on what all ranks measured, and one that draws step by step."""
    adaptive = {"refresh": "adaptive", "adaptive_window": 1, "adaptive_accuracy": 0.6}
    return {
        "adaptive": train(folder / "adaptive", micro_batch, accumulation, **adaptive),
        "per_step": train(folder / "per_step", micro_batch, accumulation, refresh="per_step"),
    }


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    rows = both(folder / "two", 1, 2)
    (folder / f"rank_{os.environ['RANK']}.json").write_text(json.dumps(rows))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
