"""Suites of the harness: one's own files without a network, presets as published, errors that say what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rlsft.artifacts import write_jsonl
from rlsft.errors import ConfigError, DataError
from rlsft.evaluation import LocalTask, read_local_task, run_suite
from rlsft.evaluation.suites import PRESETS, rows_of
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.training import sft_trainer

needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="needs pip install --no-deps -r requirements/eval.txt"
)

TOKENIZER = tiny_tokenizer()
ANSWERS = {"What is your food?": "Pizza, I like pizza.", "Was it fun?": "No, it rained.", "And the park?": "We went."}
CHOICES = [{"prompt": p, "choices": list(ANSWERS.values()), "answer": a} for p, a in ANSWERS.items()]
OPEN = [{"prompt": p, "answer": ["something else", a]} for p, a in ANSWERS.items()]


def task_of(folder: Path, name: str, rows: list[dict[str, Any]]) -> LocalTask:
    return read_local_task(write_jsonl(folder / f"{name}.jsonl", rows))


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that knows the three answers, taught through the chat template."""
    model = tiny_model("llama", seed=1)
    rows = [{"prompt": prompt, "completion": answer} for prompt, answer in ANSWERS.items()]
    folder = tmp_path_factory.mktemp("taught")
    sft_trainer(model, folder, rows, max_steps=80, learning_rate=1e-2).train()
    return model


@needs_harness
def test_a_taught_model_answers_in_the_template_it_was_taught_in(taught: Any, tmp_path: Path) -> None:
    wrong = [{**row, "answer": (list(ANSWERS).index(row["prompt"]) + 1) % 3} for row in CHOICES]
    tasks = [task_of(tmp_path, n, r) for n, r in (("choices", CHOICES), ("open", OPEN), ("wrong", wrong))]
    result = run_suite("local", taught, TOKENIZER, name="taught", tasks=tasks, output_dir=tmp_path / "out")
    assert result.chat_template
    counted = {row.task: row.value for row in result.rows if row.counts}
    assert counted == {"choices": 1.0, "open": 1.0, "wrong": 0.0}
    assert result.mean == pytest.approx(2 / 3)
    assert {row.metric for row in result.rows} == {"acc", "acc_norm", "exact_match", "token_f1"}
    assert {row.samples for row in result.rows} == {3}
    written = json.loads((tmp_path / "out" / "suite.json").read_text())
    version = importlib.metadata.version("lm_eval")
    assert written["harness"] == version
    assert [row["num_fewshot"] for row in written["rows"]] == [0] * 6
    page = (tmp_path / "out" / "suite.md").read_text()
    assert "| choices | 0 | acc | 100.00 |" in page
    assert f"lm-evaluation-harness {version}, with chat template." in page


def likelihoods(model: Any, prompt: str, choices: list[str]) -> list[float]:
    """Log-probability of each choice behind the prompt and a blank, from full logits."""
    found = []
    for choice in choices:
        begin = len(TOKENIZER(prompt)["input_ids"])
        ids = torch.tensor([TOKENIZER(f"{prompt} {choice}")["input_ids"]])
        with torch.no_grad():
            logs = model(ids).logits[0, :-1].double().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        found.append(float(logs[begin - 1 :].sum()))
    return found


@needs_harness
def test_multiple_choice_is_the_likeliest_choice(tmp_path: Path) -> None:
    model = tiny_model("llama", seed=5, initializer_range=0.2)
    rows = [
        {"prompt": f"What is {i}?", "choices": ["pizza", "the park and the rain", "a film"], "answer": i % 3}
        for i in range(12)
    ]
    right = 0
    for row in rows:
        scores = likelihoods(model, row["prompt"], row["choices"])
        right += scores.index(max(scores)) == row["answer"]
    assert 0 < right < 12
    result = run_suite(
        "local", lambda: model, TOKENIZER, name="m", tasks=[task_of(tmp_path, "t", rows)], chat_template=False
    )
    assert result.rows[0].value == pytest.approx(right / 12)
    assert result.rows[0].stderr == pytest.approx((right / 12 * (1 - right / 12) / 11) ** 0.5)
    lengths: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, args, kwargs: lengths.append(args[0].shape[1]), with_kwargs=True)
    few = run_suite(
        "local", model, TOKENIZER, name="m", tasks=[task_of(tmp_path, "t", rows)], num_fewshot=2, limit=5,
        chat_template=False,
    )  # fmt: skip
    hook.remove()
    alone = max(len(TOKENIZER(f"{row['prompt']} {choice}")["input_ids"]) for row in rows for choice in row["choices"])
    assert max(lengths) > 2 * alone  # the examples did stand before the question
    assert (few.rows[0].num_fewshot, few.rows[0].samples, few.limit) == (2, 5, 5)
    assert "the first 5 questions of each task only" in few.to_markdown()


def test_files_of_every_kind_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "name: mine\nnum_fewshot: 1\nmax_tokens: 9\n"
        "rows:\n  - {prompt: p, answer: a}\n  - {prompt: q, answer: [b, c]}\n"
    )
    task = read_local_task(tmp_path / "a.yaml")
    assert (task.name, task.kind, task.num_fewshot, task.max_tokens) == ("mine", "generation", 1, 9)
    assert [row["answer"] for row in task.rows] == [["a"], ["b", "c"]]
    (tmp_path / "b.json").write_text(json.dumps(CHOICES))
    task = read_local_task(tmp_path / "b.json")
    assert (task.name, task.kind) == ("b", "multiple_choice")
    assert [row["answer"] for row in task.rows] == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.json", "[", r"t\.json is not valid JSON"),
        ("t.yaml", "a: [", r"t\.yaml is not valid YAML"),
        ("t.json", "[]", "holds no questions"),
        ("t.yaml", "rowz: []", "unknown key 'rowz'; did you mean 'rows'"),
        (
            "t.json",
            '[{"prompt": "p", "answer": "a"}, {"prompt": " ", "answer": "a"}]',
            "row 2: 'prompt' must be a text",
        ),
        ("t.json", '[{"prompt": "p", "answer": []}]', "row 1: 'answer' must be a text or a list"),
        ("t.json", '[{"prompt": "p", "choices": ["a"], "answer": 0}]', "at least two texts"),
        ("t.json", '[{"prompt": "p", "choices": ["a", "a"], "answer": 0}]', "holds a text twice"),
        ("t.json", '[{"prompt": "p", "choices": ["a", "b"], "answer": 2}]', "place from 0 to 1, got 2"),
        ("t.json", '[{"prompt": "p", "choices": ["a", "b"], "answer": "c"}]', "one of the choices.* got 'c'"),
        ("t.yaml", "num_fewshot: 1\nrows: [{prompt: p, answer: a}]", "1 rows, too few for 1 examples"),
        ("t.yaml", "max_tokens: 0\nrows: [{prompt: p, answer: a}]", "max_tokens must be a whole number of at least 1"),
    ],
)
def test_broken_files_are_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_local_task(tmp_path / name)


def test_wrong_requests_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(tmp_path, "t", OPEN)
    options: dict[str, Any] = {"model": None, "tokenizer": TOKENIZER, "name": "m"}
    with pytest.raises(DataError, match="no such file"):
        read_local_task(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match=r"suite must be one of .* got 'leaderbord'; did you mean 'leaderboard'"):
        run_suite("leaderbord", **options)
    with pytest.raises(ConfigError, match="needs at least one task file"):
        run_suite("local", **options)
    with pytest.raises(ConfigError, match="fixes its tasks and examples"):
        run_suite("paper", tasks=[task], **options)
    with pytest.raises(ConfigError, match="two task files are named 't'"):
        run_suite("local", tasks=[task, task], **options)
    with pytest.raises(DataError, match="3 rows, too few for 3 examples"):
        run_suite("local", tasks=[task], num_fewshot=3, **options)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed: pip install --no-deps -r requirements/eval\.txt"):
        run_suite("local", tasks=[task], **options)


@needs_harness
def test_the_presets_differ_in_mmlu_alone_and_say_what_is_missing() -> None:
    """Without a network their data are missing; that is said before a model is loaded."""
    shots = {suite: {task: shots for task, shots, _ in plan} for suite, plan in PRESETS.items()}
    assert shots["leaderboard"] == {
        "arc_challenge": 25, "hellaswag": 10, "mmlu": 5, "truthfulqa_mc2": 0, "winogrande": 5, "gsm8k": 5,
    }  # fmt: skip
    assert shots["paper"] == {**shots["leaderboard"], "mmlu": 1}

    def never() -> Any:
        raise AssertionError("the model was loaded before the data were found missing")

    with pytest.raises(DataError, match="questions of 'arc_challenge' are not on this machine"):
        run_suite("paper", never, TOKENIZER, name="m")


def test_a_group_counts_once_and_the_strict_filter_first() -> None:
    """What the harness returns for mmlu (a group of subjects) and gsm8k (two filters), shortened."""
    mmlu = {
        "results": {
            "mmlu": {"acc,none": 0.5, "acc_stderr,none": 0.01, "alias": "mmlu", "sample_len": 7},
            "mmlu_law": {"acc,none": 0.9, "acc_stderr,none": 0.02},
        },
        "versions": {"mmlu": 2, "mmlu_law": 1},
        "n-shot": {"mmlu_law": 4, "mmlu_art": 4},
        "n-samples": {"mmlu_law": {"original": 9, "effective": 3}, "mmlu_art": {"original": 9, "effective": 4}},
    }
    (row,) = rows_of("mmlu", mmlu, 5, "acc")
    assert row.num_fewshot == 4  # as the harness says, not as it was asked
    assert (row.value, row.stderr, row.version, row.samples, row.counts) == (0.5, 0.01, "2", 7, True)
    gsm8k = {
        "results": {
            "gsm8k": {
                "exact_match,strict-match": 0.2, "exact_match_stderr,strict-match": "N/A",
                "exact_match,flexible-extract": 0.3,
            }
        },
        "n-samples": {"gsm8k": {"original": 5, "effective": 5}},
    }  # fmt: skip
    strict, flexible = rows_of("gsm8k", gsm8k, 5, "exact_match")
    assert (strict.metric, strict.counts, strict.stderr) == ("exact_match (strict-match)", True, None)
    assert (flexible.value, flexible.counts) == (0.3, False)
