"""The BYU Chit-Chat dialogues (package `chitchat-dataset`, MIT): human to human, split by conversation.

The text was not screened for personal or offensive content: print samples with care and commit none of it.
"""

from __future__ import annotations

import functools
import json
from itertools import pairwise
from typing import TYPE_CHECKING

from rlsft.data.assets import package_dir
from rlsft.data.splits import SPLITS, Split, split_of
from rlsft.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

Pair = tuple[str, str, str]  # prompt, completion, conversation id


def load(split: Split, *, min_turns: int = 4) -> Dataset:
    """Neighbouring turns as demonstrations: one turn is the prompt, the answer to it the completion.

    Pairs with an empty turn are dropped, and in validation and test those that an earlier split holds word for word
    ("Hello?" / "Hi!"), so that nothing trained on is tested.

    Args:
        split: "train", "validation" or "test", by the hash of the conversation.
        min_turns: shorter conversations are left out; most of those below 4 are stubs.

    Returns:
        Columns `prompt`, `completion`, `conversation_id`.

    Raises:
        DataError: the package is missing, or the split is unknown.
    """
    from datasets import Dataset

    pairs = _pairs(_check_split(split), min_turns)
    return Dataset.from_dict(
        {
            "prompt": [prompt for prompt, _, _ in pairs],
            "completion": [completion for _, completion, _ in pairs],
            "conversation_id": [conversation for _, _, conversation in pairs],
        }
    )


def several_replies(split: Split, *, min_turns: int = 4) -> list[tuple[str, list[str]]]:
    """Prompts that people answered in at least two different ways, each with its distinct replies in order.

    Args:
        split: see `load`.
        min_turns: see `load`.

    Raises:
        DataError: see `load`.
    """
    replies: dict[str, dict[str, None]] = {}
    for prompt, completion, _ in _pairs(_check_split(split), min_turns):
        replies.setdefault(prompt, {})[completion] = None
    return [(prompt, list(found)) for prompt, found in replies.items() if len(found) >= 2]


def num_conversations(split: Split, *, min_turns: int = 4) -> int:
    """How many conversations of at least `min_turns` turns the split has."""
    return len(_conversations(min_turns)[_check_split(split)])


def _check_split(split: str) -> Split:
    if split not in SPLITS:
        raise DataError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return split  # type: ignore[return-value]


@functools.cache
def _pairs(split: Split, min_turns: int) -> list[Pair]:
    conversations = _conversations(min_turns)
    earlier = {
        (prompt, completion)
        for side in SPLITS[: SPLITS.index(split)]
        for prompt, completion, _ in _neighbours(conversations[side])
    }
    return [pair for pair in _neighbours(conversations[split]) if pair[:2] not in earlier]


def _neighbours(conversations: dict[str, list[str]]) -> list[Pair]:
    return [
        (prompt, completion, key)
        for key, turns in conversations.items()
        for prompt, completion in pairwise(turns)
        if prompt and completion
    ]


@functools.cache
def _conversations(min_turns: int) -> dict[Split, dict[str, list[str]]]:
    path = package_dir("chitchat_dataset") / "dataset.json"
    sides: dict[Split, dict[str, list[str]]] = {side: {} for side in SPLITS}
    for key, conversation in json.loads(path.read_text(encoding="utf-8")).items():
        # One turn is all that a writer sent before the other answered.
        turns = [" ".join(m["text"].strip() for m in group).strip() for group in conversation["messages"]]
        if len(turns) >= min_turns:
            sides[split_of(key)][key] = turns
    return sides
