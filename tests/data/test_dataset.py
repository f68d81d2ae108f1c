"""Whole datasets: what is kept, cut and skipped is counted, a bad row is named by its number."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Dataset

from rlsft.data import encode_dataset, encode_demonstration, encode_pair, encode_prompt
from rlsft.errors import DataError
from tests.support.models import tiny_tokenizer

GOOD = {"prompt": "hi", "completion": "Hello!", "topic": "a"}
LONG_ANSWER = {"prompt": "hi", "completion": "one two three " * 20, "topic": "b"}
LONG_PROMPT = {"prompt": "one two three " * 20, "completion": "yes", "topic": "c"}
EMPTY = {"prompt": "hi", "completion": "", "topic": "d"}


def test_rows_are_those_of_encode_demonstration_and_columns_are_kept() -> None:
    tokenizer = tiny_tokenizer()
    encoded, report = encode_dataset(Dataset.from_list([GOOD]), tokenizer, max_length=50, keep_columns=["topic"])
    assert encoded.to_list() == [{**encode_demonstration(GOOD, tokenizer, max_length=50), "topic": "a"}]
    assert report.lines() == []


def test_pairs_and_prompts() -> None:
    tokenizer = tiny_tokenizer()
    pair = {"prompt": "hi", "chosen": "Yes.", "rejected": "No."}
    encoded, _ = encode_dataset([pair], tokenizer, kind="pair", max_length=50)
    assert encoded.to_list() == [encode_pair(pair, tokenizer, max_length=50)]
    encoded, _ = encode_dataset([{"prompt": "hi"}], tokenizer, kind="prompt", max_length=50, system_prompt="S")
    assert encoded.to_list() == [{"input_ids": encode_prompt("hi", tokenizer, system_prompt="S")}]


def test_the_first_bad_row_is_named() -> None:
    with pytest.raises(DataError, match=r"^row 2: column 'completion' is empty"):
        encode_dataset([GOOD, EMPTY], tiny_tokenizer(), max_length=50)
    with pytest.raises(DataError, match=r"^row 1: prompt has \d+ tokens, which leaves no room"):
        encode_dataset([LONG_PROMPT], tiny_tokenizer(), max_length=50)


def test_skipped_and_cut_rows_are_counted() -> None:
    rows = [GOOD, EMPTY, LONG_ANSWER, LONG_PROMPT, *[EMPTY] * 9]
    encoded, report = encode_dataset(rows, tiny_tokenizer(), max_length=50, skip_bad_rows=True)
    assert len(encoded) == 2
    assert (report.num_rows, report.num_skipped, report.num_truncated_completions) == (13, 11, 1)
    assert len(report.problems) == 5
    assert report.problems[0].startswith("row 2: ")
    assert report.lines()[0].startswith("1 of 13 completions cut at max_length: they lost their end token")
    assert report.lines()[-1].startswith("11 of 13 rows skipped, the first: row 2")
    encoded, report = encode_dataset([GOOD, LONG_PROMPT], tiny_tokenizer(), max_length=50, truncate_prompt=True)
    assert len(encoded) == 2
    assert report.num_truncated_prompts == 1


def test_a_lost_end_token_alone_counts_as_cut() -> None:
    length = len(encode_demonstration(GOOD, tiny_tokenizer(), max_length=50)["input_ids"])
    assert encode_dataset([GOOD], tiny_tokenizer(), max_length=length)[1].num_truncated_completions == 0
    assert encode_dataset([GOOD], tiny_tokenizer(), max_length=length - 1)[1].num_truncated_completions == 1


@pytest.mark.parametrize(("rows", "message"), [([], "the data has no rows"), ([EMPTY], "1 skipped.*row 1: ")])
def test_nothing_left_is_an_error(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=f"no row could be encoded.*{message}"):
        encode_dataset(rows, tiny_tokenizer(), max_length=50, skip_bad_rows=True)
