"""`rlsft irft` as a user meets it: the plan of a dry run, a run from a config file, and its going on."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rlsft.artifacts import read_jsonl, write_jsonl
from rlsft.cli.main import main
from rlsft.cli.parsing import field_names, read_yaml
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.training import demonstrations

EXAMPLE = Path(__file__).parents[2] / "examples" / "irft_chitchat.yaml"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    write_jsonl(tmp_path / "rows.jsonl", demonstrations(9))
    write_jsonl(tmp_path / "held_out.jsonl", demonstrations(3))
    values = {
        "model": str(tmp_path / "model"),
        "train_data": str(tmp_path / "rows.jsonl"),
        "eval_data": str(tmp_path / "held_out.jsonl"),
        "output_dir": str(tmp_path / "run"),
        "rounds": 2,
        "per_device_train_batch_size": 4,
        "max_completion_length": 5,
        "max_length": 96,
        "use_peft": True,
        "use_cpu": True,
    }
    file = tmp_path / "irft.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def test_dry_run_shows_the_plan(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["irft", "--config", str(config), "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "2 round(s), refresh=shards: 4 to 5 answers and 2 to 4 optimizer steps of 4 pairs a round, 6 steps" in out
    assert "time for 5 steps (estimate)" in out
    assert "peak with gradient_checkpointing=True" in out
    assert main(["irft", "--config", str(config), "--dry_run", "--gradient_checkpointing", "true"]) == 0
    assert "peak with gradient_checkpointing=True" not in capsys.readouterr().out
    assert not (config.parent / "run").exists()


def test_a_run_and_its_going_on(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["irft", "--config", str(config), "--save_strategy", "steps", "--save_steps", "3"]
    assert main([*argv, "--max_steps", "3"]) == 0
    assert main(argv) == 0
    rows = read_jsonl(config.parent / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert {row["stage"] for row in rows} == {"irft"}
    assert "eval_accuracy" in rows[-1]
    assert (config.parent / "run" / "adapter_config.json").is_file()
    assert {path.name for path in (config.parent / "run" / "negatives").iterdir()} == {
        "round_00.jsonl",
        "round_01.jsonl",
    }


def test_a_typo_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["irft", "--config", str(config), "--loss_typ", "hinge"]) == 2
    assert "did you mean 'loss_type'" in capsys.readouterr().err


def test_the_example_has_known_keys_only() -> None:
    from rlsft.cli.job import JobArguments
    from rlsft.trainers import IRFTConfig

    values = read_yaml(EXAMPLE)
    assert set(values) <= set(field_names([JobArguments, IRFTConfig]))
    IRFTConfig(**{name: value for name, value in values.items() if name in field_names([IRFTConfig])})
