"""What ranking returns: rows, pairs, explanations and a summary, as objects and as files."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsft.artifacts import atomic_path, read_jsonl, write_json, write_jsonl
from rlsft.errors import DataError
from rlsft.ranking.explain import Explanation
from rlsft.ranking.summary import describe

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

# Column -> Arrow type, in file order; "prompt" (and the sides of a pair) are strings or chat lists.
ROW_COLUMNS = {
    "prompt": "text",
    "completion": "string",
    "rank": "int64",
    "score": "float64",
    "cluster": "int64",
    "representative": "bool",
    "prompt_index": "int64",
    "response_index": "int64",
    "cluster_size": "int64",
    "cosine_to_demonstration": "float64",
    "cosine_rank": "int64",
}
# No column here may be named "margin": TRL's RewardTrainer would train on it.
PAIR_COLUMNS = {
    "prompt": "text",
    "chosen": "text",
    "rejected": "text",
    "chosen_rank": "int64",
    "rejected_rank": "int64",
    "rank_gap": "int64",
    "noise": "string",
    "rejected_without_noise": "string",
    "prompt_index": "int64",
    "chosen_index": "int64",
    "rejected_index": "int64",
}


class RankedResponses:
    """Ranked answers, the preference pairs made of them, and the reason for every rank.

    Attributes:
        rows: one dict an answer in the order given: `prompt`, `completion`, `rank` (1 = best of its prompt),
            `score`, `cluster`, `representative`, `prompt_index`, `response_index`, `cluster_size`,
            `cosine_to_demonstration` and `cosine_rank` (None without a demonstration).
        pairs: one dict a pair: `prompt`, `chosen`, `rejected`, the two ranks as in `rows`, `rank_gap` (their
            distance among the representatives), `noise` (kind or None), `rejected_without_noise`, indices.
    """

    def __init__(
        self,
        rows: list[dict[str, Any]],
        pairs: list[dict[str, Any]],
        summary: dict[str, Any],
        explain: Callable[[int, int], Explanation],
    ) -> None:
        self.rows = rows
        self.pairs = pairs
        self._summary = summary
        self._explain = explain

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        kept = self._summary["representatives"]
        return (
            f"RankedResponses({len(self.rows)} answers to {self._summary['prompts']} prompts, "
            f"m' = {kept['mean']:.2f} representatives a prompt, {len(self.pairs)} pairs)"
        )

    def __str__(self) -> str:
        return describe(self._summary)

    def explain(self, prompt_index: int, response_index: int) -> Explanation:
        """Why the answer `response_index` to prompt `prompt_index` (both from 0, as given) has its rank.

        Raises:
            DataError: there is no such answer, or it was empty and not ranked.
        """
        return self._explain(prompt_index, response_index)

    def summary(self) -> dict[str, Any]:
        """Counts, settings, m' (`representatives`), what was skipped and why, warnings, and
        `agreement_with_cosine`: Kendall tau and the rate of equal winners against plain cosine."""
        return copy.deepcopy(self._summary)

    def save(self, folder: str | os.PathLike[str]) -> dict[str, Path]:
        """Write ranked and pairs as JSONL and parquet, `explanations.jsonl` and `summary.json`; return the paths."""
        root = Path(folder)
        explanations = (
            {"text": reason.text, **reason.json}
            for reason in (self.explain(row["prompt_index"], row["response_index"]) for row in self.rows)
        )
        return {
            "ranked_jsonl": write_jsonl(root / "ranked.jsonl", self.rows),
            "ranked_parquet": _write_parquet(root / "ranked.parquet", self.rows, ROW_COLUMNS),
            "pairs_jsonl": write_jsonl(root / "pairs.jsonl", self.pairs),
            "pairs_parquet": _write_parquet(root / "pairs.parquet", self.pairs, PAIR_COLUMNS),
            "explanations_jsonl": write_jsonl(root / "explanations.jsonl", explanations),
            "summary_json": write_json(root / "summary.json", self._summary),
        }

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> RankedResponses:
        """What `save` wrote into `folder`, explanations included."""
        root = Path(folder)
        for name in ("ranked.jsonl", "pairs.jsonl", "explanations.jsonl", "summary.json"):
            if not (root / name).is_file():
                raise DataError(f"{root} holds no saved ranking: {name} is missing; rank again to write it")
        summary = json.loads((root / "summary.json").read_text(encoding="utf-8"))
        explanations = {
            (row["prompt_index"], row["response_index"]): row for row in read_jsonl(root / "explanations.jsonl")
        }
        return cls(
            read_jsonl(root / "ranked.jsonl"),
            read_jsonl(root / "pairs.jsonl"),
            summary,
            lambda prompt, response: _from_file(explanations, prompt, response),
        )

    def to_dataset(self) -> Dataset:
        """`rows` as a `datasets.Dataset`."""
        from datasets import Dataset

        return Dataset(_table(self.rows, ROW_COLUMNS))

    def pairs_dataset(self) -> Dataset:
        """`pairs` as a `datasets.Dataset` that TRL's RewardTrainer and DPOTrainer take as it is."""
        from datasets import Dataset

        return Dataset(_table(self.pairs, PAIR_COLUMNS))


def _from_file(explanations: dict[tuple[int, int], dict[str, Any]], prompt: int, response: int) -> Explanation:
    facts = explanations.get((prompt, response))
    if facts is None:
        raise DataError(f"the saved ranking has no explanation for response {response} to prompt {prompt}")
    return Explanation(facts["text"], {name: value for name, value in facts.items() if name != "text"})


def _write_parquet(path: Path, rows: list[dict[str, Any]], columns: dict[str, str]) -> Path:
    import pyarrow.parquet as pq

    with atomic_path(path) as partial:
        pq.write_table(_table(rows, columns), partial)
    return path


def _table(rows: list[dict[str, Any]], columns: dict[str, str]) -> pa.Table:
    """The rows with typed columns, so that a column of nulls or no rows at all keep their type."""
    import pyarrow as pa

    chat = bool(rows) and not isinstance(rows[0]["prompt"], str)
    arrays = []
    for name, kind in columns.items():
        values = [row[name] for row in rows]
        if kind == "text":
            arrays.append(pa.array(values) if chat else pa.array(values, pa.string()))
        else:
            arrays.append(pa.array(values, pa.type_for_alias(kind)))
    return pa.table(arrays, names=list(columns))
