"""Reward models: one number for an answer, read at its last real token; their files, their scoring, their split."""

from __future__ import annotations

from rlsft.rewards.model import RewardModel
from rlsft.rewards.pooling import pooled_scores, token_scores
from rlsft.rewards.scoring import score_texts
from rlsft.rewards.split import split_by_prompt

__all__ = ["RewardModel", "pooled_scores", "score_texts", "split_by_prompt", "token_scores"]
