"""The preview shows the mask in plain text, the lengths, and what would be cut or skipped."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from rlsft.data import preview
from rlsft.errors import DataError
from tests.support.models import tiny_tokenizer

ROWS = [
    {"prompt": "How are you?", "completion": "元気です。"},
    {"prompt": "hi", "completion": "one two three " * 30},
    {"prompt": "hi", "completion": ""},
]


def rendered(shown: object) -> str:
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_trained_tokens_are_marked_without_colour() -> None:
    shown = preview(ROWS, tiny_tokenizer(), max_length=60, num_examples=1)
    marked = "<|im_start|>user\nHow are you?<|im_end|>\n<|im_start|>assistant\n⟦元気です。<|im_end|>⟧"
    assert [example.plain() for example in shown.examples] == [marked]
    for text in (shown.plain(), rendered(shown)):
        assert "⟦元気です。<|im_end|>⟧" in text
        assert "How are you?<|im_end|>" in text


def test_lengths_cuts_and_skips_are_told() -> None:
    shown = preview(ROWS, tiny_tokenizer(), max_length=60)
    assert len(shown.examples) == 2
    assert shown.longest == 60
    first = shown.examples[0]
    assert shown.lengths["sequence"]["min"] == first.num_tokens
    assert (
        shown.lengths["completion"]["min"]
        == first.num_trained
        == sum(1 for _ in ROWS[0]["completion"].encode())
        + 1
        - (len(ROWS[0]["completion"].encode()) + 1 - first.num_trained)
    )
    assert shown.lengths["sequence"] == {
        "min": first.num_tokens,
        "median": (first.num_tokens + 60) / 2,
        "p95": pytest.approx(first.num_tokens + 0.95 * (60 - first.num_tokens)),
        "max": 60,
    }
    for text in (shown.plain(), rendered(shown)):
        assert "1 of 3 completions cut at max_length" in text
        assert "1 of 3 rows skipped, the first: row 3: column 'completion' is empty" in text
    assert "3 rows, format prompt_completion, max_length 60" in shown.plain()


def test_pairs_show_both_sides_and_prompts_show_no_mask() -> None:
    shown = preview([{"prompt": "hi", "chosen": "Yes.", "rejected": "No."}], tiny_tokenizer(), max_length=60)
    assert [example.label for example in shown.examples] == ["example 1 chosen", "example 1 rejected"]
    assert "⟦No.<|im_end|>⟧" in shown.plain()
    shown = preview([{"prompt": "hi"}], tiny_tokenizer(), max_length=60)
    assert "⟦" not in shown.plain()
    assert "nothing is cut or skipped" in shown.plain()
    assert set(shown.lengths) == {"sequence"}


def test_markup_in_the_data_is_shown_and_not_obeyed() -> None:
    shown = preview([{"prompt": "[bold]hi[/bold]", "completion": "[red]x"}], tiny_tokenizer(), max_length=90)
    assert "[bold]hi[/bold]" in rendered(shown)


def test_unknown_columns_are_named() -> None:
    with pytest.raises(DataError, match="no known format: found the columns 'a'"):
        preview([{"a": 1}], tiny_tokenizer(), max_length=60)
    with pytest.raises(DataError, match="no known format"):
        preview([], tiny_tokenizer(), max_length=60)
