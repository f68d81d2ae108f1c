"""A reward learned by rlsft in TRL's GRPO.  python trl_learned_reward.py MODEL REWARD OUTPUT

REWARD is a reward model, exported token rewards, or a finished `rlsft rft` or `rlsft str` run.
"""

import sys

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

import rlsft.integrations.trl as bridge
from rlsft.integrations.rewards import RewardFunction

model, reward, output = sys.argv[1:]
args = GRPOConfig(
    output, max_steps=2, logging_steps=1, num_generations=4, per_device_train_batch_size=4, max_completion_length=16,
    bf16=torch.cuda.is_available(), report_to="none",
)  # fmt: skip
with bridge.patched():
    GRPOTrainer(
        model,
        reward_funcs=[RewardFunction.from_pretrained(reward)],
        args=args,
        train_dataset=Dataset.from_list([{"prompt": f"Tell me about day {i}."} for i in range(8)]),
    ).train()
