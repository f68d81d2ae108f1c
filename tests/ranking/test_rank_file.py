"""Ranking from files: both row forms, every kind of file, and the table on the terminal."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlsft.artifacts import write_jsonl
from rlsft.errors import DataError
from rlsft.ranking import rank_file, rank_responses, read_candidates, render

WIDE = [
    {"prompt": "Hello?", "responses": ["Hi there!", "Hi you.", "Go away now."], "demonstration": "Hi there, you."},
    {"prompt": "Tea?", "responses": ["Yes please.", "No."], "demonstration": None},
]
LONG = [
    {"prompt": "Hello?", "response": "Hi there!"},
    {"prompt": "Tea?", "response": "Yes please."},
    {"prompt": "Hello?", "response": "Hi you."},
    {"prompt": "Hello?", "response": "Go away now."},
    {"prompt": "Tea?", "response": "No."},
]
CHAT = [{"role": "user", "content": "Hello?"}]


def test_one_row_a_prompt(tmp_path: Path) -> None:
    found = read_candidates(write_jsonl(tmp_path / "wide.jsonl", WIDE))
    assert found.prompts == ["Hello?", "Tea?"]
    assert found.responses == [row["responses"] for row in WIDE]
    assert found.demonstrations == ["Hi there, you.", None]


def test_one_row_a_response_is_grouped_by_prompt(tmp_path: Path) -> None:
    found = read_candidates(write_jsonl(tmp_path / "long.jsonl", LONG))
    assert found.prompts == ["Hello?", "Tea?"]
    assert found.responses == [row["responses"] for row in WIDE]
    assert found.demonstrations is None


def test_csv_holds_a_json_list_or_one_response_a_row(tmp_path: Path) -> None:
    wide, long = tmp_path / "wide.csv", tmp_path / "long.csv"
    with wide.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "responses"])
        writer.writerows([row["prompt"], json.dumps(row["responses"])] for row in WIDE)
    with long.open("w", newline="", encoding="utf-8") as file:
        dict_writer = csv.DictWriter(file, ["prompt", "response"])
        dict_writer.writeheader()
        dict_writer.writerows(LONG)
    assert read_candidates(wide).responses == read_candidates(long).responses == [row["responses"] for row in WIDE]


def test_parquet_and_chat_prompts(tmp_path: Path) -> None:
    ranked = rank_responses([CHAT], [WIDE[0]["responses"]])
    path = ranked.save(tmp_path)["ranked_parquet"]
    found = read_candidates(path)  # our own output: `completion` is the response
    assert found.prompts == [CHAT]
    assert found.responses == [WIDE[0]["responses"]]


def test_completion_is_the_demonstration_beside_responses(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "responses": ["a b", "c d"], "completion": "a b"}]
    assert read_candidates(write_jsonl(tmp_path / "x.jsonl", rows)).demonstrations == ["a b"]


def test_foreign_names_go_through_the_column_map(tmp_path: Path) -> None:
    rows = [{"question": "p", "answers": ["a b", "c d"]}]
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    found = read_candidates(path, column_map={"prompt": "question", "responses": "answers"})
    assert found.responses == [["a b", "c d"]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "p", "responses": ["a"]}], "has no column 'prompt' .*column_map='prompt=<your column>'"),
        ([{"prompt": "p", "answers": ["a"]}], "neither a column 'responses' .* nor 'response'"),
        ([{"prompt": "p", "responses": "no list"}], "row 1: 'responses' must be a list of strings"),
    ],
)
def test_wrong_columns_are_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_candidates(write_jsonl(tmp_path / "x.jsonl", rows))


def test_rank_file_equals_rank_responses(tmp_path: Path) -> None:
    ranked = rank_file(write_jsonl(tmp_path / "wide.jsonl", WIDE), rank_interval=1, seed=5)
    direct = rank_responses(
        [row["prompt"] for row in WIDE],
        [row["responses"] for row in WIDE],
        demonstrations=[row["demonstration"] for row in WIDE],
        rank_interval=1,
        seed=5,
    )
    assert ranked.rows == direct.rows
    assert ranked.pairs == direct.pairs


def test_the_table_has_ranks_marks_cosines_and_reasons(tmp_path: Path) -> None:
    ranked = rank_file(write_jsonl(tmp_path / "wide.jsonl", WIDE))
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(render(ranked, max_prompts=1))
    text = console.export_text()
    for part in (
        "Prompt 0: Hello?",
        "rank",
        "★",
        "cosine (its rank)",
        "Answer 0 is ranked 1 of 3",
        "and 1 more prompts",
    ):
        assert part in text
    assert "Representatives a prompt, m':" in text
    assert "Tea?" not in text


def test_markup_in_an_answer_is_printed_as_it_is() -> None:
    ranked = rank_responses(["[bold]p"], [["[red]one[/red] two", "[/] three"]])
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(render(ranked))
    text = console.export_text()
    assert "[bold]p" in text
    assert "[red]one[/red] two" in text
