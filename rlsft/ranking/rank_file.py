"""Rank what a file holds: one row a prompt with its responses, or one row a response."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlsft.data import load_examples
from rlsft.errors import DataError
from rlsft.ranking.inputs import Prompt, prompt_key
from rlsft.ranking.pipeline import rank_responses
from rlsft.ranking.results import RankedResponses

_DEMONSTRATION_COLUMNS = ("demonstration", "completion")


class CandidateFile(NamedTuple):
    """What `rank_responses` takes, as read from a file."""

    prompts: list[Prompt]
    responses: list[list[str]]
    demonstrations: list[str | None] | None


def rank_file(
    path: str | os.PathLike[str],
    *,
    column_map: Mapping[str, str] | str | None = None,
    limit: int | None = None,
    **options: Any,
) -> RankedResponses:
    """`rank_responses` over a JSONL, JSON, CSV or parquet file; see `read_candidates` for its rows.

    `options` are the keyword arguments of `rank_responses`, all but the demonstrations, which the file holds.
    """
    found = read_candidates(path, column_map=column_map, limit=limit)
    return rank_responses(found.prompts, found.responses, demonstrations=found.demonstrations, **options)


def read_candidates(
    path: str | os.PathLike[str],
    *,
    column_map: Mapping[str, str] | str | None = None,
    limit: int | None = None,
) -> CandidateFile:
    """Read prompts with their responses.

    Rows are either `prompt, responses[, demonstration]` with a list (in CSV: a JSON list) a row, or
    `prompt, response[, demonstration]` with one response a row, grouped by equal prompts. `completion` is read as
    the demonstration, or as the response where there is no other column for it.

    Args:
        path: any file or folder that `rlsft.data.load_examples` reads.
        column_map: our column names to yours.
        limit: first rows only; None: all.

    Raises:
        DataError: a column is missing or holds something else; the message names it.
    """
    dataset = load_examples(path, column_map=column_map, limit=limit)
    columns = dataset.column_names
    if "prompt" not in columns:
        raise DataError(f"{path} has no column 'prompt' (found {_named(columns)}); {_remedy('prompt')}")
    rows = dataset.to_list()
    if "responses" in columns:
        return _one_row_a_prompt(rows, _demonstration_column(columns, None), path)
    response = next((name for name in ("response", "completion") if name in columns), None)
    if response is None:
        raise DataError(
            f"{path} has neither a column 'responses' (a list a row) nor 'response' (one a row), found "
            f"{_named(columns)}; {_remedy('responses')}"
        )
    return _one_row_a_response(rows, response, _demonstration_column(columns, response))


def _demonstration_column(columns: Sequence[str], response: str | None) -> str | None:
    return next((name for name in _DEMONSTRATION_COLUMNS if name in columns and name != response), None)


def _one_row_a_prompt(
    rows: list[dict[str, Any]], demonstration: str | None, path: str | os.PathLike[str]
) -> CandidateFile:
    return CandidateFile(
        [row["prompt"] for row in rows],
        [_response_list(row["responses"], number, path) for number, row in enumerate(rows, start=1)],
        None if demonstration is None else [_text(row[demonstration]) for row in rows],
    )


def _one_row_a_response(rows: list[dict[str, Any]], response: str, demonstration: str | None) -> CandidateFile:
    prompts: dict[str, Prompt] = {}
    responses: dict[str, list[str]] = {}
    shown: dict[str, str | None] = {}
    for row in rows:
        key = prompt_key(row["prompt"])
        prompts.setdefault(key, row["prompt"])
        responses.setdefault(key, []).append(_text(row[response]) or "")
        if demonstration is not None:
            shown[key] = shown.get(key) or _text(row[demonstration])
    return CandidateFile(
        list(prompts.values()),
        list(responses.values()),
        None if demonstration is None else list(shown.values()),
    )


def _response_list(value: Any, number: int, path: str | os.PathLike[str]) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = None
    if not isinstance(value, list):
        raise DataError(
            f"{path}, row {number}: 'responses' must be a list of strings (in CSV written as JSON, such as "
            f'["one", "two"]); for one response a row name the column \'response\''
        )
    return [_text(one) or "" for one in value]


def _text(value: Any) -> str | None:
    """A response or demonstration as text; of a chat list the content of its last message."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        return str(value[-1].get("content") or "")
    return None if value is None else str(value)


def _named(columns: Sequence[str]) -> str:
    return ", ".join(map(repr, columns))


def _remedy(ours: str) -> str:
    return f"rename yours, or say which it is: column_map='{ours}=<your column>'"
