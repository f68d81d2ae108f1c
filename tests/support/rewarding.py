"""Tiny reward models and pairs with a planted order, shared by the tests of rewards and trainers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, set_seed

from rlsft.trainers.reward import RewardConfig, RewardTrainer
from tests.support.models import tiny_config, tiny_tokenizer

# The planted order: an answer is as good as its food.
FOODS = ("pizza", "noodles", "rice", "football", "rain")


def tiny_classifier(family: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A sequence-classification model with one label and seeded random weights, without dropout, in eval mode."""
    set_seed(seed)
    if family == "bert":
        config = BertConfig(
            vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=256, pad_token_id=2, num_labels=1, **changes,
        )  # fmt: skip
    else:
        off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0) if family == "gpt2" else {}
        config = tiny_config(family, **{"num_labels": 1, **off, **changes})
    return AutoModelForSequenceClassification.from_config(config, dtype=dtype).eval()


def planted_pairs(count: int, *, seed: int = 0, sharpness: float = 2.0) -> list[dict[str, str]]:
    """Pairs drawn from Bradley-Terry: `P(a beats b) = sigmoid(sharpness * (place_b - place_a))` in `FOODS`."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        better, worse = sorted(draw.sample(range(len(FOODS)), 2))
        if draw.random() > 1 / (1 + 2.718281828 ** (-sharpness * (worse - better))):
            better, worse = worse, better
        answers = [f"I like {FOODS[place]}" + " a lot" * draw.randrange(3) + "." for place in (better, worse)]
        rows.append({"prompt": f"What do you like {number}?", "chosen": answers[0], "rejected": answers[1]})
    return rows


def reward_settings(folder: Path | str, **changes: Any) -> RewardConfig:
    """Eight pairs a step, constant learning rate, every step logged, nothing saved."""
    values: dict[str, Any] = {
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "max_steps": 3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "max_length": 128,
        **changes,
    }
    return RewardConfig(str(folder), **values)


def reward_trainer(model: Any, folder: Path | str, rows: Any = None, **changes: Any) -> RewardTrainer:
    """A trainer of `model` on planted pairs; trainer arguments and settings by keyword."""
    names = ("eval_dataset", "peft_config", "callbacks", "compute_metrics", "processing_class")
    own = {name: changes.pop(name) for name in names if name in changes}
    own.setdefault("processing_class", tiny_tokenizer())
    rows = planted_pairs(8) if rows is None else rows
    return RewardTrainer(model, reward_settings(folder, **changes), rows, **own)
