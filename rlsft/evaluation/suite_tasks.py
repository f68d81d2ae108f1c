"""The user's own questions as tasks of lm-evaluation-harness: multiple choice and short answers, no network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from rlsft.artifacts import read_jsonl
from rlsft.errors import DataError, did_you_mean
from rlsft.metrics import exact_match, token_f1

Kind = Literal["multiple_choice", "generation"]
_KEYS = ("name", "rows", "num_fewshot", "max_tokens")
_MAX_TOKENS = 64


@dataclass(frozen=True)
class LocalTask:
    """Questions of one kind from one file.

    Multiple choice: rows of `prompt`, `choices` (strings) and `answer` (the place from 0, or the choice itself); the
    likeliest choice counts (`acc`; `acc_norm` by characters). Generation: rows of `prompt` and `answer` (a string, or
    a list of accepted ones); the answer up to the first line break is compared (`exact_match`, `token_f1`).
    """

    name: str
    kind: Kind
    rows: tuple[Mapping[str, Any], ...]
    num_fewshot: int = 0
    max_tokens: int = _MAX_TOKENS  # of a generated answer

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("acc", "acc_norm") if self.kind == "multiple_choice" else ("exact_match", "token_f1")

    def to_harness(self, num_fewshot: int | None = None) -> dict[str, Any]:
        """The configuration that the harness takes; examples come from the file's other rows."""
        import datasets

        data = datasets.DatasetDict({"test": datasets.Dataset.from_list([dict(row) for row in self.rows])})
        config: dict[str, Any] = {
            "task": self.name,
            "dataset_path": "json",
            "custom_dataset": lambda **_: data,
            "test_split": "test",
            "fewshot_split": "test",
            "num_fewshot": self.num_fewshot if num_fewshot is None else num_fewshot,
            "doc_to_text": "{{prompt}}",
            "metric_list": [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in self.metrics],
        }
        if self.kind == "multiple_choice":
            return config | {
                "output_type": "multiple_choice",
                "doc_to_choice": "{{choices}}",
                "doc_to_target": "answer",
            }
        return config | {
            "output_type": "generate_until",
            "doc_to_target": "{{answer[0]}}",
            "process_results": partial(_score_generation),
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": self.max_tokens, "do_sample": False},
        }


def _score_generation(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    return {
        "exact_match": exact_match(doc["answer"], results[0].strip()),
        "token_f1": token_f1(doc["answer"], results[0].strip()),
    }


def read_local_task(path: str | os.PathLike[str]) -> LocalTask:
    """A task file: JSONL or a JSON/YAML list of rows, or a mapping of `rows` with `name`, `num_fewshot`, `max_tokens`.

    Raises:
        DataError: no such file, no rows, or a row that is no question; named by file and number.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"--task {file}: no such file")
    found = _parsed(file)
    settings: dict[str, Any] = {}
    if isinstance(found, Mapping):
        settings, found = {k: v for k, v in found.items() if k != "rows"}, found.get("rows")
        for key in settings:
            if key not in _KEYS:
                raise DataError(f"{file}: unknown key {key!r}{did_you_mean(key, _KEYS)}")
    if not isinstance(found, list) or not found:
        raise DataError(f"{file} holds no questions; expected a list of rows with prompt and answer (and choices)")
    kind: Kind = "multiple_choice" if isinstance(found[0], Mapping) and "choices" in found[0] else "generation"
    check = _choice_row if kind == "multiple_choice" else _generation_row
    task = LocalTask(
        name=str(settings.get("name", file.stem)),
        kind=kind,
        rows=tuple(check(row, f"{file}, row {number}") for number, row in enumerate(found, start=1)),
        num_fewshot=_count(settings, "num_fewshot", 0, 0, file),
        max_tokens=_count(settings, "max_tokens", _MAX_TOKENS, 1, file),
    )
    check_shots(task, task.num_fewshot)
    return task


def check_shots(task: LocalTask, num_fewshot: int) -> None:
    """Raise a DataError unless the file has an example for each shot beside the question asked."""
    if num_fewshot >= len(task.rows):
        raise DataError(
            f"task {task.name!r} has {len(task.rows)} rows, too few for {num_fewshot} examples beside the question"
        )


def _parsed(file: Path) -> Any:
    try:
        if file.suffix == ".jsonl":
            return read_jsonl(file)
        text = file.read_text(encoding="utf-8")
        return json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{file} is not valid {'JSON' if file.suffix == '.json' else 'YAML'}: {error}") from None


def _count(settings: Mapping[str, Any], name: str, default: int, least: int, file: Path) -> int:
    value = settings.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise DataError(f"{file}: {name} must be a whole number of at least {least}, got {value!r}")
    return value


def _prompt(row: Any, where: str) -> str:
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected a mapping with prompt and answer, got {type(row).__name__}")
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError(f"{where}: 'prompt' must be a text, got {prompt!r}")
    return prompt


def _choice_row(row: Any, where: str) -> dict[str, Any]:
    prompt, choices, answer = _prompt(row, where), row.get("choices"), row.get("answer")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c.strip() for c in choices):
        raise DataError(f"{where}: 'choices' must be a list of at least two texts, got {choices!r}")
    if len(set(choices)) < len(choices):
        raise DataError(f"{where}: 'choices' holds a text twice: {choices!r}")
    if isinstance(answer, str) and answer in choices:
        answer = choices.index(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise DataError(
            f"{where}: 'answer' must be one of the choices, or its place from 0 to {len(choices) - 1}, got {answer!r}"
        )
    return {"prompt": prompt, "choices": choices, "answer": answer}


def _generation_row(row: Any, where: str) -> dict[str, Any]:
    prompt, answer = _prompt(row, where), row.get("answer")
    accepted = [answer] if isinstance(answer, str) else answer
    if not isinstance(accepted, list) or not accepted or not all(isinstance(a, str) and a.strip() for a in accepted):
        raise DataError(f"{where}: 'answer' must be a text or a list of accepted texts, got {answer!r}")
    return {"prompt": prompt, "answer": accepted}
