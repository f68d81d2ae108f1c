"""Small pure functions of reinforcement learning: KL controllers, shaping of sequence scores, losses on pairs."""

from __future__ import annotations

from rlsft.objectives.kl_control import AdaptiveKLController, FixedKLController
from rlsft.objectives.pair_losses import mean_pair_loss, pair_loss_names, register_pair_loss, sft_factor
from rlsft.objectives.rewards import center_scores, penalize_missing_eos, whiten_scores

__all__ = [
    "AdaptiveKLController",
    "FixedKLController",
    "center_scores",
    "mean_pair_loss",
    "pair_loss_names",
    "penalize_missing_eos",
    "register_pair_loss",
    "sft_factor",
    "whiten_scores",
]
