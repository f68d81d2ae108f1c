"""Flags over YAML over defaults; a typo is an error with the nearest name; values keep their types."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rlsft.cli.job import JobArguments
from rlsft.cli.parsing import parse
from rlsft.errors import ConfigError
from rlsft.trainers.str.config import STRConfig


def parsed(*argv: str, defaults: dict[str, Any] | None = None) -> tuple[JobArguments, STRConfig]:
    (job, args), _ = parse("str", [JobArguments, STRConfig], argv, description="", defaults=defaults)
    return job, args


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"output_dir: {tmp_path}\nkl_coef: 1e-3\nuse_peft: true\nsample_prompts: 7\nmodel: m\n")
    job, args = parsed("--config", str(file), "--sample_prompts", "9", defaults={"kl_coef": 9.0, "noise_rate": 0.5})
    assert (args.kl_coef, args.sample_prompts, args.use_peft, args.noise_rate) == (1e-3, 9, True, 0.5)
    assert job.model == "m"


def test_env_block_sets_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLSFT_TEST_VARIABLE", "before")
    (tmp_path / "r.yaml").write_text(f"output_dir: {tmp_path}\nenv:\n  RLSFT_TEST_VARIABLE: 3\n")
    parsed("--config", str(tmp_path / "r.yaml"))
    assert os.environ["RLSFT_TEST_VARIABLE"] == "3"


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("sft_lerning_rate: 1", r"unknown key 'sft_lerning_rate'; did you mean 'sft_learning_rate'\?"),
        ("samples_per_prompt: many", r"samples_per_prompt: expected int, got 'many'"),
        ("samples_per_prompt: 2.5", r"samples_per_prompt: expected int, got 2.5"),
        ("dtype: float12", r"dtype: expected one of .*, got 'float12'"),
        ("a: [", r"r.yaml, line 2, column 1"),
        ("- a", r"expected `key: value` lines, got a list"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, yaml: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(yaml + "\n")
    with pytest.raises(ConfigError, match=message):
        parsed("--config", str(tmp_path / "r.yaml"), "--output_dir", str(tmp_path))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--noise_rat", "0.1"], r"unknown key '--noise_rat'; did you mean 'noise_rate'"),
        (["stray"], r"'stray' belongs to no flag"),
        (["--config"], r"--config needs a file name"),
        (["--config", "nowhere.yaml"], r"nowhere.yaml: no such file"),
        (["--samples_per_prompt", "1"], r"samples_per_prompt must be >= 2 to rank, got 1"),
        (["--learning_rate", "1e-4"], r"learning_rate belongs to one stage: set sft_learning_rate"),
        (["--redo", "rank"], r"redo must be one of .*'ranked'.*, got 'rank'"),
        (["--sft_args", "{x"], r"sft_args must be JSON"),
        (["--damping", "1.0"], r"damping must be in \[0, 1\)"),
    ],
)
def test_a_bad_flag_is_named(tmp_path: Path, argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed("--output_dir", str(tmp_path), *argv)


def test_stage_configs_take_shared_own_and_further_fields(tmp_path: Path) -> None:
    _, args = parsed(
        "--output_dir", str(tmp_path), "--use_peft", "--sft_learning_rate", "0.5",
        "--sft_args", '{"weight_decay": 0.25}', "--kl_coef", "0.125",
    )  # fmt: skip
    sft = args.sft_config(str(tmp_path / "sft"))
    assert (sft.use_peft, sft.learning_rate, sft.weight_decay) == (True, 0.5, 0.25)
    assert sft.metrics_file == tmp_path / "metrics.jsonl"
    assert args.ppo_config(str(tmp_path / "ppo")).kl_coef == 0.125
    args.reward_args = {"wieght_decay": 1}
    with pytest.raises(ConfigError, match=r"RewardConfig has no field 'wieght_decay'; did you mean 'weight_decay'"):
        args.reward_config(str(tmp_path / "reward"))
