"""The rows of a chain: demonstrations in one form, distinct prompts, seeded choices, nothing on both sides."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from rlsft.errors import DataError


def demonstrations(dataset: Any, name: str) -> list[dict[str, Any]]:
    """`prompt` + `completion` rows of a dataset in any format of `rlsft.data`.

    Raises:
        DataError: no rows, or rows without a prompt and a completion.
    """
    from rlsft.data import as_demonstrations, completion_text

    rows = [row | {"completion": completion_text(row["completion"])} for row in as_demonstrations(dataset, name)]
    if not rows:
        raise DataError(f"{name} has no rows")
    return rows


def refuse_shared_prompts(train: Sequence[Mapping[str, Any]], held_out: Sequence[Mapping[str, Any]]) -> None:
    """A held-out row that also stands in the training set measures memory: prompt and answer both equal are refused."""
    seen = {row_key(row) for row in train}
    shared = [row for row in held_out if row_key(row) in seen]
    if shared:
        raise DataError(
            f"eval_dataset shares {len(shared)} of {len(held_out)} rows with train_dataset (first prompt: "
            f"{str(shared[0]['prompt'])[:60]!r}); split by conversation before pairing"
        )


def hold_out(rows: Sequence[dict[str, Any]], percent: int = 10) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training rows and held-out rows: by the hash of the prompt, so that equal prompts stay on one side.

    Raises:
        DataError: too few distinct prompts to hold any out.
    """
    from rlsft.data import prompt_text, split_of

    held_out = [
        split_of(prompt_text(row["prompt"]), test_percent=percent, validation_percent=0) == "test" for row in rows
    ]
    train = [row for row, out in zip(rows, held_out, strict=True) if not out]
    test = [row for row, out in zip(rows, held_out, strict=True) if out]
    if not train or not test:
        raise DataError(
            f"{len(rows)} rows are too few to hold {percent} % of their prompts out for the evaluation; "
            "give eval_dataset (--eval_data) yourself"
        )
    return train, test


def row_key(row: Mapping[str, Any]) -> str:
    """Text of prompt and completion, for comparing rows."""
    return json.dumps([row["prompt"], row.get("completion")], ensure_ascii=False, sort_keys=True)


def distinct_prompts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first row of each prompt, in order."""
    first: dict[str, dict[str, Any]] = {}
    for row in rows:
        first.setdefault(json.dumps(row["prompt"], ensure_ascii=False, sort_keys=True), dict(row))
    return list(first.values())


def chosen(rows: list[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """`count` rows, seeded, in their own order; all of them when there are fewer."""
    if count >= len(rows):
        return rows
    return [rows[i] for i in sorted(random.Random(seed).sample(range(len(rows)), count))]


def rows_hash(rows: Sequence[Mapping[str, Any]]) -> str:
    """Short hash of the data, so that a run is not continued on other rows."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(row_key(row).encode("utf-8"))
    return f"{len(rows)} rows, {digest.hexdigest()[:12]}"


def held_out_prompts(rows: Sequence[Mapping[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """`count` distinct prompts, seeded, each with every human answer to it as a reference."""
    grouped: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = json.dumps(row["prompt"], ensure_ascii=False, sort_keys=True)
        entry = grouped.setdefault(key, {**row, "references": []})
        if row["completion"] not in entry["references"]:
            entry["references"].append(row["completion"])
    return chosen(list(grouped.values()), count, seed)
