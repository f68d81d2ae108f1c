"""Settings that the chains share: SFT, samples, rewards and evaluation; what belongs to a stage, and its own config."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rlsft.errors import ConfigError, did_you_mean
from rlsft.trainers.arguments import RlsftArguments, at_least


@dataclass
class ChainConfig(RlsftArguments):
    """What `STRConfig` and `RFTConfig` have in common.

    Inherited fields (dtype, LoRA, batch size, …) hold for every stage that trains. `sft_args` and its like set any
    further field of a stage's own config.
    """

    language: str = field(default="en", metadata={"help": "language of the text: en, ja or zh"})
    kpi: str | None = field(
        default=None, metadata={"help": "module:function(prompt, completion, reference) -> float, your own score"}
    )
    # -- supervised stage
    skip_sft: bool = field(
        default=False, metadata={"help": "the model is already fine-tuned: use it as the SFT policy as it is"}
    )
    sft_max_examples: int = field(default=0, metadata={"help": "demonstrations used for SFT; 0 = all"})
    sft_num_train_epochs: float = field(default=1.0, metadata={"help": "passes over the SFT demonstrations"})
    sft_learning_rate: float = field(default=3e-5, metadata={"help": "SFT learning rate (LoRA likes 2e-4)"})
    sft_args: dict[str, Any] | str | None = field(default=None, metadata={"help": "further SFTConfig fields, as JSON"})
    # -- samples
    sample_prompts: int = field(default=256, metadata={"help": "prompts that are answered to learn a reward"})
    samples_per_prompt: int = field(default=1, metadata={"help": "answers to each of them"})
    sample_temperature: float = field(
        default=1.0, metadata={"help": "temperature of the samples; 1 = the policy itself"}
    )
    sample_top_p: float = field(default=1.0, metadata={"help": "nucleus of the samples; 1 = all tokens"})
    sample_batch_size: int = field(default=64, metadata={"help": "sequences decoded together"})
    max_completion_length: int = field(default=64, metadata={"help": "tokens an answer may have, everywhere"})
    # -- reward
    reward_num_train_epochs: float = field(default=1.0, metadata={"help": "passes over the pairs"})
    reward_learning_rate: float = field(default=3e-5, metadata={"help": "reward model learning rate"})
    reward_eval_fraction: float = field(
        default=0.1, metadata={"help": "share of prompts held out to measure the reward model"}
    )
    reward_args: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "further RewardConfig fields, as JSON"}
    )
    # -- evaluation
    eval_prompts: int = field(default=128, metadata={"help": "held-out prompts of the final table"})
    eval_temperature: float = field(default=0.8, metadata={"help": "temperature of the compared answers; 0 = greedy"})
    eval_top_p: float = field(default=0.95, metadata={"help": "nucleus of the compared answers"})
    # -- the run
    redo: str | None = field(
        default=None, metadata={"help": "make this stage (its folder in the run) and what follows again"}
    )
    stop_after: str | None = field(default=None, metadata={"help": "end after this stage"})

    trained_stages: ClassVar[tuple[str, ...]] = ("sft",)  # each has settings STAGE_learning_rate and STAGE_args

    def __post_init__(self) -> None:
        super().__post_init__()
        for stage in self.trained_stages:
            setattr(self, f"{stage}_args", as_mapping(f"{stage}_args", getattr(self, f"{stage}_args")))
        refuse_stage_fields(self, self.trained_stages)
        for name in ("redo", "stop_after"):
            if getattr(self, name) is not None and getattr(self, name) not in self.stage_names():
                raise ConfigError(f"{name} must be {self._stages_in_words()}, got {getattr(self, name)!r}")
        for name in (
            "sample_prompts",
            "samples_per_prompt",
            "sample_batch_size",
            "max_completion_length",
            "eval_prompts",
        ):
            at_least(name, getattr(self, name), 1, "it is a count")
        if not 0.0 <= self.reward_eval_fraction < 1.0:
            raise ConfigError(f"reward_eval_fraction must be in [0, 1), got {self.reward_eval_fraction}")

    def stage_names(self) -> list[str]:
        """Every stage of a run in its order, by its folder."""
        raise NotImplementedError

    def _stages_in_words(self) -> str:
        return f"one of {self.stage_names()}"

    def sft_config(self, output_dir: str) -> Any:
        """`SFTConfig` of the first stage."""
        from rlsft.trainers.sft import SFTConfig

        own = {"num_train_epochs": self.sft_num_train_epochs, "learning_rate": self.sft_learning_rate}
        return self.stage_config(SFTConfig, output_dir, own, self.sft_args)

    def stage_metrics_path(self) -> str | None:
        """Where the stages log; None = each in its own folder."""
        return None

    def stage_config(self, cls: type, output_dir: str, own: dict[str, Any], extra: Any) -> Any:
        """The config `cls` of one stage: what the user changed of the shared fields, then `own`, then `extra`.

        Raises:
            ConfigError: `extra` names a field that `cls` does not have.
        """
        target = {f.name for f in dataclasses.fields(cls) if f.init}
        untouched = RlsftArguments(output_dir=output_dir)
        values = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(RlsftArguments)
            if f.init and f.name in target and getattr(self, f.name) != getattr(untouched, f.name)
        }
        values |= {"metrics_path": self.stage_metrics_path()} | own | {"output_dir": output_dir}
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
