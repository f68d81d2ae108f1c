"""TRL's five trainers at SmolLM2-135M's shape with TRL's defaults; each is `(sizes, dtype, folder) -> Timeline`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset

from bench.training.inputs import Sizes, model_of, pairs, texts, tokenizer_of
from bench.training.trainers import LEARNING_RATE, Clock, Timeline, timed

Job = Callable[[Sizes, torch.dtype, str], Timeline]
GENERATIONS = 2  # answers to a prompt


def settings(sizes: Sizes, folder: str, **changes: Any) -> dict[str, Any]:
    """Settings of all five; what is not named has TRL's default, gradient checkpointing among them."""
    return {
        "output_dir": folder, "per_device_train_batch_size": sizes.batch, "max_steps": sizes.steps,
        "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "use_cpu": True, "bf16": False, "seed": 0, "disable_tqdm": True,
        "dataloader_pin_memory": False, **changes,
    }  # fmt: skip


def sft(sizes: Sizes, dtype: torch.dtype, folder: str) -> Timeline:
    from trl import SFTConfig, SFTTrainer

    clock = Clock()
    trainer = SFTTrainer(
        model_of(sizes, dtype), SFTConfig(**settings(sizes, folder, max_length=sizes.length)),
        train_dataset=Dataset.from_list(texts(sizes)), processing_class=tokenizer_of(sizes), callbacks=[clock],
    )  # fmt: skip
    return timed(trainer, clock)


def dpo(sizes: Sizes, dtype: torch.dtype, folder: str) -> Timeline:
    from trl import DPOConfig, DPOTrainer

    clock = Clock()
    trainer = DPOTrainer(
        model_of(sizes, dtype), ref_model=model_of(sizes, dtype),
        args=DPOConfig(**settings(sizes, folder, max_length=sizes.length)),
        train_dataset=Dataset.from_list(pairs(sizes)), processing_class=tokenizer_of(sizes), callbacks=[clock],
    )  # fmt: skip
    return timed(trainer, clock)


def kto(sizes: Sizes, dtype: torch.dtype, folder: str) -> Timeline:
    from trl import KTOConfig, KTOTrainer

    clock = Clock()
    rows = [
        {"prompt": row["prompt"], "completion": row["chosen"], "label": i % 2 == 0}
        for i, row in enumerate(pairs(sizes))
    ]
    trainer = KTOTrainer(
        model_of(sizes, dtype), ref_model=model_of(sizes, dtype),
        args=KTOConfig(**settings(sizes, folder, max_length=sizes.length)),
        train_dataset=Dataset.from_list(rows), processing_class=tokenizer_of(sizes), callbacks=[clock],
    )  # fmt: skip
    return timed(trainer, clock)


def grpo(sizes: Sizes, dtype: torch.dtype, folder: str) -> Timeline:
    from trl import GRPOConfig, GRPOTrainer

    clock = Clock()
    trainer = GRPOTrainer(
        model_of(sizes, dtype), reward_funcs=odd_words, args=GRPOConfig(**settings(sizes, folder, **drawing(sizes))),
        train_dataset=prompts(sizes), processing_class=tokenizer_of(sizes), callbacks=[clock],
    )  # fmt: skip
    return timed(trainer, clock)


def rloo(sizes: Sizes, dtype: torch.dtype, folder: str) -> Timeline:
    from trl import RLOOConfig, RLOOTrainer

    clock = Clock()
    model_of(sizes, dtype).save_pretrained(f"{folder}/model")  # the reference is loaded by the model's name
    options = drawing(sizes) | {"model_init_kwargs": {"dtype": str(dtype).removeprefix("torch.")}}
    trainer = RLOOTrainer(
        f"{folder}/model", reward_funcs=odd_words, args=RLOOConfig(**settings(sizes, folder, **options)),
        train_dataset=prompts(sizes), processing_class=tokenizer_of(sizes), callbacks=[clock],
    )  # fmt: skip
    return timed(trainer, clock)


def drawing(sizes: Sizes) -> dict[str, Any]:
    """Answers that fill the second half of a row."""
    return {"max_completion_length": sizes.length - sizes.prompt, "num_generations": GENERATIONS}


def prompts(sizes: Sizes) -> Dataset:
    return Dataset.from_list([{"prompt": row["prompt"]} for row in pairs(sizes)])


def odd_words(completions: list[str], **_columns: Any) -> list[float]:
    """A reward that costs nothing: the share of words with an odd number."""
    return [sum(word[-1:] in set("13579") for word in text.split()) / max(1, len(text.split())) for text in completions]


JOBS: dict[str, Job] = {"sft": sft, "dpo": dpo, "kto": kto, "grpo": grpo, "rloo": rloo}
