"""Every file type loads to the same rows, and every fault is named by file, line and column."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict
from pyarrow import parquet

from rlsft.data import load_examples, parse_column_map
from rlsft.errors import DataError

ROWS = [
    {"prompt": "How are you?", "completion": 'Fine, "thank you".'},
    {"prompt": "元気ですか。", "completion": "はい、\n元気です。"},
    {"prompt": "2 + 2?", "completion": "4"},
]


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    """`rows` in the format of the path's extension."""
    text = {
        ".jsonl": lambda: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        ".json": lambda: json.dumps(rows),
        ".csv": lambda: separated(rows, ","),
        ".tsv": lambda: separated(rows, "\t"),
    }
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        parquet.write_table(pa.Table.from_pylist(rows), path)
        return path
    data = text[Path(name).suffix]().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def separated(rows: list[dict[str, Any]], delimiter: str) -> str:
    def quoted(value: str) -> str:
        return '"' + value.replace('"', '""') + '"'

    lines = [delimiter.join(rows[0]), *(delimiter.join(quoted(value) for value in row.values()) for row in rows)]
    return "\r\n".join(lines) + "\r\n"


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a.ndjson.jsonl", "a.json", "a.csv", "a.tsv", "a.parquet", "a.jsonl.gz", "a.csv.gz", "a.json.gz"],
)
def test_every_file_type_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    loaded = load_examples(write(tmp_path / name))
    assert loaded.to_list() == ROWS
    assert load_examples(tmp_path / name, limit=2).to_list() == ROWS[:2]


def test_a_dataset_folder_and_the_splits_of_a_dict(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    assert load_examples(tmp_path / "one").to_list() == ROWS
    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "single")
    assert load_examples(tmp_path / "single").to_list() == ROWS
    both = DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:1])})
    both.save_to_disk(tmp_path / "both")
    assert load_examples(tmp_path / "both", split="test").to_list() == ROWS[:1]
    with pytest.raises(DataError, match=r"holds the splits train, test; name one"):
        load_examples(tmp_path / "both")


def test_chat_lists_survive_jsonl_and_parquet(tmp_path: Path) -> None:
    chats = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}]
    for name in ("a.jsonl", "a.parquet"):
        assert load_examples(write(tmp_path / name, chats)).to_list() == chats


def test_an_object_that_holds_the_list(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"version": 1, "data": ROWS, "other": []}))
    assert load_examples(tmp_path / "a.json").to_list() == ROWS
    (tmp_path / "b.json").write_text(json.dumps({"version": 1, "examples": ROWS}))
    assert load_examples(tmp_path / "b.json").to_list() == ROWS
    (tmp_path / "c.json").write_text(json.dumps({"a": [], "b": []}))
    with pytest.raises(DataError, match=r"must be a list of objects or .* got an object with the keys 'a', 'b'"):
        load_examples(tmp_path / "c.json")


def test_a_byte_order_mark_and_empty_lines_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + separated(ROWS, ",").encode())
    assert load_examples(tmp_path / "a.csv").column_names == ["prompt", "completion"]
    (tmp_path / "a.jsonl").write_text('\n{"prompt": "a"}\n\n{"prompt": "b"}\n')
    assert load_examples(tmp_path / "a.jsonl")["prompt"] == ["a", "b"]


def test_a_broken_line_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b"\n{"prompt": "c"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: not valid JSON .*'\{\"prompt\": \"b\"'.*mend or delete"):
        load_examples(path)
    assert load_examples(path, limit=1)["prompt"] == ["a"]  # a later fault does not matter to a short look
    path.write_text('{"prompt": "a"}\n["prompt"]\n')
    with pytest.raises(DataError, match=r"line 2: expected a JSON object like .* got list"):
        load_examples(path)


def test_broken_json_and_jsonl_under_the_wrong_name(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n{"prompt": }\n]')
    with pytest.raises(DataError, match=r"a\.json, line 2: not valid JSON"):
        load_examples(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    with pytest.raises(DataError, match=r"one object a line: rename it to \.jsonl"):
        load_examples(tmp_path / "b.json")
    (tmp_path / "c.json").write_text('[{"prompt": "a"}, 3]')
    with pytest.raises(DataError, match=r"entry 1: expected a JSON object, got int"):
        load_examples(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "prompt,completion\na,b,c\n",
            r"line 2: 3 values for 2 columns \(prompt, completion\); a value that contains ','",
        ),
        ("prompt,completion\na\n", "line 2: 1 values for 2 columns"),
        ("prompt;completion\na;b\n", "separated by ';', not ','"),
        ("prompt,prompt\na,b\n", "has the column 'prompt' twice"),
        ("prompt,completion\n", "has no rows"),
        ("\n", "no header line"),
        ('prompt,completion\n"a,b\n', "not valid CSV"),
    ],
)
def test_faults_of_csv(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_examples(tmp_path / "a.csv")


def test_csv_keeps_numbers_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,completion\n1,007\n2,\n")
    assert load_examples(tmp_path / "a.csv")["completion"] == ["007", ""]


def test_mixed_types_name_both_rows(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "completion": None}, {"prompt": "b", "completion": "x"}, {"prompt": "c", "completion": 7}]
    message = r"column 'completion' mixes types: text in line 2, a number in line 3 \('7'\)"
    with pytest.raises(DataError, match=message):
        load_examples(write(tmp_path / "a.jsonl", rows))
    with pytest.raises(DataError, match=r"text in entry 1, a number in entry 2"):
        load_examples(write(tmp_path / "a.json", rows))


def test_missing_empty_and_unknown_files(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl")
    with pytest.raises(DataError, match=r"train\.json does not exist; did you mean .*train\.jsonl"):
        load_examples(tmp_path / "train.json")
    with pytest.raises(DataError, match=r"its folder .* does not exist either"):
        load_examples(tmp_path / "nowhere" / "a.jsonl")
    (tmp_path / "zero.jsonl").touch()
    with pytest.raises(DataError, match=r"zero\.jsonl is empty \(0 bytes\)"):
        load_examples(tmp_path / "zero.jsonl")
    (tmp_path / "blank.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match=r"has no rows"):
        load_examples(tmp_path / "blank.jsonl")
    (tmp_path / "blank.json").write_text(" \n")
    with pytest.raises(DataError, match=r"blank\.json is empty"):
        load_examples(tmp_path / "blank.json")
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(DataError, match=r"unknown extension '\.xlsx'; expected \.jsonl"):
        load_examples(tmp_path / "a.xlsx")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"not a folder written by datasets' save_to_disk \(found nothing\)"):
        load_examples(tmp_path / "folder")


def test_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("not parquet")
    with pytest.raises(DataError, match=r"a\.parquet is not a readable parquet file"):
        load_examples(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}\n' * 1000)[:40])
    with pytest.raises(DataError, match=r"not a whole gzip file"):
        load_examples(tmp_path / "a.jsonl.gz")
    (tmp_path / "b.jsonl.gz").write_text('{"prompt": "a"}\n')
    with pytest.raises(DataError, match=r"not a whole gzip file"):
        load_examples(tmp_path / "b.jsonl.gz")
    (tmp_path / "sjis.csv").write_bytes("prompt,completion\n元気,はい\n".encode("shift_jis"))
    with pytest.raises(DataError, match=r"is not UTF-8 text .* iconv -f SHIFT_JIS -t UTF-8 sjis\.csv > utf8\.csv"):
        load_examples(tmp_path / "sjis.csv")


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"limit must be at least 1 or None, got 0"):
        load_examples(write(tmp_path / "a.jsonl"), limit=0)


FOREIGN = [{"question": "a", "answer": "b", "id": 1}]


def test_column_map_renames_ours_from_theirs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", FOREIGN)
    expected = {"prompt": "a", "completion": "b", "id": 1}
    assert load_examples(path, column_map={"prompt": "question", "completion": "answer"})[0] == expected
    assert load_examples(path, column_map="prompt=question, completion = answer")[0] == expected


def test_column_map_may_swap_and_replace(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "p", "completion": "c", "better": "b"}])
    swapped = load_examples(path, column_map="prompt=completion,completion=prompt")[0]
    assert swapped == {"prompt": "c", "completion": "p", "better": "b"}
    assert load_examples(path, column_map="completion=better")[0] == {"prompt": "p", "completion": "b"}


@pytest.mark.parametrize(
    ("column_map", "message"),
    [
        (
            "prompt=questoin",
            r"no such column \(found 'question', 'answer', 'id'\); did you mean column_map='prompt=question'",
        ),
        ("prompt=zzz", r"has no column 'zzz' \(found 'question', 'answer', 'id'\)"),
        ("question=prompt", r"reads our name = yours, .*write column_map='prompt=question'"),
        ("prompt", "must look like 'prompt=question,completion=answer'"),
        ("prompt=question,completion=question", "uses your column 'question' for two of ours"),
        ("prompt=question,prompt=answer", "names 'prompt' twice"),
    ],
)
def test_faults_of_column_map(tmp_path: Path, column_map: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_examples(write(tmp_path / "a.jsonl", FOREIGN), column_map=column_map)


def test_parse_column_map_accepts_nothing_and_mappings() -> None:
    assert parse_column_map(None) == parse_column_map("") == parse_column_map({}) == {}
    assert parse_column_map({"prompt": "q"}) == {"prompt": "q"}
