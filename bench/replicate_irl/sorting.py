"""A task whose true reward is known: put six digits in order. Some of the demonstrations may be bad.

A bad demonstration is the same six digits in a random order: fluent, on topic, wrong. The paper's claim that learned
rewards survive low-quality data (arXiv 2405.17888) is tested by how the share of good answers falls with theirs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast, set_seed

DIGITS = 6
SPECIAL = ("<unk>", "<s>", "</s>")
VOCABULARY = (*SPECIAL, "=", *"0123456789")


@dataclass(frozen=True)
class Demonstrations:
    """Training rows of which a share is bad, and held-out prompts with the right and a wrong answer."""

    train: list[dict[str, str]]
    held_out: list[dict[str, str]]  # prompt, chosen, rejected


def tokenizer() -> Any:
    """One token a digit; no chat template: the prompt is used as it stands."""
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token=SPECIAL[0]))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token=SPECIAL[0], bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[2]
    )


def model(seed: int) -> PreTrainedModel:
    """A decoder of two layers, 75 thousand weights, drawn anew for each seed."""
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def demonstrations(seed: int, *, bad: float, train: int = 2000, held_out: int = 256) -> Demonstrations:
    """Distinct prompts; exactly the share `bad` of the training answers is shuffled."""
    chance = random.Random(seed)
    prompts: dict[str, list[str]] = {}
    while len(prompts) < train + held_out:
        digits = [chance.choice("0123456789") for _ in range(DIGITS)]
        if sorted(digits) != digits:
            prompts.setdefault(" ".join(digits) + " =", digits)
    rows = list(prompts.items())
    wrong = set(chance.sample(range(train), round(bad * train)))
    learned = [
        {"prompt": prompt, "completion": " " + answer_of(digits, i in wrong, chance)}
        for i, (prompt, digits) in enumerate(rows[:train])
    ]
    kept = [
        {
            "prompt": prompt,
            "chosen": " " + answer_of(digits, False, chance),
            "rejected": " " + answer_of(digits, True, chance),
        }
        for prompt, digits in rows[train:]
    ]
    return Demonstrations(learned, kept)


def answer_of(digits: list[str], wrong: bool, chance: random.Random) -> str:
    """The digits in order, or in an order that is not right."""
    right = sorted(digits)
    found = list(right)
    while wrong and found == right:
        chance.shuffle(found)
    return " ".join(found)


def true_reward(prompt: str, answer: str) -> float:
    """Share of the places that hold the right digit; too long an answer is a share of its own length."""
    right = sorted(prompt.split()[:DIGITS])
    given = answer.split()
    return sum(a == b for a, b in zip(right, given, strict=False)) / max(DIGITS, len(given))
