"""Learned rewards of answers and tokens: explicit reward models, implicit log-ratios, their files and scoring."""

from __future__ import annotations

from rlsft.rewards.demonstration_filter import RankedDemonstrations, check_keep, rank_demonstrations
from rlsft.rewards.implicit import ImplicitReward, sequence_rewards
from rlsft.rewards.manifest import is_implicit_reward
from rlsft.rewards.model import RewardModel
from rlsft.rewards.pooling import pooled_scores, token_scores
from rlsft.rewards.scoring import score_rows, score_texts
from rlsft.rewards.split import split_by_prompt
from rlsft.rewards.token_reward_files import export_token_rewards
from rlsft.rewards.token_rewards import token_rewards

__all__ = [
    "ImplicitReward",
    "RankedDemonstrations",
    "RewardModel",
    "check_keep",
    "export_token_rewards",
    "is_implicit_reward",
    "pooled_scores",
    "rank_demonstrations",
    "score_rows",
    "score_texts",
    "sequence_rewards",
    "split_by_prompt",
    "token_rewards",
    "token_scores",
]
