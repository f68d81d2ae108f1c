"""What each rank of tests/trainers/test_two_ranks.py runs: `python -m torch.distributed.run … this_file FOLDER`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rlsft.trainers.callbacks import RunInterrupted
from tests.support.models import tiny_model
from tests.support.rewarding import planted_pairs, reward_trainer, tiny_classifier
from tests.support.training import demonstrations, sft_trainer

KEYS = (
    "loss",
    "grad_norm",
    "entropy",
    "mean_token_accuracy",
    "num_tokens",
    "accuracy",
    "margin",
    "min_reward",
    "mean_reward",
    "max_reward",
    "eval_loss",
    "eval_accuracy",
    "eval_ece",
    "eval_mean_token_accuracy",
)


def train_both(folder: Path, batch_size: int) -> dict[str, list[dict[str, float]]]:
    """Three steps of SFT and of reward training, each with an evaluation on five rows (uneven over two ranks)."""
    # steps so small that the rounding of one does not grow in the next: ranks add up in another order
    settings = {"per_device_train_batch_size": batch_size, "per_device_eval_batch_size": 2, "learning_rate": 1e-4}
    sft = sft_trainer(
        tiny_model("qwen2"), folder / "sft", demonstrations(24), eval_dataset=demonstrations(5), **settings
    )
    reward = reward_trainer(
        tiny_classifier("llama"),
        folder / "reward",
        planted_pairs(24),
        eval_dataset=planted_pairs(5, seed=3),
        **settings,
    )
    rows = {}
    for trainer in (sft, reward):
        trainer.train()
        trainer.evaluate()
        rows[trainer.stage] = [{k: row[k] for k in KEYS if k in row} for row in trainer.state.log_history]
    return rows


class SignalOnRankOne(TrainerCallback):
    """A SIGTERM that reaches one rank only, as a scheduler may send it."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.process_index == 1 and state.global_step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def interrupted(folder: Path) -> int:
    """The step after which both ranks stopped."""
    trainer = sft_trainer(tiny_model("llama"), folder, per_device_train_batch_size=4, callbacks=[SignalOnRankOne()])
    try:
        trainer.train()
    except RunInterrupted as stop:
        return stop.step
    return -1


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    rank = os.environ["RANK"]
    result: dict[str, Any] = train_both(folder / "two", 4)
    result["stopped_after"] = interrupted(folder / "stopped")
    (folder / f"rank_{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
