"""Small pure functions of reinforcement learning: KL controllers, shaping of scores, losses on pairs, weights."""

from __future__ import annotations

from rlsft.objectives.apa import apa_loss
from rlsft.objectives.kl_control import AdaptiveKLController, FixedKLController
from rlsft.objectives.pair_losses import mean_pair_loss, pair_loss_names, register_pair_loss, sft_factor
from rlsft.objectives.pair_rewards import bounded_rewards, divergence_losses, pair_losses
from rlsft.objectives.rewards import center_scores, penalize_missing_eos, whiten_scores
from rlsft.objectives.weighting import exponential_weights

__all__ = [
    "AdaptiveKLController",
    "FixedKLController",
    "apa_loss",
    "bounded_rewards",
    "center_scores",
    "divergence_losses",
    "exponential_weights",
    "mean_pair_loss",
    "pair_loss_names",
    "pair_losses",
    "penalize_missing_eos",
    "register_pair_loss",
    "sft_factor",
    "whiten_scores",
]
