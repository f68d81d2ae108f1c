"""Human small talk (BYU Chit-Chat): one turn is the prompt, the reply the demonstration; split by conversation.

The model was pretrained on single turns of the training conversations, so that it knows the language and not how to
answer. No text of the dialogues is written to a row or a report: they are not screened.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Literal

from bench.replicate_str.paraphrase import said_otherwise
from bench.replicate_str.task import Budget, Rows, Task

LONGEST_PROMPT, LONGEST_REPLY = 24, 16  # words
WIDTH, LAYERS, VOCABULARY, POSITIONS = 128, 3, 1500, 96
PRETRAINING_STEPS = 400
MAX_LENGTH, COMPLETION_TOKENS = 72, 28
BUDGET = Budget(
    train=4000, held_out=1100, steps=300, rank_prompts=200, reward_steps=120, pairs_per_prompt=6, lora_rate=3e-3,
    missing_eos_penalty=0.1, kl_coef=0.5,
)  # fmt: skip


def dialogues(seed: int, budget: Budget, folder: Path) -> Task:
    """The same held-out prompts for every seed; a paraphrase follows fixed rules."""
    from bench.replicate_str.models import small_bpe, small_gpt2, trained_on

    everything = pairs("train")
    turns = [{"text": row["completion"]} for row in shuffled(everything, seed)[: 32 * PRETRAINING_STEPS]]
    tokens = small_bpe([row["prompt"] + "\n" + row["completion"] for row in everything[:20_000]], VOCABULARY)
    model = small_gpt2(len(tokens), seed, width=WIDTH, layers=LAYERS, positions=POSITIONS, end=tokens.eos_token_id)
    pretrained = trained_on(
        model, tokens, turns, folder / "pretraining", steps=PRETRAINING_STEPS, seed=seed, max_length=MAX_LENGTH
    )
    return Task(
        name="dialogues", seed=seed, tokenizer=tokens, pretrained=pretrained,
        train=shuffled(everything, seed + 1)[: budget.train], held_out=held_out(budget.held_out), encoder="minilm",
        max_length=MAX_LENGTH, completion_tokens=COMPLETION_TOKENS, paraphrases=said_otherwise, budget=budget,
        folder=folder, judge=judge(),
    )  # fmt: skip


def pairs(split: Literal["train", "validation", "test"]) -> Rows:
    """Short turns with short replies."""
    from rlsft.data import chitchat

    return [
        {"prompt": row["prompt"], "completion": row["completion"]}
        for row in chitchat.load(split)
        if 2 <= len(row["prompt"].split()) <= LONGEST_PROMPT and 2 <= len(row["completion"].split()) <= LONGEST_REPLY
    ]


def held_out(count: int) -> Rows:
    """Distinct test prompts, each with every reply that people gave."""
    found: dict[str, list[str]] = {}
    for row in pairs("test"):
        replies = found.setdefault(row["prompt"], [])
        if row["completion"] not in replies:
            replies.append(row["completion"])
    rows = [{"prompt": prompt, "references": replies} for prompt, replies in found.items()]
    return shuffled(rows, 0)[:count]


def shuffled(rows: list[Any], seed: int) -> list[Any]:
    """In an order of the seed's own."""
    return random.Random(seed).sample(rows, len(rows))


def judge() -> Any:
    return None
