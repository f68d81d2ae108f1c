"""Human small talk (BYU Chit-Chat): one turn is the prompt, the reply the demonstration; split by conversation.

The small model that all methods of a seed start from was pretrained on single turns of the training conversations: it
knows the language and not how to answer. No text of the dialogues is written to a row or a report: they are not
screened. The judge learns from the validation conversations, which nothing here touches.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Literal

from bench.replicate.scratch import small_bpe, small_gpt2, trained_on

Rows = list[dict[str, Any]]

LONGEST_PROMPT, LONGEST_REPLY = 24, 16  # words
WIDTH, LAYERS, VOCABULARY, POSITIONS = 128, 3, 1500, 96
PRETRAINING_STEPS = 400
MAX_LENGTH, COMPLETION_TOKENS = 72, 28


def pretrained(seed: int, folder: Path) -> tuple[Any, Any]:
    """The model of a seed and the tokenizer of all seeds."""
    everything = pairs("train")
    turns = [{"text": row["completion"]} for row in shuffled(everything, seed)[: 32 * PRETRAINING_STEPS]]
    tokens = small_bpe([row["prompt"] + "\n" + row["completion"] for row in everything[:20_000]], VOCABULARY)
    model = small_gpt2(len(tokens), seed, width=WIDTH, layers=LAYERS, positions=POSITIONS, end=tokens.eos_token_id)
    settings = {"steps": PRETRAINING_STEPS, "seed": seed, "max_length": MAX_LENGTH}
    return trained_on(model, tokens, turns, folder / "pretraining", **settings), tokens


def demonstrations(seed: int, count: int) -> Rows:
    """Training pairs of a seed: `prompt`, `completion`."""
    return shuffled(pairs("train"), seed + 1)[:count]


def held_out(count: int) -> Rows:
    """Distinct test prompts, the same for every seed, each with every reply that people gave (`references`)."""
    found: dict[str, list[str]] = {}
    for row in pairs("test"):
        replies = found.setdefault(row["prompt"], [])
        if row["completion"] not in replies:
            replies.append(row["completion"])
    rows = [{"prompt": prompt, "references": replies} for prompt, replies in found.items()]
    return shuffled(rows, 0)[:count]


def pairs(split: Literal["train", "validation", "test"]) -> Rows:
    """Short turns with short replies."""
    from rlsft.data import chitchat

    return [
        {"prompt": row["prompt"], "completion": row["completion"]}
        for row in chitchat.load(split)
        if 2 <= len(row["prompt"].split()) <= LONGEST_PROMPT and 2 <= len(row["completion"].split()) <= LONGEST_REPLY
    ]


def shuffled(rows: list[Any], seed: int) -> list[Any]:
    """In an order of the seed's own."""
    return random.Random(seed).sample(rows, len(rows))
