"""Draw completions from a policy and hold them as tensors.

Start with `engine.py` (what every engine promises), then `transformers_engine.py` (the one that runs anywhere).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rlsft.rollouts.sampling import Completion, SamplingParams

if TYPE_CHECKING:
    from rlsft.rollouts.batch import RolloutBatch, pad_rollouts
    from rlsft.rollouts.engine import RolloutEngine
    from rlsft.rollouts.transformers_engine import TransformersEngine

_LAZY = {
    "RolloutBatch": "rlsft.rollouts.batch",
    "RolloutEngine": "rlsft.rollouts.engine",
    "TransformersEngine": "rlsft.rollouts.transformers_engine",
    "pad_rollouts": "rlsft.rollouts.batch",
}

__all__ = ["Completion", "RolloutBatch", "RolloutEngine", "SamplingParams", "TransformersEngine", "pad_rollouts"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'rlsft.rollouts' has no attribute {name!r}")
