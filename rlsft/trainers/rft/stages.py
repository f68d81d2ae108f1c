"""The stages of an RFT run: their order, their titles, and the settings that each one's result depends on."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rlsft.errors import ConfigError

PARTS = ("samples", "reward", "policy")
TITLES = {
    "sft": "fine-tuning on the demonstrations",
    "samples": "drawing answers of the current policy",
    "reward": "learning a reward: demonstrations above the policy's own answers",
    "policy": "improving the policy on that reward, close to the reference",
    "evaluation": "comparing SFT and RFT on held-out prompts",
}
SHARED_FIELDS = (
    "seed", "dtype", "attn_implementation", "max_length", "system_prompt", "language", "use_peft", "lora_r",
    "lora_alpha", "lora_dropout", "truncate_prompt", "lora_target_modules", "per_device_train_batch_size",
    "gradient_accumulation_steps", "max_completion_length", "disable_dropout", "bf16",
)  # fmt: skip
_PREFIXES = {
    "sft": ("skip_sft", "sft_"),
    "samples": ("sample_", "samples_per_prompt", "reward_eval_fraction"),
    "reward": (
        "reward_num", "reward_learning", "reward_args", "reward_bound", "reward_span", "reward_init", "pair_loss",
        "accumulate_negatives", "demonstration_weight", "preference_",
    ),
    "policy": (
        "policy_", "kl_coef", "reference", "center_rewards", "missing_eos_penalty", "weight_normalization",
        "weight_cap", "weight_demonstrations",
    ),
    "evaluation": ("eval_prompts", "eval_temperature", "eval_top_p", "kpi"),
}  # fmt: skip
NOT_SETTINGS = ("sample_batch_size",)  # changes speed, never a result; nor does share_trunk, which no prefix names


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


def fields_of(stage: str, names: Iterator[str]) -> list[str]:
    """Those of the config's field `names` that the result of `stage` depends on."""
    prefixes = _PREFIXES[part_of(stage)[1]]
    return [name for name in names if name in SHARED_FIELDS or (name.startswith(prefixes) and name not in NOT_SETTINGS)]


def check_stage(name: str, value: str | None, rounds: int) -> None:
    """Raise a `ConfigError` unless `value` is a stage of a run of that many rounds, or None."""
    if value is not None and value not in stage_names(rounds):
        raise ConfigError(
            f"{name} must be sft, round_NN/samples, round_NN/reward, round_NN/policy (NN from 01 to {rounds:02d}) or "
            f"evaluation, got {value!r}"
        )
