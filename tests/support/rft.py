"""A seven-letter world for RFT: demonstrations end in `f`, so that the true reward of an answer is known."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

from rlsft.trainers.rft.config import RFTConfig
from rlsft.trainers.rft.trainer import RFTTrainer
from tests.support.ppo import letter_model, letter_tokenizer

QUESTIONS = [" ".join(letters) for letters in itertools.product("abcde", repeat=3)]


def letter_folder(folder: Path) -> str:
    """The base model of the letter world, with its tokenizer."""
    letter_model().save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)
    return str(folder)


def letter_demonstrations(count: int, *, start: int = 0) -> list[dict[str, str]]:
    """Distinct questions whose demonstrations are two letters and then `f`."""
    questions = QUESTIONS[:]
    random.Random(0).shuffle(questions)
    rows = []
    for number, question in enumerate(questions[start : start + count], start=start):
        draw = random.Random(number)
        rows.append({"prompt": question, "completion": " " + " ".join([*draw.choices("abcde", k=2), "f"])})
    return rows


def true_reward(text: str) -> float:
    """1 for an answer that ends in `f`."""
    return float(text.split()[-1:] == ["f"])


def rft_settings(folder: Path | str, **changes: Any) -> RFTConfig:
    """One quiet round with LoRA from the base model itself; sizes for seconds."""
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "use_peft": True,
        "lora_r": 8,
        "lora_dropout": 0.0,
        "skip_sft": True,
        "rounds": 1,
        "max_length": 24,
        "max_completion_length": 6,
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 32,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "show_progress": False,
        "use_cpu": True,
        "sample_prompts": 48,
        "samples_per_prompt": 2,
        "reward_eval_fraction": 0.25,
        "reward_learning_rate": 1e-2,
        "reward_num_train_epochs": 3,
        "policy_learning_rate": 1e-2,
        "policy_episodes": 256,
        "policy_batch_size": 64,
        "policy_epochs": 2,
        "kl_coef": 0.2,
        "eval_prompts": 8,
        "seed": 3,
        **changes,
    }
    return RFTConfig(**values)


def rft_trainer(base: str, folder: Path | str, *, rows: Any = None, **changes: Any) -> RFTTrainer:
    """The chain on the letter world; trainer arguments and settings by keyword."""
    own = {name: changes.pop(name) for name in ("preference_dataset", "callbacks") if name in changes}
    return RFTTrainer(
        base,
        rft_settings(folder, **changes),
        train_dataset=letter_demonstrations(96) if rows is None else rows,
        eval_dataset=letter_demonstrations(16, start=105),
        **own,
    )


def taught_folder(folder: Path, scratch: Path) -> str:
    """A policy that has begun to end its answers in `f`: about a third of them do."""
    from rlsft.trainers.sft import SFTConfig, SFTTrainer

    base = letter_folder(folder)
    config = SFTConfig(
        str(scratch), max_steps=8, learning_rate=3e-3, lr_scheduler_type="constant", per_device_train_batch_size=16,
        use_cpu=True, save_strategy="no", max_length=24, show_progress=False,
    )  # fmt: skip
    rows = letter_demonstrations(25, start=100)
    trainer = SFTTrainer(letter_model(), config, rows, processing_class=letter_tokenizer())
    trainer.train()
    trainer.model.save_pretrained(folder)
    return base


def mean_true_reward(policy: Any, *, samples: int = 16, seed: int = 9) -> float:
    """Share of `samples` answers to each of 16 unseen questions that end, and end in `f`."""
    from rlsft.rollouts import SamplingParams, TransformersEngine

    tokenizer = letter_tokenizer()
    ids = [tokenizer(row["prompt"])["input_ids"] for row in letter_demonstrations(16, start=105)]
    engine = TransformersEngine(policy, tokenizer, batch_size=256)
    drawn = engine.generate(ids, SamplingParams(max_new_tokens=6, seed=seed), samples)
    rewards = [
        true_reward(tokenizer.decode(answer.token_ids, skip_special_tokens=True)) * (answer.finish_reason == "stop")
        for group in drawn
        for answer in group
    ]
    return sum(rewards) / len(rewards)
