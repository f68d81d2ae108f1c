"""STR (arXiv 2402.18284): rewards learned from the ranks of the policy's own answers, then PPO; the stages in order.

Read `trainer.py` first; `rlsft/trainers/chain` has what it shares with RFT.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlsft.trainers.str.config import STRConfig
    from rlsft.trainers.str.trainer import STRTrainer

_LAZY = {"STRConfig": "rlsft.trainers.str.config", "STRTrainer": "rlsft.trainers.str.trainer"}

__all__ = ["STRConfig", "STRTrainer"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rlsft.trainers.str' has no attribute {name!r}")
