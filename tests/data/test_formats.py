"""Formats are known by their columns, and each row comes out as prompt and answer."""

from __future__ import annotations

from typing import Any

import pytest

from rlsft.data import (
    as_demonstrations,
    completion_text,
    demonstration_of,
    detect_format,
    preference_of,
    prompt_text,
    require_columns,
)
from rlsft.errors import DataError

USER = {"role": "user", "content": "hi"}
BOT = {"role": "assistant", "content": "hello"}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["prompt", "completion", "id"], "prompt_completion"),
        (["messages"], "messages"),
        (["text"], "text"),
        (["prompt", "chosen", "rejected", "margin"], "preference"),
        (["chosen", "rejected"], "preference"),
        (["prompt", "id"], "prompt"),
        (["prompt", "completion", "rank", "score", "cluster"], "prompt_completion"),
    ],
)
def test_formats_by_columns(columns: list[str], expected: str) -> None:
    assert detect_format(columns) == expected


def test_unknown_columns_get_a_column_map_that_guesses() -> None:
    message = r"found the columns 'id', 'Question', 'answer'; expected .*column_map='prompt=Question,completion=answer'"
    with pytest.raises(DataError, match=message):
        detect_format(["id", "Question", "answer"])
    with pytest.raises(DataError, match=r"found the columns \(none\)"):
        detect_format([])


def test_a_missing_column_is_named_with_the_nearest() -> None:
    with pytest.raises(
        DataError, match=r"x\.csv has no column 'prompt' \(found 'promt', 'b'\); did you mean 'promt'\?"
    ):
        require_columns(["promt", "b"], ["prompt"], source="x.csv")
    with pytest.raises(DataError, match=r"column_map='prompt=YOUR_COLUMN'"):
        require_columns(["zzz"], ["prompt"])


def test_demonstrations_of_every_format() -> None:
    assert demonstration_of({"prompt": "a", "completion": "b"}) == ("a", "b")
    assert demonstration_of({"prompt": [USER], "completion": [BOT]}) == ([USER], [BOT])
    assert demonstration_of({"text": "abc"}) == ("", "abc")
    assert demonstration_of({"prompt": "a", "chosen": "b", "rejected": "c"}) == ("a", "b")
    turns = [USER, BOT, USER, BOT, BOT]
    assert demonstration_of({"messages": turns}) == (turns[:3], turns[3:])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": ""}, "column 'completion' is empty"),
        ({"prompt": "a", "completion": None}, "column 'completion' is null"),
        ({"prompt": None, "completion": "a"}, "column 'prompt' is null"),
        ({"prompt": "a", "completion": 3}, "column 'completion' must be a string or a chat list .* got int: '3'"),
        ({"prompt": "a", "completion": ["b"]}, "must be a string or a chat list .* got list"),
        ({"prompt": [], "completion": "b"}, "column 'prompt' is an empty chat list"),
        ({"prompt": [USER], "completion": [{"role": "assistant", "content": " "}]}, "last assistant turn is empty"),
        ({"messages": [USER]}, "must end with an assistant turn to learn from, got role 'user' last"),
        ({"messages": [BOT]}, "only assistant turns"),
        ({"messages": "hello"}, "got a string; did you mean the column 'text'"),
        (
            {"messages": [{"from": "human", "value": "x"}]},
            "message 0: expected the keys 'role' and 'content'.*ShareGPT",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}, BOT]}, "content must be text"),
        ({"id": 1}, "row has no demonstration: its columns are 'id'"),
    ],
)
def test_faults_of_demonstrations(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        demonstration_of(row)


def test_preferences_with_the_prompt_inside_or_beside() -> None:
    other = {"role": "assistant", "content": "go away"}
    assert preference_of({"prompt": "a", "chosen": "b", "rejected": "c"}) == ("a", "b", "c")
    assert preference_of({"chosen": [USER, BOT], "rejected": [USER, other]}) == ([USER], [BOT], [other])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same answer"),
        ({"prompt": "a", "chosen": "b"}, "column 'rejected' is null"),
        ({"chosen": "b", "rejected": "c"}, "needs a 'prompt' column"),
        ({"chosen": [USER, BOT], "rejected": [BOT]}, "share no first message"),
        ({"chosen": [USER, BOT], "rejected": [USER, BOT, BOT]}, "is the start of the other"),
    ],
)
def test_faults_of_preferences(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        preference_of(row)


def test_texts_for_people() -> None:
    assert prompt_text("a") == "a"
    assert prompt_text([USER]) == "hi"
    assert prompt_text([USER, BOT]) == "user: hi\nassistant: hello"
    assert completion_text([BOT, BOT]) == "hello\nhello"
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert prompt_text(parts) == "ab"


def test_as_demonstrations_keeps_other_columns_and_names_the_row() -> None:
    rows = [{"messages": [USER, BOT], "conversation_id": "c"}]
    assert as_demonstrations(rows) == [{"prompt": [USER], "completion": [BOT], "conversation_id": "c"}]
    with pytest.raises(DataError, match="train_dataset, row 2: column 'completion' is empty"):
        as_demonstrations([{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": ""}], "train_dataset")
