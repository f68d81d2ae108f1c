"""What each rank of tests/trainers/test_ppo_two_ranks.py runs: `python -m torch.distributed.run … FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from tests.support.models import tiny_model
from tests.support.ppo import PROMPTS, ppo_trainer

# Not the clock, and not what is a mean of per-rank ratios (distinct_2, explained variance).
KEYS = (
    "loss", "grad_norm", "objective/kl", "objective/scores", "objective/rlhf_reward", "objective/kl_coef", "reward",
    "policy/entropy_avg", "loss/value_avg", "val/ratio", "completions/mean_length", "completions/min_length",
    "completions/max_length", "completions/mean_terminated_length", "num_tokens", "episode",
    "eval_objective/scores", "eval_objective/kl", "eval_completions/mean_length",
)  # fmt: skip


def train(folder: Path, micro_batch: int) -> list[dict[str, float]]:
    """Two iterations of whitened PPO with uneven lengths and five held-out prompts, uneven over two ranks."""
    trainer = ppo_trainer(
        folder,
        tiny_model("llama", initializer_range=0.3),
        eval_dataset=PROMPTS,
        per_device_train_batch_size=micro_batch,
        num_mini_batches=1,
        total_episodes=32,
        samples_per_prompt=2,
        whiten_scores=True,
        whiten_rewards=True,
        kl_ctrl="adaptive",
        kl_target=0.01,
        optim="sgd",
        learning_rate=0.02,
        save_strategy="steps",
        save_steps=1,
        log_completions=True,
    )
    trainer.maker.engine.stop_token_ids = list(range(0, 400, 3))
    trainer.train()
    trainer.evaluate()
    return [{key: row[key] for key in KEYS if key in row} for row in trainer.state.log_history]


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    rows = train(folder / "two", 4)
    (folder / f"rank_{os.environ['RANK']}.json").write_text(json.dumps(rows))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
