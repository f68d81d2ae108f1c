"""Small pure functions of reinforcement learning: KL controllers and shaping of sequence scores."""

from __future__ import annotations

from rlsft.objectives.kl_control import AdaptiveKLController, FixedKLController
from rlsft.objectives.rewards import center_scores, penalize_missing_eos, whiten_scores

__all__ = [
    "AdaptiveKLController",
    "FixedKLController",
    "center_scores",
    "penalize_missing_eos",
    "whiten_scores",
]
