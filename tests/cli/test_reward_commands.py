"""`rlsft export --token-rewards` and `rlsft filter` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from rlsft.artifacts import read_jsonl, write_jsonl
from rlsft.cli.main import main
from rlsft.rewards import ImplicitReward, RewardModel
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.rewarding import tiny_classifier

COLUMNS = ["--column_map", "prompt=question,completion=answer"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two checkpoints of one model, a reward model and demonstrations under the user's own column names."""
    root = tmp_path_factory.mktemp("beyond")
    for name, seed in (("policy", 1), ("reference", 2)):
        tiny_model("llama", seed=seed, initializer_range=0.2).save_pretrained(root / name)
        tiny_tokenizer().save_pretrained(root / name)
    RewardModel(tiny_classifier("llama", seed=3)).save_pretrained(root / "reward", tiny_tokenizer())
    rows = [{"question": f"What is {i}?", "answer": f"It is {i}" + " and more" * (i % 3), "id": i} for i in range(30)]
    write_jsonl(root / "data.jsonl", rows)
    return {path.stem: str(path) for path in root.iterdir()}


def test_exported_rewards_train_a_policy(
    folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dense"
    pair = ["--policy", folders["policy"], "--reference", folders["reference"]]
    export = ["export", "--token-rewards", *pair, "--data", folders["data"], *COLUMNS, "--beta", "0.2"]
    assert main([*export, "--output_dir", str(out)]) == 0
    assert "30 answers" in capsys.readouterr().out
    reward = ImplicitReward.from_pretrained(out)
    assert reward.token_level
    assert reward.beta == 0.2
    lines = read_jsonl(out / "token_rewards.jsonl")
    scores = reward.score([line["prompt"] for line in lines], [line["completion"] for line in lines])
    assert scores.tolist() == [line["reward"] for line in lines]
    assert main([*export, "--output_dir", str(out)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err

    ppo = ["ppo", "--model", folders["reference"], "--reward_model", str(out), "--train_data", folders["data"]]
    ppo += [*COLUMNS, "--output_dir", str(tmp_path / "ppo"), "--per_device_train_batch_size", "4", "--max_steps", "2"]
    ppo += ["--max_completion_length", "4", "--max_length", "64", "--total_episodes", "4", "--num_ppo_epochs", "2"]
    assert main(ppo) == 0
    row = next(row for row in read_jsonl(tmp_path / "ppo" / "metrics.jsonl") if "loss" in row)
    assert "rewards/implicit_reward/mean" in row


def test_help_says_where_token_rewards_are(capsys: pytest.CaptureFixture[str]) -> None:
    for argv, words in ((["export", "--help"], "--token-rewards --help"), (["export", "--token-rewards", "-h"], "pi_")):
        with pytest.raises(SystemExit):
            main(argv)
        assert words in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["explicit", "implicit", "folder"])
def test_filter_writes_scores_the_kept_rows_and_the_worst(
    kind: str, folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reward = ["--reward", folders["reward"]]
    pair = ImplicitReward.from_checkpoints(folders["policy"], folders["reference"])
    if kind == "implicit":
        reward = ["--policy", folders["policy"], "--reference", folders["reference"]]
    if kind == "folder":
        reward = ["--reward", str(pair.save_pretrained(tmp_path / "reward"))]
    out = tmp_path / "out"
    argv = ["filter", "--data", folders["data"], *COLUMNS, *reward, "--output_dir", str(out), "--worst", "3"]
    assert main([*argv, "--keep", "0.7"]) == 0
    assert "21 of 30 demonstrations kept" in capsys.readouterr().out
    rows, kept = read_jsonl(out / "demonstrations.jsonl"), read_jsonl(out / "kept.jsonl")
    assert [row["id"] for row in rows] == list(range(30))
    assert [row["id"] for row in kept] == [row["id"] for row in rows if row["kept"]]
    assert len(kept) == 21
    assert min(row["score"] for row in rows if row["kept"]) >= max(row["score"] for row in rows if not row["kept"])
    if kind != "explicit":
        prompts, answers = [row["prompt"] for row in rows], [row["completion"] for row in rows]
        mean_a_token = pair.score(prompts, answers, per_token=True)
        np.testing.assert_allclose([row["score"] for row in rows], mean_a_token, atol=1e-6)
    worst = min(rows, key=lambda row: row["score"])
    page = (out / "worst.md").read_text()
    assert page.count("## ") == 3
    assert f"## 1. row {worst['id'] + 1}: score" in page
    assert f"> {worst['completion']}" in page
    assert json.loads((out / "summary.json").read_text())["kept"] == 21
    train = ["sft", "--model", folders["policy"], "--train_data", str(out / "kept.jsonl"), "--max_steps", "1"]
    assert main([*train, "--output_dir", str(tmp_path / "sft"), "--dry_run"]) == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give one reward: --reward FOLDER"),
        (["--reward", "{reward}", "--policy", "{policy}"], "give one reward"),
        (["--reward", "{reward}", "--reference", "{reference}"], "--reference belongs to --policy"),
        (["--reward", "/nowhere"], "--reward /nowhere: no such folder"),
        (["--policy", "{policy}"], "no adapter whose absence could be the reference"),
        (["--policy", "{policy}", "--reference", "{policy}"], "every demonstration has the same reward, 0"),
        (["--reward", "{reward}", "--keep", "1.5"], "keep must be above 0 and at most 1"),
        (["--reward", "{reward}", "--kep", "0.5"], "--kep"),
    ],
)
def test_bad_input_ends_with_one_message(
    argv: list[str], message: str, folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = ["filter", "--data", folders["data"], *COLUMNS, "--output_dir", str(tmp_path / "o")]
    assert main([*full, *(text.format(**folders) for text in argv)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_empty_single_and_broken_are_named(
    folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    write_jsonl(tmp_path / "one.jsonl", [{"prompt": "a", "completion": "b"}])
    broken = RewardModel(tiny_classifier("llama", seed=3))
    with torch.no_grad():
        broken.backbone.score.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    broken.save_pretrained(tmp_path / "broken", tiny_tokenizer())
    for data, reward, message in (
        (tmp_path / "empty.jsonl", folders["reward"], "empty"),
        (tmp_path / "one.jsonl", folders["reward"], "at least two demonstrations to rank, got 1"),
        (folders["data"], str(tmp_path / "broken"), "the reward of row 1 is nan (30 of 30 are not finite)"),
    ):
        argv = ["filter", "--data", str(data), "--reward", reward, "--output_dir", str(tmp_path / "o")]
        assert main([*argv, *(COLUMNS if data == folders["data"] else [])]) == 2
        assert message in capsys.readouterr().err
