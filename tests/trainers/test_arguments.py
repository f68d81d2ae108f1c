"""Defaults that follow the machine, TRL's names, and messages that name the field."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import pytest
from transformers import HfArgumentParser, TrainingArguments

from rlsft.errors import ConfigError
from rlsft.trainers.arguments import RlsftArguments
from rlsft.trainers.reward import RewardConfig
from rlsft.trainers.sft import SFTConfig

CONFIGS = (RlsftArguments, SFTConfig, RewardConfig)


@pytest.mark.parametrize("config", CONFIGS)
def test_cpu_needs_no_flag(config: type[RlsftArguments], tmp_path: Path) -> None:
    args = config(str(tmp_path), use_cpu=True)
    assert args.device.type == "cpu"
    assert (args.bf16, args.fp16, args.gradient_checkpointing, args.dataloader_pin_memory) == (False,) * 4
    assert (args.logging_steps, args.report_to, args.max_length) == (10, [], 1024)


def test_defaults_by_method_are_those_of_trl(tmp_path: Path) -> None:
    assert SFTConfig(str(tmp_path)).learning_rate == 2e-5
    assert SFTConfig(str(tmp_path)).disable_dropout is False
    assert RewardConfig(str(tmp_path)).learning_rate == 1e-4
    assert RewardConfig(str(tmp_path)).disable_dropout is True


@pytest.mark.parametrize("config", CONFIGS)
def test_every_own_field_has_a_help_string(config: type[RlsftArguments]) -> None:
    inherited = {field.name: field for field in dataclasses.fields(TrainingArguments)}
    own = [f for f in dataclasses.fields(config) if f.name not in inherited or f != inherited[f.name]]
    assert len(own) >= 15
    assert [f.name for f in own if not f.metadata.get("help")] == []


@pytest.mark.parametrize("config", CONFIGS)
def test_the_fields_make_a_command_line(config: type[RlsftArguments], tmp_path: Path) -> None:
    (args,) = HfArgumentParser(config).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--max_length", "77", "--lora_target_modules", "q_proj", "v_proj"]
    )
    assert args.max_length == 77
    assert args.lora_target_modules == ["q_proj", "v_proj"]


@pytest.mark.parametrize("value", [True, False])
def test_gradient_checkpointing_is_settled_without_a_warning(value: bool, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        args = RlsftArguments(str(tmp_path), gradient_checkpointing=value)
        again = dataclasses.replace(args, seed=7)
    assert args.gradient_checkpointing is value
    assert again.gradient_checkpointing is value


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("dtype", "fp8", "dtype must be one of auto, float32, bfloat16, float16, got 'fp8'"),
        ("max_length", 1, "max_length must be unset or at least 2, got 1"),
        ("max_length", "long", "max_length must be unset or at least 2, got 'long'"),
        ("lora_r", 0, "lora_r must be at least 1, got 0"),
        ("lora_alpha", 0, "lora_alpha must be at least 1, got 0"),
        ("lora_dropout", 1.5, "lora_dropout must be between 0.0 and 1.0, got 1.5"),
        ("label_smoothing_factor", 0.1, "label_smoothing_factor must be 0, got 0.1"),
        ("max_nonfinite_steps", -1, "max_nonfinite_steps must be at least 0, got -1"),
        ("early_stopping_patience", 2, "early_stopping_patience needs load_best_model_at_end=True"),
    ],
)
def test_wrong_values_name_the_field(field: str, value: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        RlsftArguments(str(tmp_path), **{field: value})


def test_wrong_values_of_the_methods_name_the_field(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="padding_side must be one of right, left, got 'middle'"):
        SFTConfig(str(tmp_path), padding_side="middle")
    with pytest.raises(ConfigError, match=r"center_rewards_coefficient must be unset or at least 0, got -0.1"):
        RewardConfig(str(tmp_path), center_rewards_coefficient=-0.1)


def test_lora_fields_become_a_peft_config(tmp_path: Path) -> None:
    assert RlsftArguments(str(tmp_path)).lora_config("CAUSAL_LM") is None
    args = RlsftArguments(str(tmp_path), use_peft=True, lora_r=4, lora_alpha=8, lora_dropout=0.0)
    config = args.lora_config("SEQ_CLS")
    assert (config.r, config.lora_alpha, config.lora_dropout, config.task_type) == (4, 8, 0.0, "SEQ_CLS")
    assert config.target_modules == "all-linear"
    named = RlsftArguments(str(tmp_path), use_peft=True, lora_target_modules=["q_proj", "v_proj"])
    assert named.lora_config("CAUSAL_LM").target_modules == {"q_proj", "v_proj"}


def test_metrics_go_beside_the_checkpoints_unless_told_otherwise(tmp_path: Path) -> None:
    assert RlsftArguments(str(tmp_path)).metrics_file == tmp_path / "metrics.jsonl"
    elsewhere = tmp_path / "run" / "all.jsonl"
    assert RlsftArguments(str(tmp_path), metrics_path=str(elsewhere)).metrics_file == elsewhere
