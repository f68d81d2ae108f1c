"""The task whose true reward is known: six digits in order, from demonstrations of which some are wrong.

Consensus can matter here, which is why it was chosen: a policy that is right at four places of six draws answers whose
errors fall at different places, so that the answer nearest to all others is better than a drawn one, as in majority
voting; and wrong demonstrations mislead a ranker that teleports to the demonstration while they leave the paper's
alone. The order of answers by their true reward is known, so a learned reward can be judged.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.replicate_irl.sorting import DIGITS, VOCABULARY, demonstrations, tokenizer, true_reward
from bench.replicate_str.task import Budget, Task

BAD = 0.2  # share of demonstrations with the right digits in a wrong order
BUDGET = Budget(
    train=600, held_out=256, steps=250, rank_prompts=600, reward_steps=200, pairs_per_prompt=4, kl_coef=0.5,
    lora_rate=1e-2, adapter_rate=2e-2, bitfit_rate=3e-2,
)  # fmt: skip
PRETRAINING_STEPS = 150


def sorting(seed: int, budget: Budget, folder: Path) -> Task:
    """Held-out prompts have the right answer as their reference; a paraphrase is the same digits in another order."""
    tokens = tokenizer()
    data = demonstrations(seed, bad=BAD, train=budget.train, held_out=budget.held_out)
    held_out = [{"prompt": row["prompt"], "references": [row["chosen"].strip()]} for row in data.held_out]
    return Task(
        name="sorting", seed=seed, tokenizer=tokens, pretrained=pretrained(seed, tokens, folder), train=data.train,
        held_out=held_out, encoder=places, max_length=32, completion_tokens=2 * DIGITS, paraphrases=reordered,
        budget=budget, folder=folder, true_reward=true_reward, is_language=False,
    )  # fmt: skip


def places(texts: Sequence[str]) -> Any:
    """[n, d] one entry a place and digit: the cosine of two full answers is the share of the places they agree on."""
    rows = np.zeros((len(texts), 2 * DIGITS * 11), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for place, digit in enumerate(text.split()[: 2 * DIGITS]):
            rows_index = place * 11 + (int(digit) if digit.isdigit() and len(digit) == 1 else 10)
            row[rows_index] = 1.0
    return rows


def reordered(prompt: str) -> list[str]:
    """The digits of a prompt in two other orders: the right answer is the same."""
    digits = prompt.split()[:DIGITS]
    chance = random.Random(prompt)
    return [" ".join(chance.sample(digits, DIGITS)) + " =" for _ in range(2)]


def pretrained(seed: int, tokens: Any, folder: Path) -> Any:
    """A model that knows the form and not the task: it was trained to give the digits in any order."""
    from bench.replicate.scratch import small_gpt2, trained_on

    rows = demonstrations(seed + 10_000, bad=1.0, train=2000, held_out=0).train
    model = small_gpt2(len(VOCABULARY), seed, width=64, layers=3, positions=64, end=tokens.eos_token_id)
    return trained_on(model, tokens, rows, folder / "pretraining", steps=PRETRAINING_STEPS, seed=seed, max_length=32)
