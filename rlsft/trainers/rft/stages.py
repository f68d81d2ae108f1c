"""The stages of an RFT run: their order, and what a round's parts are called and depend on."""

from __future__ import annotations

import re

PARTS = ("samples", "reward", "policy")
TITLES = {
    "samples": "drawing answers of the current policy",
    "reward": "learning a reward: demonstrations above the policy's own answers",
    "policy": "improving the policy on that reward, close to the reference",
}
# prefixes of the config's fields that a part's result depends on; share_trunk changes none
FIELDS: dict[str, tuple[str, ...]] = {
    "samples": ("sample_", "samples_per_prompt", "reward_eval_fraction"),
    "reward": (
        "reward_num", "reward_learning", "reward_args", "reward_bound", "reward_span", "reward_init", "pair_loss",
        "accumulate_negatives", "demonstration_weight", "preference_",
    ),
    "policy": (
        "policy_", "kl_coef", "reference", "center_rewards", "missing_eos_penalty", "weight_normalization",
        "weight_cap", "weight_demonstrations",
    ),
}  # fmt: skip


def round_name(number: int) -> str:
    """Folder of round `number`, counted from 1."""
    return f"round_{number:02d}"


def stage_names(rounds: int) -> list[str]:
    """Every stage of a run in its order; a round has three."""
    return ["sft", *(f"{round_name(t)}/{part}" for t in range(1, rounds + 1) for part in PARTS), "evaluation"]


def part_of(stage: str) -> tuple[int, str]:
    """Round (0 outside of rounds) and kind of a stage: `round_02/reward` is (2, "reward")."""
    found = re.fullmatch(r"round_(\d+)/(\w+)", stage)
    return (int(found[1]), found[2]) if found else (0, stage)
