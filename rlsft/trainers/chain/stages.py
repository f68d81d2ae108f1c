"""A stage of a chain, and the settings that its result depends on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlsft.artifacts import jsonable
from rlsft.trainers.run_dir import fingerprint

# fields of a config that every stage's result depends on
SHARED_FIELDS = (
    "seed", "dtype", "attn_implementation", "max_length", "system_prompt", "language", "use_peft", "lora_r",
    "lora_alpha", "lora_dropout", "truncate_prompt", "lora_target_modules", "per_device_train_batch_size",
    "gradient_accumulation_steps", "max_completion_length", "disable_dropout", "bf16",
)  # fmt: skip
NOT_SETTINGS = ("sample_batch_size",)  # changes speed, never a result
# prefixes of the fields that these stages depend on in every method
SFT_FIELDS = ("skip_sft", "sft_")
EVALUATION_FIELDS = ("eval_prompts", "eval_temperature", "eval_top_p", "kpi")


@dataclass(frozen=True)
class Stage:
    """One step of a chain; its name is its folder in the run directory.

    Args:
        name: `reward`, `round_02/reward`, …
        title: what it does, for the line that announces it.
        fields: prefixes of the config's fields that its result depends on, beside `SHARED_FIELDS`.
        make: writes the result to the folder; returns what done.json keeps of it.
        data: what else the result depends on: hashes of data, the model.
    """

    name: str
    title: str
    fields: tuple[str, ...]
    make: Callable[[Path], dict[str, Any]]
    data: Mapping[str, Any] = field(default_factory=dict)


def fields_of(prefixes: tuple[str, ...], names: Iterable[str]) -> list[str]:
    """Those of the config's field `names` that a stage with these `prefixes` depends on."""
    return [name for name in names if name in SHARED_FIELDS or (name.startswith(prefixes) and name not in NOT_SETTINGS)]


def settings_of(stages: Sequence[Stage], args: Any) -> dict[str, dict[str, Any]]:
    """Everything that decides each stage's result, by its name: its fields, its data, and the stages before it."""
    settings: dict[str, dict[str, Any]] = {}
    before: dict[str, Any] | None = None
    for stage in stages:
        found = {name: getattr(args, name) for name in fields_of(stage.fields, type(args).__dataclass_fields__)}
        found |= stage.data
        if before is not None:
            found["stages_before"] = fingerprint(before)
        before = settings[stage.name] = jsonable(found)
    return settings
