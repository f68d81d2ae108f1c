"""PPO on a learned reward (arXiv 1707.06347), close to a reference policy.

Read `trainer.py` first; then `rollout.py` (drawing and scoring the answers of an iteration), `shaping.py` (from their
scores to advantages), `losses.py`, and `schedule.py` (which answers an optimizer step learns from).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlsft.trainers.ppo.config import PPOConfig
    from rlsft.trainers.ppo.trainer import PPOTrainer

_LAZY = {"PPOConfig": "rlsft.trainers.ppo.config", "PPOTrainer": "rlsft.trainers.ppo.trainer"}

__all__ = ["PPOConfig", "PPOTrainer"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rlsft.trainers.ppo' has no attribute {name!r}")
