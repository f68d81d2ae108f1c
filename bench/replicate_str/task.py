"""What a method gets of a task: data, tokenizer, the common pretrained model of the seed, an encoder for ranking."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Budget:
    """What every method may spend, and the settings that were chosen on seeds which are not reported."""

    train: int
    held_out: int
    steps: int  # of fine-tuning, the same for every method
    batch: int = 32
    full_rate: float = 1e-3
    lora_rate: float = 5e-3
    adapter_rate: float = 3e-3
    bitfit_rate: float = 1e-2
    lora_rank: int = 8
    adapter_width: int = 16
    rank_prompts: int = 128
    samples: int = 8
    pairs_per_prompt: int = 8
    noise_rate: float = 0.24
    reward_steps: int = 60
    reward_rate: float = 5e-4
    episodes: int = 1024
    episodes_per_iteration: int = 128
    policy_rate: float = 3e-4
    kl_coef: float = 0.1
    missing_eos_penalty: float = 0.0


@dataclass(frozen=True)
class Task:
    """One task at one seed."""

    name: str
    seed: int
    tokenizer: Any
    pretrained: Any  # a method trains a copy
    train: Rows  # prompt, completion
    held_out: Rows  # prompt, references
    encoder: Any  # of `rank_responses`
    max_length: int
    completion_tokens: int
    paraphrases: Callable[[str], list[str]]
    budget: Budget
    folder: Path  # for what a method writes; gone afterwards
    true_reward: Callable[[str, str], float] | None = None
    is_language: bool = True

    def copy(self) -> Any:
        return copy.deepcopy(self.pretrained)
