"""Questions whose answers can be looked up: what does an adverb mean? WordNet 3.0, one to several right answers each.

Adverbs, because a model trained from scratch can learn something about words it has not seen from how they are made
("in a quiet manner"), and because 666 of the 3,622 have several senses. The model was pretrained on adjectives.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from bench.replicate_str.task import Budget, Rows, Task

TEMPLATES = ("What does '{}' mean?", "Define '{}'.", "The meaning of '{}' is what?")
LONGEST = 12  # words of a definition
WIDTH, LAYERS, VOCABULARY, POSITIONS = 64, 2, 500, 96
PRETRAINING_STEPS = 150
BUDGET = Budget(
    train=2500, held_out=200, steps=200, rank_prompts=120, reward_steps=60, pairs_per_prompt=6, episodes=512,
    lora_rate=1e-2, adapter_rate=1e-2, bitfit_rate=3e-2, kl_coef=0.5,
)  # fmt: skip


def wordnet(seed: int, budget: Budget, folder: Path) -> Task:
    """Words are split by their hash, the same for every seed; a paraphrase is another way to ask."""
    from bench.replicate.scratch import small_bpe, small_gpt2, trained_on

    train, held_out = split(budget)
    adjectives = [
        {"prompt": question(word), "completion": text}
        for word, senses in sorted(definitions("adj").items())
        for text in senses
    ]
    tokens = small_bpe([row["prompt"] + "\n" + row["completion"] for row in adjectives + train], VOCABULARY)
    model = small_gpt2(len(tokens), seed, width=WIDTH, layers=LAYERS, positions=POSITIONS, end=tokens.eos_token_id)
    pretrained = trained_on(
        model, tokens, shuffled(adjectives, seed)[: 32 * PRETRAINING_STEPS], folder / "pretraining",
        steps=PRETRAINING_STEPS, seed=seed, max_length=64,
    )  # fmt: skip
    return Task(
        name="wordnet", seed=seed, tokenizer=tokens, pretrained=pretrained, train=shuffled(train, seed)[: budget.train],
        held_out=held_out, encoder="minilm", max_length=64, completion_tokens=24, paraphrases=asked_otherwise,
        budget=budget, folder=folder,
    )  # fmt: skip


def split(budget: Budget) -> tuple[Rows, Rows]:
    """Rows of a sense each to train on, and words to be asked, with every sense as a reference."""
    words = sorted(definitions("adv"), key=place_of)
    asked, learned = words[: budget.held_out], words[budget.held_out :]
    train = [{"prompt": question(word), "completion": text} for word in learned for text in definitions("adv")[word]]
    return train, [{"prompt": question(word), "references": list(definitions("adv")[word])} for word in asked]


def question(word: str) -> str:
    """One of the templates, always the same for a word."""
    return TEMPLATES[place_of(word) % len(TEMPLATES)].format(word)


def asked_otherwise(prompt: str) -> list[str]:
    """The same question in the other templates."""
    for template in TEMPLATES:
        before, after = template.split("{}")
        if prompt.startswith(before) and prompt.endswith(after):
            word = prompt[len(before) : len(prompt) - len(after)]
            return [other.format(word) for other in TEMPLATES if other != template]
    raise ValueError(f"prompt must follow one of the templates, got {prompt!r}")


def place_of(word: str) -> int:
    """A number that depends on the word alone."""
    return int(hashlib.sha256(word.encode()).hexdigest()[:8], 16)


def shuffled(rows: Rows, seed: int) -> Rows:
    """In an order of the seed's own."""
    import random

    return random.Random(seed).sample(rows, len(rows))


@cache
def definitions(part: str) -> dict[str, list[str]]:
    """Words in lower case and their short definitions, from WordNet's data file of a part of speech (adv, adj)."""
    from rlsft.data import assets

    root = assets.wordnet()
    if root is None:
        raise FileNotFoundError("WordNet 3.0 is not installed: apt-get install wordnet-base wordnet-sense-index")
    found: dict[str, list[str]] = {}
    text = (root / "corpora" / "wordnet" / f"data.{part}").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("  "):  # the licence
            continue
        head, gloss = line.split(" | ", 1)
        fields = head.split()
        definition = gloss.split(";")[0].strip()
        if not 1 <= len(definition.split()) <= LONGEST:
            continue
        for number in range(int(fields[3], 16)):
            word = fields[4 + 2 * number].split("(")[0]
            if word.isalpha() and word.islower():
                found.setdefault(word, []).append(definition)
    return found
