"""`rlsft rft`: the example is valid, the dry run shows memory shared and apart, a stage at a time, typos are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlsft.cli.job import JobArguments
from rlsft.cli.main import main
from rlsft.cli.parsing import parse
from rlsft.errors import ConfigError
from rlsft.trainers.rft.config import RFTConfig
from tests.support.rft import letter_demonstrations, letter_folder

EXAMPLE = Path(__file__).parents[2] / "examples" / "rft_chitchat.yaml"


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in letter_demonstrations(60)))
    return [
        "rft", "--model", letter_folder(tmp_path / "base"), "--train_data", str(data), "--output_dir",
        str(tmp_path / "run"), "--use_peft", "true", "--lora_r", "2", "--max_length", "24", "--max_completion_length",
        "4", "--skip_sft", "true", "--sample_prompts", "4", "--show_progress", "false", "--use_cpu", "true",
    ]  # fmt: skip


def test_the_example_file_is_valid() -> None:
    (job, args), _ = parse("rft", [JobArguments, RFTConfig], ["--config", str(EXAMPLE)], description="")
    assert (job.model, job.train_data, args.policy_step) == ("smollm2", "chitchat", "ppo")
    assert args.shares_trunk
    reward = args.reward_config("x")
    assert reward.per_device_train_batch_size * reward.gradient_accumulation_steps == args.per_device_train_batch_size


def test_dry_run_trains_nothing_and_shows_memory_shared_and_apart(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--dry_run"]) == 0
    shown = capsys.readouterr().out
    for text in ("RFT, share_trunk=True (this run)", "RFT, share_trunk=False", "plain SFT", "round_02/policy"):
        assert text in shown
    assert not (tmp_path / "run").exists()


def test_a_stage_at_a_time(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*argv, "--stop_after", "round_01/samples"]) == 0
    assert "stopped after stage round_01/samples" in capsys.readouterr().out
    assert len((tmp_path / "run/round_01/samples/samples.jsonl").read_text().splitlines()) == 4


def test_typos_and_contradictions_are_named(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*argv, "--policy_stp", "apa"]) == 2
    assert "did you mean 'policy_step'" in capsys.readouterr().err
    assert main([*argv, "--pair_loss", "linear"]) == 2
    assert "pair_loss='linear' needs reward_bound=R" in capsys.readouterr().err
    file = Path(argv[4]).with_name("c.yaml")
    file.write_text("rounds: many\n")
    with pytest.raises(ConfigError, match=r"rounds: expected int, got 'many'"):
        parse("rft", [JobArguments, RFTConfig], ["--config", str(file)], description="")
