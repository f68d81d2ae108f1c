"""Any Trainer without its logits, by `patch_model`.  python transformers_patch_model.py MODEL OUTPUT"""

import sys

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from rlsft import patch_model

path, output = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(path)
model = patch_model(AutoModelForCausalLM.from_pretrained(path))  # unpatch_model(model) undoes it

rows = [tokenizer(f"What is {i} + 1? It is {i + 1}.") for i in range(32)]
args = TrainingArguments(
    output, max_steps=4, logging_steps=1, eval_strategy="steps", eval_steps=4, report_to="none",
    bf16=torch.cuda.is_available(),
)  # fmt: skip
trainer = Trainer(
    model, args, DataCollatorForLanguageModeling(tokenizer, mlm=False), train_dataset=rows[8:], eval_dataset=rows[:8]
)
trainer.train()
trainer.save_model(output)  # the plain model: no trace of the patch
