"""Small PPO runs for tests: a quiet config, a reward on text, and a seven-letter world that can be enumerated."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

from rlsft.trainers.ppo.config import PPOConfig
from rlsft.trainers.ppo.trainer import PPOTrainer
from tests.support.models import tiny_model, tiny_tokenizer

PROMPTS = [
    {"prompt": text, "bonus": float(number)}
    for number, text in enumerate(
        ["Hello!", "How are you", "What did you do at the weekend", "I", "My favourite food is"]
    )
]


def e_share(pairs: list[tuple[Any, str]]) -> list[float]:
    """Share of the letter e in each answer: a reward that random weights already vary in."""
    return [sum(letter == "e" for letter in answer) / max(1, len(answer)) for _, answer in pairs]


def ppo_settings(folder: Path | str, **changes: Any) -> PPOConfig:
    """16 answers an iteration, two passes of two steps, three iterations, nothing saved or shown."""
    values: dict[str, Any] = {
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "rollout_batch_size": 16,
        "num_ppo_epochs": 2,
        "num_mini_batches": 2,
        "total_episodes": 48,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "max_completion_length": 6,
        "max_length": 64,
        "kl_coef": 0.05,
        "save_strategy": "no",
        "num_sample_generations": 0,
        "use_cpu": True,
        "show_progress": False,
        **changes,
    }
    return PPOConfig(str(folder), **values)


def ppo_trainer(folder: Path | str, model: nn.Module | None = None, **changes: Any) -> PPOTrainer:
    """A trainer of a tiny llama on `e_share`; trainer arguments and settings by keyword."""
    own = {
        "reward_model": e_share,
        "train_dataset": PROMPTS,
        "processing_class": tiny_tokenizer(),
    }
    names = ("ref_model", "value_model", "eval_dataset", "compute_metrics", "callbacks", "peft_config", "engine")
    own |= {name: changes.pop(name) for name in (*own, *names) if name in changes}
    model = tiny_model("llama", initializer_range=0.1) if model is None else model
    return PPOTrainer(model=model, args=ppo_settings(folder, **changes), **own)


LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}


def rows_of(trainer: Any) -> list[dict[str, Any]]:
    """The logged rows of training steps."""
    return [row for row in trainer.state.log_history if "loss" in row]


def parameters_of(trainer: Any) -> dict[str, torch.Tensor]:
    """Copies of the parameters of policy and value model."""
    return {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}


def assert_equal_states(one: Any, other: Any) -> None:
    """Policies and value models of two trainers are bit-equal."""
    left, right = parameters_of(one), parameters_of(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


LETTERS = ("<end>", "a", "b", "c", "d", "e", "f")


@functools.cache
def letter_tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter, `<end>` (id 0) being end and padding; no chat template."""
    tokenizer = Tokenizer(models.WordLevel({letter: index for index, letter in enumerate(LETTERS)}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>", unk_token="a")


def letter_model(seed: int = 0) -> nn.Module:
    """A tiny llama over the letters."""
    return tiny_model(
        "llama", seed=seed, vocab_size=len(LETTERS), bos_token_id=None, eos_token_id=0, pad_token_id=0,
        initializer_range=0.2,
    )  # fmt: skip
