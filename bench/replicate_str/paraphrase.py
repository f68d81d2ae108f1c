"""Prompts said otherwise by fixed rules, and what answers to them are compared by: agreement and contradiction.

A contradiction is counted where two answers to the same question say the same but for a negation. The rule is open to
inspection and crude: it sees neither antonyms ("cheap", "dear") nor two answers that contradict in other words, and a
double negation counts as two. It is a lower bound to compare methods by, not a measure of logic.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlsft.metrics import token_f1

EXPANSIONS = (
    (r"\b(I)'m\b", r"\1 am"), (r"\b(you|we|they)'re\b", r"\1 are"), (r"\b(it|that|what|he|she)'s\b", r"\1 is"),
    (r"\bdon't\b", "do not"), (r"\bdoesn't\b", "does not"), (r"\bdidn't\b", "did not"), (r"\bcan't\b", "cannot"),
    (r"\bwon't\b", "will not"), (r"\bisn't\b", "is not"), (r"\b(I|you|we|they)'ve\b", r"\1 have"),
    (r"\b(I|you|we|they|he|she|it)'ll\b", r"\1 will"),
)  # fmt: skip
NEGATIONS = re.compile(r"\b(?:not|no|never|none|nobody|nothing|cannot|without|\w+n't)\b", re.IGNORECASE)
SAME = 0.5  # token F1 without the negations from which two answers say the same


def said_otherwise(prompt: str) -> list[str]:
    """Two ways to say the prompt: contractions written out or an opening word, and the last mark left out."""
    expanded = prompt
    for pattern, replacement in EXPANSIONS:
        expanded = re.sub(pattern, replacement, expanded, flags=re.IGNORECASE)
    if expanded == prompt:
        expanded = "Well, " + prompt[0].lower() + prompt[1:] if not prompt.startswith("I ") else "Well, " + prompt
    unmarked = prompt.rstrip(" .!?")
    if unmarked in ("", prompt):
        unmarked = prompt + "."
    return [expanded, unmarked]


def self_consistency(answers: Sequence[str], others: Sequence[Sequence[str]]) -> float:
    """Mean token F1 of the answer to a prompt with those to its paraphrases, 0 to 1."""
    scores = [token_f1(answer, other) for answer, group in zip(answers, others, strict=True) for other in group]
    return sum(scores) / len(scores)


def contradiction_rate(answers: Sequence[str], others: Sequence[Sequence[str]]) -> float:
    """Share of paraphrases whose answer turns the first round."""
    found = [contradicts(answer, other) for answer, group in zip(answers, others, strict=True) for other in group]
    return sum(found) / len(found)


def contradicts(a: str, b: str) -> bool:
    """The same words but for one with a negation and one without."""
    negated = [len(NEGATIONS.findall(text)) % 2 == 1 for text in (a, b)]
    rest = [NEGATIONS.sub(" ", text) for text in (a, b)]
    return negated[0] != negated[1] and token_f1(rest[0], rest[1]) >= SAME
