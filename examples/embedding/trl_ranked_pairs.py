"""Answers, ranked without labels, as pairs for TRL's trainers.  python trl_ranked_pairs.py REWARD_BASE MODEL OUTPUT"""

import sys

import torch
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from rlsft import rank_responses

base, model, output = sys.argv[1:]
answers = [["At home.", "I was at home because it rained.", "Pizza!", "At home, we had rain."] for _ in range(8)]
ranked = rank_responses(
    [f"Where were you on day {i}?" for i in range(8)], answers, demonstrations=["At home, it rained all day."] * 8
)
print(ranked)
ranked.save(f"{output}/ranked")  # pairs.jsonl and pairs.parquet, as `rlsft rank FILE --output_dir` writes them
pairs = ranked.pairs_dataset()

common = {"max_steps": 4, "logging_steps": 1, "bf16": torch.cuda.is_available(), "report_to": "none"}
RewardTrainer(base, RewardConfig(f"{output}/reward", **common), train_dataset=pairs).train()
DPOTrainer(model, args=DPOConfig(f"{output}/dpo", **common), train_dataset=pairs).train()
