"""TRL's SFTTrainer on rlsft's head: the one line is `patch()`.  python trl_patched_sft.py MODEL OUTPUT"""

import sys

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

import rlsft.integrations.trl as bridge

model, output = sys.argv[1:]
bridge.patch()  # SFT, DPO, KTO, GRPO and RLOO; bridge.unpatch() puts TRL's own head back

rows = [{"prompt": f"What is {i} + 1?", "completion": f" It is {i + 1}."} for i in range(32)]
trainer = SFTTrainer(
    model,
    SFTConfig(output, max_steps=4, logging_steps=1, bf16=torch.cuda.is_available(), report_to="none"),
    train_dataset=Dataset.from_list(rows),
)
trainer.train()
trainer.save_model(output)
