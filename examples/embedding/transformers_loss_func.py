"""One argument of the Trainer, where logits must stay.  python transformers_loss_func.py MODEL OUTPUT"""

import sys

from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from rlsft.integrations.transformers import compute_loss_func

path, output = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(path)
trainer = Trainer(
    AutoModelForCausalLM.from_pretrained(path),
    TrainingArguments(output, max_steps=4, gradient_accumulation_steps=2, logging_steps=1, report_to="none"),
    DataCollatorForLanguageModeling(tokenizer, mlm=False),
    train_dataset=[tokenizer(f"What is {i} + 1? It is {i + 1}.") for i in range(32)],
    compute_loss_func=compute_loss_func,
)
trainer.train()
