"""`rlsft eval --pairs` and `rlsft eval --suite` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlsft.artifacts import write_jsonl
from rlsft.cli.main import main
from rlsft.evaluation import logprob_gap
from tests.support.models import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("measured")
    for name, seed in (("one", 1), ("two", 2)):
        tiny_model("llama", seed=seed, initializer_range=0.2).save_pretrained(root / name)
        tiny_tokenizer().save_pretrained(root / name)
    rows = [{"question": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No" + " no" * i} for i in range(6)]
    write_jsonl(root / "pairs.jsonl", rows)
    write_jsonl(root / "task.jsonl", [{"prompt": f"{i}?", "choices": ["a", "b"], "answer": "b"} for i in range(4)])
    return {path.stem: str(path) for path in root.iterdir()}


def test_pairs_of_two_models(folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["eval", "--pairs", folders["pairs"], "--column_map", "prompt=question", "--output_dir", str(tmp_path)]
    assert main([*argv, "--model", folders["one"], "--model", folders["two"]]) == 0
    out = capsys.readouterr().out
    assert f"{folders['two']}: gap " in out
    assert f"against {folders['one']}" in out
    one, two = json.loads((tmp_path / "logprob_gap.json").read_text())
    assert two["change"]["mean"] == pytest.approx(two["gap"]["mean"] - one["gap"]["mean"])
    assert one["pairs"] == 6
    rows = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No" + " no" * i} for i in range(6)]
    expected = logprob_gap(tiny_model("llama", seed=1, initializer_range=0.2), tiny_tokenizer(), rows)
    assert one["gap"]["mean"] == pytest.approx(expected.gap.mean, abs=1e-5)


def test_the_local_suite(folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lm_eval", reason="needs pip install --no-deps -r requirements/eval.txt")
    argv = ["eval", "--suite", "local", "--model", folders["one"], "--task", folders["task"], "--num_fewshot", "1"]
    assert main([*argv, "--output_dir", str(tmp_path), "--no_chat_template"]) == 0
    assert "| task | 1 | acc |" in capsys.readouterr().out
    assert json.loads((tmp_path / "suite.json").read_text())["chat_template"] is False


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--before is required to compare two models"),
        (["--before", "{one}"], "--after is required"),
        (["--pairs", "{pairs}"], "--model is required with --pairs and --suite"),
        (["--pairs", "{pairs}", "--suite", "local"], "--pairs or --suite, not both"),
        (["--pairs", "{task}", "--model", "{one}"], "no column 'chosen'"),
        (["--suite", "local", "--model", "{one}"], "needs at least one task file"),
        (["--suite", "lokal", "--model", "{one}"], "did you mean 'local'"),
        (["--suite", "local", "--model", "{one}", "--model", "{two}"], "one --model"),
        (["--suite", "local", "--model", "{one}", "--task", "/none.json"], "--task /none.json: no such file"),
    ],
)
def test_bad_input_ends_with_one_message(
    argv: list[str], message: str, folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--output_dir", str(tmp_path / "o"), *(text.format(**folders) for text in argv)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "o").exists()
