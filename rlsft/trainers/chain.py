"""What trainers that chain several stages share: the config of a stage, its first fine-tuning, its tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlsft.errors import ConfigError, did_you_mean
from rlsft.trainers.arguments import RlsftArguments


def stage_config(args: RlsftArguments, cls: type, output_dir: str, own: dict[str, Any], extra: Any) -> Any:
    """The config `cls` of one stage: what the user changed of the shared fields, then `own`, then `extra`.

    Raises:
        ConfigError: `extra` names a field that `cls` does not have.
    """
    target = {f.name for f in dataclasses.fields(cls) if f.init}
    untouched = RlsftArguments(output_dir=output_dir)
    values = {
        f.name: getattr(args, f.name)
        for f in dataclasses.fields(RlsftArguments)
        if f.init and f.name in target and getattr(args, f.name) != getattr(untouched, f.name)
    }
    values |= own | {"output_dir": output_dir}
    for key in extra or {}:
        if key not in target:
            raise ConfigError(f"{cls.__name__} has no field {key!r}{did_you_mean(key, target)}")
    return cls(**(values | dict(extra or {})))


def as_mapping(name: str, value: Any) -> dict[str, Any] | None:
    """The further fields of a stage as a dict; a string is read as JSON.

    Raises:
        ConfigError: not JSON, or no mapping.
    """
    if isinstance(value, str):
        import json

        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ConfigError(f'{name} must be JSON such as {{"weight_decay": 0.01}}: {error}') from None
    if value is not None and not isinstance(value, dict):
        raise ConfigError(f"{name} must be a mapping of field names to values, got {type(value).__name__}")
    return value


def refuse_stage_fields(args: RlsftArguments, stages: Sequence[str]) -> None:
    """Raise a `ConfigError` where a field that every stage has its own of was set for the chain."""
    for name in ("learning_rate", "num_train_epochs", "max_steps"):
        if getattr(args, name) != RlsftArguments.__dataclass_fields__[name].default:
            own = [f"{stage}_{name}" for stage in stages]
            extra = ", ".join(f"{stage}_args" for stage in stages)
            raise ConfigError(
                f"{name} belongs to one stage: set {', '.join(own[:-1])} or {own[-1]}, or {extra}, got "
                f"{name}={getattr(args, name)!r}"
            )


def fine_tune(
    model: str,
    config: Any,
    rows: Sequence[dict[str, Any]],
    held_out: Sequence[dict[str, Any]],
    *,
    tokenizer: Any,
    callbacks: Sequence[Any],
    target: Path,
) -> dict[str, Any]:
    """Supervised fine-tuning of the folder `model` on `rows`, written to `target` with its adapter merged.

    Goes on from a checkpoint in the config's output directory. Returns what done.json keeps.
    """
    from rlsft.models import load_causal_lm, merge_lora
    from rlsft.trainers.base import last_checkpoint
    from rlsft.trainers.sft import SFTTrainer

    trainer = SFTTrainer(
        model=load_causal_lm(model, dtype=config.dtype, attn_implementation=config.attn_implementation),
        args=config,
        train_dataset=list(rows),
        eval_dataset=list(held_out) or None,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(config.output_dir) is not None)
    measured = trainer.evaluate() if held_out else {}
    merge_lora(trainer.model).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return {"num_examples": len(rows), "num_tokens": trained_tokens(trainer), **measured}


def trained_tokens(trainer: Any) -> int:
    """Tokens the trainer saw, as its log says."""
    for entry in reversed(trainer.state.log_history):
        if "num_tokens" in entry:
            return int(entry["num_tokens"])
    return 0
