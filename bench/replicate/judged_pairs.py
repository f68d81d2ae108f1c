"""Pairs that the judge learns from and is measured on: validation conversations, which no method is trained on.

A person's reply to a prompt stands against, by turns, a person's reply to something else and the same reply damaged.
"""

from __future__ import annotations

import random
from typing import Literal

KINDS = ("other", "damaged")
LONGEST_PROMPT, LONGEST_REPLY = 30, 24  # words
SEED = 7


def pairs(side: Literal["train", "test"], count: int, *, skip: int = 0) -> list[dict[str, str]]:
    """`prompt`, `chosen`, `rejected`, `kind`; four fifths of the conversations to learn from, one to test on."""
    from rlsft.data import chitchat

    chance = random.Random(SEED)
    rows = [row for row in chitchat.load("validation") if short(row["prompt"], LONGEST_PROMPT)]
    rows = [row for row in rows if short(row["completion"], LONGEST_REPLY)]
    conversations = sorted({row["conversation_id"] for row in rows})
    chance.shuffle(conversations)
    tested = set(conversations[: len(conversations) // 5])
    kept = [row for row in rows if (row["conversation_id"] in tested) == (side == "test")]
    chance.shuffle(kept)
    last = min(skip + count, len(kept) - 1)
    return [pair(kept[i], kept[i + 1], KINDS[i % 2], chance) for i in range(last)][skip:]


def pair(row: dict[str, str], other: dict[str, str], kind: str, chance: random.Random) -> dict[str, str]:
    """A person's reply, and what is worse."""
    worse = other["completion"] if kind == "other" else damaged(row["completion"], chance)
    return {"prompt": row["prompt"], "chosen": row["completion"], "rejected": worse, "kind": kind}


def damaged(text: str, chance: random.Random) -> str:
    """The words in another order, some of them again and again, or cut off in the middle."""
    words = text.split()
    way = chance.choice(("shuffled", "repeated", "cut"))
    if way == "cut" and len(words) > 3:
        return " ".join(words[: len(words) // 2])
    if way == "shuffled" and len(set(words)) > 2:
        found = list(words)
        while found == words:
            chance.shuffle(found)
        return " ".join(found)
    start = chance.randrange(len(words))
    piece = words[start : start + 3]
    return " ".join(words[:start] + piece * chance.choice((3, 4)) + words[start + 3 :])


def short(text: str, longest: int) -> bool:
    """Between two words and `longest`."""
    return 2 <= len(text.split()) <= longest
