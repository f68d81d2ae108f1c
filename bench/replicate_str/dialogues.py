"""Human small talk at a size that trains in seconds: the dialogues of `bench.replicate`, a smaller model."""

from __future__ import annotations

from pathlib import Path

from bench.replicate.dialogues import demonstrations, held_out, pairs, shuffled
from bench.replicate_str.paraphrase import said_otherwise
from bench.replicate_str.task import Budget, Task

WIDTH, LAYERS, VOCABULARY, POSITIONS = 64, 2, 1000, 96
PRETRAINING_STEPS = 200
MAX_LENGTH, COMPLETION_TOKENS = 64, 24
BUDGET = Budget(
    train=2500, held_out=300, steps=150, rank_prompts=160, reward_steps=60, pairs_per_prompt=6, episodes=512,
    lora_rate=1e-2, adapter_rate=1e-2, bitfit_rate=3e-2, kl_coef=0.5,
)  # fmt: skip


def dialogues(seed: int, budget: Budget, folder: Path) -> Task:
    """The same held-out prompts for every seed; a paraphrase follows fixed rules."""
    from bench.replicate.scratch import small_bpe, small_gpt2, trained_on

    everything = pairs("train")
    turns = [{"text": row["completion"]} for row in shuffled(everything, seed)[: 32 * PRETRAINING_STEPS]]
    tokens = small_bpe([row["prompt"] + "\n" + row["completion"] for row in everything[:10_000]], VOCABULARY)
    model = small_gpt2(len(tokens), seed, width=WIDTH, layers=LAYERS, positions=POSITIONS, end=tokens.eos_token_id)
    pretrained = trained_on(
        model, tokens, turns, folder / "pretraining", steps=PRETRAINING_STEPS, seed=seed, max_length=MAX_LENGTH
    )
    return Task(
        name="dialogues", seed=seed, tokenizer=tokens, pretrained=pretrained,
        train=demonstrations(seed, budget.train), held_out=held_out(budget.held_out), encoder="minilm",
        max_length=MAX_LENGTH, completion_tokens=COMPLETION_TOKENS, paraphrases=said_otherwise, budget=budget,
        folder=folder,
    )  # fmt: skip
