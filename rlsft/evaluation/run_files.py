"""What a run directory holds, read with patience: a missing or cut-off file is an absence, not an error."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlsft.errors import DataError, RunError
from rlsft.evaluation.comparison import Comparison
from rlsft.evaluation.records import Generation, read_generations


class RunFiles:
    """Readers for the files that a run leaves.

    `evaluation/table.json` is `Comparison.to_json()`. `evaluation/agreement.json` is
    `{"description": str, "rows": [{"label": str, "mean": x, "low": x, "high": x, "n": int, "chance": x |
    null}]}`.

    Raises:
        RunError: the folder does not exist.
    """

    def __init__(self, run_dir: str | os.PathLike[str]) -> None:
        self.path = Path(run_dir)
        if not self.path.is_dir():
            raise RunError(f"run directory {self.path} does not exist; give the --output_dir of a run")

    def facts(self) -> dict[str, Any]:
        """run.json: versions, git, seed, argv, `stage_seconds`, `stage_tokens`."""
        return self._object("run.json")

    def settings(self) -> dict[str, Any]:
        """rlsft_config.yaml."""
        file = self.path / "rlsft_config.yaml"
        if not file.is_file():
            return {}
        import yaml

        value = yaml.safe_load(file.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}

    def metrics(self) -> list[dict[str, Any]]:
        """Rows of metrics.jsonl; a last line that a kill cut off is left out."""
        return list(self._lines("metrics.jsonl"))

    def comparison(self) -> Comparison | None:
        """evaluation/table.json."""
        value = self._object("evaluation/table.json")
        return Comparison.from_json(value) if value else None

    def agreement(self) -> dict[str, Any]:
        """evaluation/agreement.json."""
        return self._object("evaluation/agreement.json")

    def generations(self) -> list[Generation]:
        """evaluation/generations.jsonl."""
        file = self.path / "evaluation" / "generations.jsonl"
        return read_generations(file) if file.is_file() else []

    def stage_tokens(self) -> dict[str, int]:
        """Tokens of each stage: `num_tokens` in its done.json, `stage_tokens` of run.json where it has none."""
        found = dict(self.facts().get("stage_tokens") or {})
        for file in sorted(self.path.glob("*/done.json")):
            count = self._object(f"{file.parent.name}/done.json").get("num_tokens")
            if isinstance(count, int):
                found[file.parent.name] = count
        return found

    def num_pairs(self) -> tuple[int | None, int]:
        """Lines of ranked/pairs.jsonl (None without the file), and how many of them hold added noise."""
        if not (self.path / "ranked" / "pairs.jsonl").is_file():
            return None, 0
        has_noise = [bool(row.get("noise")) for row in self._lines("ranked/pairs.jsonl")]
        return len(has_noise), sum(has_noise)

    def explanations(self, example: list[dict[str, Any]]) -> list[str]:
        """The texts of ranked/explanations.jsonl that explain the rows of `ranked_example`."""
        wanted = {(row.get("prompt_index"), row.get("response_index")): row.get("rank") for row in example}
        found = [
            (wanted[key], str(row["text"]))
            for row in self._lines("ranked/explanations.jsonl")
            if (key := (row.get("prompt_index"), row.get("response_index"))) in wanted and row.get("text")
        ]
        return [text for _, text in sorted(found, key=lambda item: (item[0] is None, item[0]))]

    def num_ranked(self) -> int | None:
        """Lines of ranked/ranked.jsonl, None without the file."""
        return self._count("ranked/ranked.jsonl")

    def ranked_example(self, *, max_answers: int = 16) -> list[dict[str, Any]]:
        """The ranked answers of the prompt that shows most: several clusters, several different answers."""
        best: list[dict[str, Any]] = []
        for group in self._ranked_groups(limit=200):
            if _interest(group) > _interest(best):
                best = group
        return sorted(best, key=lambda row: -float(row["score"]))[:max_answers]

    def _ranked_groups(self, *, limit: int) -> Iterator[list[dict[str, Any]]]:
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in self._lines("ranked/ranked.jsonl"):
            if not isinstance(row.get("completion"), str) or not isinstance(row.get("score"), (int, float)):
                continue
            key = json.dumps(row.get("prompt"), ensure_ascii=False)
            if key not in groups and len(groups) >= limit:
                break
            groups.setdefault(key, []).append(row)
        yield from groups.values()

    def _object(self, name: str) -> dict[str, Any]:
        file = self.path / name
        if not file.is_file():
            return {}
        try:
            value = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise DataError(f"{file} is not valid JSON ({error.msg}, line {error.lineno}); make it again") from None
        if not isinstance(value, dict):
            raise DataError(f"{file} must hold a JSON object, got {type(value).__name__}")
        return value

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        file = self.path / name
        if not file.is_file():
            return
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue
                if isinstance(row, dict):
                    yield row

    def _count(self, name: str) -> int | None:
        file = self.path / name
        if not file.is_file():
            return None
        with file.open(encoding="utf-8") as lines:
            return sum(bool(line.strip()) for line in lines)


def _interest(group: list[Mapping[str, Any]] | list[dict[str, Any]]) -> tuple[int, int]:
    """Prompts with some clusters but not one an answer explain the method best."""
    texts = {row["completion"] for row in group}
    clusters = {row.get("cluster") for row in group}
    return (min(len(clusters), max(1, len(texts) // 2)), len(texts))
