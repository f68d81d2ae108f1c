"""Fine-tune language models from demonstrations with learned rewards: RFT, IRFT and STR + PPO.

Importing this package is light: the names below load their module, and with it transformers, on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rlsft._version import __version__
from rlsft.errors import ConfigError, DataError, ModelError, RlsftError, RunError

if TYPE_CHECKING:
    from rlsft.integrations.transformers import patch_model, unpatch_model
    from rlsft.ranking import RankedResponses, rank_responses
    from rlsft.rewards import ImplicitReward, RewardModel, token_rewards
    from rlsft.trainers import (
        IRFTConfig,
        IRFTTrainer,
        PPOConfig,
        PPOTrainer,
        RewardConfig,
        RewardTrainer,
        RFTConfig,
        RFTTrainer,
        SFTConfig,
        SFTTrainer,
        STRConfig,
        STRTrainer,
    )

_LAZY = {
    "RankedResponses": "rlsft.ranking",
    "rank_responses": "rlsft.ranking",
    "ImplicitReward": "rlsft.rewards",
    "RewardModel": "rlsft.rewards",
    "IRFTConfig": "rlsft.trainers",
    "IRFTTrainer": "rlsft.trainers",
    "token_rewards": "rlsft.rewards",
    "patch_model": "rlsft.integrations.transformers",
    "unpatch_model": "rlsft.integrations.transformers",
    "PPOConfig": "rlsft.trainers",
    "PPOTrainer": "rlsft.trainers",
    "RFTConfig": "rlsft.trainers",
    "RFTTrainer": "rlsft.trainers",
    "RewardConfig": "rlsft.trainers",
    "RewardTrainer": "rlsft.trainers",
    "SFTConfig": "rlsft.trainers",
    "SFTTrainer": "rlsft.trainers",
    "STRConfig": "rlsft.trainers",
    "STRTrainer": "rlsft.trainers",
}

__all__ = [
    "ConfigError",
    "DataError",
    "IRFTConfig",
    "IRFTTrainer",
    "ImplicitReward",
    "ModelError",
    "PPOConfig",
    "PPOTrainer",
    "RFTConfig",
    "RFTTrainer",
    "RankedResponses",
    "RewardConfig",
    "RewardModel",
    "RewardTrainer",
    "RlsftError",
    "RunError",
    "SFTConfig",
    "SFTTrainer",
    "STRConfig",
    "STRTrainer",
    "__version__",
    "patch_model",
    "rank_responses",
    "token_rewards",
    "unpatch_model",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rlsft' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
