"""No reward model at all: RLOO on how answers rank among each other.  python trl_rank_reward.py MODEL OUTPUT

The column `demonstration`, which TRL hands on, is the answer that the ranking leans to (arXiv 2402.18284).
"""

import sys

import torch
from datasets import Dataset
from trl import RLOOConfig, RLOOTrainer

from rlsft.integrations.rewards import RankReward

model, output = sys.argv[1:]
args = RLOOConfig(
    output, max_steps=2, logging_steps=1, num_generations=4, per_device_train_batch_size=4, max_completion_length=16,
    bf16=torch.cuda.is_available(), report_to="none",
)  # fmt: skip
RLOOTrainer(
    model,
    reward_funcs=[RankReward(encoder=None, num_generations=4)],  # encoder="minilm": by meaning instead of by words
    args=args,
    train_dataset=Dataset.from_list(
        [{"prompt": f"How was day {i}?", "demonstration": "It rained, so we stayed at home."} for i in range(8)]
    ),
).train()
