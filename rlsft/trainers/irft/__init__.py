"""IRFT (arXiv 2405.17888, Alg. 2): the policy's log-ratio to its last round is the reward; one loss trains both.

Read `trainer.py` first; then `refresh.py` (when answers are drawn anew), `maker.py` (drawing and scoring a round's
pairs) and `schedule.py` (which pairs an optimizer step learns from).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlsft.trainers.irft.config import IRFTConfig
    from rlsft.trainers.irft.trainer import IRFTTrainer

_LAZY = {"IRFTConfig": "rlsft.trainers.irft.config", "IRFTTrainer": "rlsft.trainers.irft.trainer"}

__all__ = ["IRFTConfig", "IRFTTrainer"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rlsft.trainers.irft' has no attribute {name!r}")
