"""The methods as trainers on `transformers.Trainer`; each name loads its module on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlsft.trainers.irft.config import IRFTConfig
    from rlsft.trainers.irft.trainer import IRFTTrainer
    from rlsft.trainers.ppo.config import PPOConfig
    from rlsft.trainers.ppo.trainer import PPOTrainer
    from rlsft.trainers.reward import RewardTrainer
    from rlsft.trainers.reward_config import RewardConfig
    from rlsft.trainers.rft.config import RFTConfig
    from rlsft.trainers.rft.trainer import RFTTrainer
    from rlsft.trainers.sft import SFTConfig, SFTTrainer
    from rlsft.trainers.str.config import STRConfig
    from rlsft.trainers.str.trainer import STRTrainer

_LAZY = {
    "IRFTConfig": "rlsft.trainers.irft.config",
    "IRFTTrainer": "rlsft.trainers.irft.trainer",
    "PPOConfig": "rlsft.trainers.ppo.config",
    "PPOTrainer": "rlsft.trainers.ppo.trainer",
    "RFTConfig": "rlsft.trainers.rft.config",
    "RFTTrainer": "rlsft.trainers.rft.trainer",
    "RewardConfig": "rlsft.trainers.reward_config",
    "RewardTrainer": "rlsft.trainers.reward",
    "SFTConfig": "rlsft.trainers.sft",
    "SFTTrainer": "rlsft.trainers.sft",
    "STRConfig": "rlsft.trainers.str.config",
    "STRTrainer": "rlsft.trainers.str.trainer",
}

__all__ = [
    "IRFTConfig",
    "IRFTTrainer",
    "PPOConfig",
    "PPOTrainer",
    "RFTConfig",
    "RFTTrainer",
    "RewardConfig",
    "RewardTrainer",
    "SFTConfig",
    "SFTTrainer",
    "STRConfig",
    "STRTrainer",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rlsft.trainers' has no attribute {name!r}")
