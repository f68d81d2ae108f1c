"""The STR chain on a tiny model: every artefact is there, a stopped run goes on, contradictions are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlsft.artifacts import read_jsonl
from rlsft.errors import ConfigError, DataError, RunError
from rlsft.trainers import STRConfig, STRTrainer
from rlsft.trainers.chain.rows import held_out_prompts, refuse_shared_prompts
from rlsft.trainers.run_dir import RunDirectory
from rlsft.trainers.str.evaluation import reward_line
from tests.support.models import tiny_model, tiny_tokenizer

WORDS = ["we", "went", "to", "the", "park", "and", "played", "football", "with", "the", "children"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("base")
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def rows(start: int, count: int) -> list[dict[str, Any]]:
    return [
        {"prompt": f"What did you do on day {i}?", "completion": " ".join(WORDS[i % 5 : i % 5 + 4]) + "."}
        for i in range(start, start + count)
    ]


def config(folder: Path, **changes: Any) -> STRConfig:
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "use_peft": True,
        "lora_r": 2,
        "max_length": 96,
        "max_completion_length": 6,
        "per_device_train_batch_size": 4,
        "logging_steps": 1,
        "show_progress": False,
        "sft_learning_rate": 1e-2,
        "sample_prompts": 6,
        "samples_per_prompt": 5,
        "cluster": "str",
        "reward_learning_rate": 1e-2,
        "reward_eval_fraction": 0.25,
        "ppo_episodes": 16,
        "ppo_batch_size": 8,
        "ppo_epochs": 1,
        "ppo_learning_rate": 1e-3,
        "eval_prompts": 6,
        "seed": 5,
    }
    return STRConfig(**(values | changes))


def trainer(base: str, folder: Path, **changes: Any) -> STRTrainer:
    held_out = rows(100, 6) + [{"prompt": r["prompt"], "completion": "we played football."} for r in rows(100, 3)]
    return STRTrainer(base, config(folder, **changes), train_dataset=rows(0, 16), eval_dataset=held_out)


@pytest.fixture(scope="module")
def finished(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    result = trainer(base, folder).train()
    assert result is not None
    assert result.output_dir == folder
    return folder


def test_every_artefact_is_there_and_loads(finished: Path) -> None:
    for name in (
        "run.json", "rlsft_config.yaml", "metrics.jsonl", "README.md", "report.html", "model.safetensors",
        "samples/samples.jsonl", "ranked/ranked.jsonl", "ranked/ranked.parquet", "ranked/pairs.jsonl",
        "ranked/pairs.parquet", "ranked/explanations.jsonl", "evaluation/generations.jsonl", "evaluation/table.json",
        "evaluation/agreement.json", "sft/model/model.safetensors", "reward/model/model.safetensors",
        "ppo/model/model.safetensors",
    ):  # fmt: skip
        assert (finished / name).is_file(), f"{name} is missing"
    assert list((finished / "plots").glob("*.svg"))
    policy = AutoModelForCausalLM.from_pretrained(finished)
    best = AutoModelForCausalLM.from_pretrained(finished / "ppo" / "model")
    for name, value in policy.state_dict().items():
        assert torch.equal(value, best.state_dict()[name])


def test_each_stage_learned_something(finished: Path, base: str) -> None:
    start = AutoModelForCausalLM.from_pretrained(base).state_dict()
    sft = AutoModelForCausalLM.from_pretrained(finished / "sft" / "model").state_dict()
    ppo = AutoModelForCausalLM.from_pretrained(finished / "ppo" / "model").state_dict()
    changed = [name for name in start if not torch.equal(start[name], sft[name])]
    assert changed, "SFT left every weight as it was"
    assert any(not torch.equal(sft[name], ppo[name]) for name in sft), "PPO left every weight as it was"
    stages = {row["stage"] for row in read_jsonl(finished / "metrics.jsonl")}
    assert {"sft", "reward", "ppo"} <= stages


def test_samples_and_table_are_consistent(finished: Path) -> None:
    samples = read_jsonl(finished / "samples" / "samples.jsonl")
    assert len(samples) == 6
    assert all(len(row["responses"]) == 5 and row["sampling"]["temperature"] == 0.8 for row in samples)
    generations = read_jsonl(finished / "evaluation" / "generations.jsonl")
    assert {g["model"] for g in generations} == {"SFT", "STR"}
    assert len(generations) == 12
    assert all(g["kl"] == 0 for g in generations if g["model"] == "SFT")
    keys = {row["key"] for row in json.loads((finished / "evaluation" / "table.json").read_text())["rows"]}
    assert {"reward", "kl", "length"} <= keys
    assert json.loads((finished / "evaluation" / "agreement.json").read_text())["num_prompts"] == 3


def test_a_finished_run_is_reused_and_other_settings_are_refused(finished: Path, base: str) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("done.json")}
    assert len(before) == 6
    assert trainer(base, finished).train() is not None
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("done.json")} == before
    with pytest.raises(RunError, match=r"stage 'ppo' .*ppo_learning_rate was 0.001, now 0.5.*--redo ppo"):
        trainer(base, finished, ppo_learning_rate=0.5).train()
    with pytest.raises(RunError, match=r"stage 'samples' .*samples_per_prompt was 5, now 4"):
        trainer(base, finished, samples_per_prompt=4).train()


def test_a_run_stopped_between_and_inside_stages_equals_one_never_stopped(
    finished: Path, base: str, tmp_path: Path
) -> None:
    folder = tmp_path / "pieces"
    assert trainer(base, folder, stop_after="sft").train() is None
    stopped = trainer(base, folder, stop_after="samples", sample_batch_size=5)
    stopped.train()
    # as a kill in the middle of sampling leaves it: two whole rows, half a row, no done.json
    file = folder / "samples" / "samples.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2]) + lines[2][:40])
    (folder / "samples" / "done.json").unlink()
    assert trainer(base, folder).train() is not None
    assert file.read_text() == (finished / "samples" / "samples.jsonl").read_text()
    for part in ("sft", "reward", "ppo"):
        ours = (folder / part / "model" / "model.safetensors").read_bytes()
        assert ours == (finished / part / "model" / "model.safetensors").read_bytes(), part


def test_a_run_directory_may_be_moved(finished: Path, base: str, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(finished, moved)
    again = trainer(base, moved, redo="evaluation")
    assert again.train() is not None
    assert again.sft_model() == str(moved / "sft" / "model")
    assert str(finished) not in (moved / "sft" / "done.json").read_text()


@pytest.mark.parametrize(
    ("accuracy", "count", "trusted"), [(0.9, 24, True), (0.7, 24, False), (0.46, 24, False), (0.6, 400, True)]
)
def test_a_reward_model_that_guesses_is_said_to(tmp_path: Path, accuracy: float, count: int, trusted: bool) -> None:
    with RunDirectory(tmp_path) as run:
        run.begin("reward", {})
        run.finish("reward", {}, eval_accuracy=accuracy, num_eval_pairs=count)
    line = reward_line(tmp_path)
    assert f"right about {accuracy:.0%} of {count} held-out pairs" in line
    assert ("not clearly better than guessing" not in line) == trusted


def test_bad_input_is_named(base: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model must be a folder.*got LlamaForCausalLM"):
        STRTrainer(tiny_model(), config(tmp_path), train_dataset=rows(0, 4))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="train_dataset has no rows"):
        STRTrainer(base, config(tmp_path), train_dataset=[])
    with pytest.raises(DataError, match="train_dataset, row 2: "):
        STRTrainer(base, config(tmp_path), train_dataset=[*rows(0, 1), {"prompt": "a", "completion": ""}])
    with pytest.raises(DataError, match="eval_dataset shares 2 of 6 rows with train_dataset"):
        refuse_shared_prompts(rows(0, 4), rows(2, 6))


def test_without_held_out_rows_some_training_prompts_are_held_out(base: str, tmp_path: Path) -> None:
    chain = STRTrainer(base, config(tmp_path), train_dataset=rows(0, 40))
    assert chain.eval_rows
    assert not {r["prompt"] for r in chain.eval_rows} & {r["prompt"] for r in chain.train_rows}
    assert len(chain.eval_rows) + len(chain.train_rows) == 40


def test_answers_of_one_prompt_become_its_references() -> None:
    data = [{"prompt": "a", "completion": "1"}, {"prompt": "b", "completion": "2"}, {"prompt": "a", "completion": "3"}]
    assert [r["references"] for r in held_out_prompts(data, 5, 0)] == [["1", "3"], ["2"]]
