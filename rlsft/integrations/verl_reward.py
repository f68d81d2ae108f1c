"""The file that verl's `custom_reward_function.path` names; `rlsft.integrations.verl_reward.__file__` is its path.

reward.custom_reward_function.path=…/verl_reward.py  reward.custom_reward_function.name=compute_score
+reward.custom_reward_function.reward_kwargs.reward_path=out/reward_model
"""

from __future__ import annotations

import functools
import os
from typing import Any

from rlsft.errors import ConfigError


def compute_score(*arguments: Any, reward_path: str | None = None, **named: Any) -> Any:
    """verl's signature: `(data_source, solution_str, ground_truth, extra_info)` for one answer, plural names for many.

    Args:
        arguments: as verl passes them.
        reward_path: folder of a learned reward, see `rlsft.integrations.rewards.load_reward`; None = what the
            environment variable RLSFT_REWARD names.
        named: as verl passes them.

    Returns:
        A float, or a list of floats for a batch.

    Raises:
        ConfigError: no folder is named.
    """
    return _reward(named_folder(reward_path)).compute_score(*arguments, **named)


def named_folder(reward_path: str | None) -> str:
    """`reward_path`, or RLSFT_REWARD."""
    folder = reward_path or os.environ.get("RLSFT_REWARD")
    if not folder:
        raise ConfigError(
            "no reward is named: set reward_path (verl: reward_kwargs.reward_path) or RLSFT_REWARD=FOLDER"
        )
    return folder


@functools.lru_cache(maxsize=4)
def _reward(folder: str) -> Any:
    from rlsft.integrations.rewards import load_reward

    return load_reward(folder)
