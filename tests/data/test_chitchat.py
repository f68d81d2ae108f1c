"""The dialogues come in the sizes they should, and no test pair is one that was trained on."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from rlsft.data import chitchat
from rlsft.errors import DataError

demo = pytest.mark.skipif(
    importlib.util.find_spec("chitchat_dataset") is None, reason="pip install --no-deps chitchat-dataset==0.9.0"
)
SIZES = {"train": (2583, 100_845), "validation": (340, 13_871), "test": (320, 15_859)}


@pytest.mark.demo
@demo
@pytest.mark.parametrize("split", SIZES)
def test_sizes_of_the_real_data(split: Any) -> None:
    conversations, pairs = SIZES[split]
    columns = chitchat.load(split).to_dict()
    assert chitchat.num_conversations(split) == len(set(columns["conversation_id"])) == conversations
    # What is missing from the raw count of pairs: empty turns, and in the later splits what an earlier one holds.
    assert 0.995 * pairs < len(columns["prompt"]) < pairs
    assert all(columns["prompt"])
    assert all(columns["completion"])


@pytest.mark.demo
@demo
def test_nothing_in_test_was_trained_on() -> None:
    pairs = {}
    for split in SIZES:
        columns = chitchat.load(split).to_dict()  # type: ignore[arg-type]
        pairs[split] = set(zip(columns["prompt"], columns["completion"], strict=True))
    assert not pairs["train"] & pairs["test"]
    assert not pairs["train"] & pairs["validation"]
    assert not pairs["validation"] & pairs["test"]


@pytest.mark.demo
@demo
def test_about_two_hundred_test_prompts_have_several_replies() -> None:
    found = chitchat.several_replies("test")
    assert 150 < len(found) < 250
    assert all(len(replies) == len(set(replies)) >= 2 for _, replies in found)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A hand-made data file; returns conversation id by split."""
    from rlsft.data.splits import split_of

    ids: dict[str, str] = {}
    for number in range(200):
        ids.setdefault(split_of(str(number)), str(number))

    def turns(*texts: str) -> dict[str, Any]:
        return {"messages": [[{"text": part} for part in text.split("|")] for text in texts]}

    data = {
        ids["train"]: turns("Hello?", "Hi!", " a | b ", "", "c"),
        ids["validation"]: turns("Hello?", "Hi!", "v1", "v2"),
        ids["test"]: turns("v1", "v2", "Hello?", "Hi!", "Hello?", "Yo!", "Hello?", "Yo!", "Hello?", "Hey!"),
        "stub": turns("x", "y", "z"),
    }
    (tmp_path / "dataset.json").write_text(json.dumps(data))
    monkeypatch.setattr(chitchat, "package_dir", lambda name: tmp_path)
    chitchat._conversations.cache_clear()
    chitchat._pairs.cache_clear()
    yield ids  # type: ignore[misc]
    chitchat._conversations.cache_clear()
    chitchat._pairs.cache_clear()


def test_pairs_by_hand(small: dict[str, str]) -> None:
    train = [(row["prompt"], row["completion"]) for row in chitchat.load("train")]
    assert train == [("Hello?", "Hi!"), ("Hi!", "a b")]  # messages joined, pairs with the empty turn dropped
    assert chitchat.load("train")["conversation_id"] == [small["train"]] * 2
    validation = [(row["prompt"], row["completion"]) for row in chitchat.load("validation")]
    assert validation == [("Hi!", "v1"), ("v1", "v2")]
    test = {(row["prompt"], row["completion"]) for row in chitchat.load("test")}
    assert ("Hello?", "Hi!") not in test
    assert ("v1", "v2") not in test
    assert ("v2", "Hello?") in test
    assert chitchat.several_replies("test") == [("Hello?", ["Yo!", "Hey!"])]


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(DataError, match="split must be one of train, validation, test, got 'dev'"):
        chitchat.load("dev")  # type: ignore[arg-type]
