"""The three experiments, each with its conditions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from bench.replicate.dialogues import demonstrations as chats
from bench.replicate.dialogues import held_out, pairs, shuffled
from bench.replicate_irl import sorting
from bench.replicate_irl.measure import of_dialogues, of_sorting
from bench.replicate_irl.task import Budget, Condition, Rows, Task

# a start that has not learned yet what the demonstrations hold, and one that has
SORTING = {"early": Budget(), "late": Budget(warm_up_steps=900)}
WIDTH, LAYERS, VOCABULARY, POSITIONS = 64, 2, 1000, 96
PRETRAINING_STEPS = 300
MAX_LENGTH, COMPLETION_TOKENS = 64, 24
DIALOGUES = Budget(demonstrations=1600, held_out=256, batch=16, warm_up_steps=200, steps=100, reward_epochs=1.0)
SMOLLM2 = Budget(
    demonstrations=128, held_out=200, batch=16, warm_up_steps=8, steps=8, sft_learning_rate=4e-4,
    pair_learning_rate=2e-4, rft_learning_rate=4e-4, reward_learning_rate=4e-4, reward_epochs=1.0,
)  # fmt: skip


def sorting_task(seed: int, budget: Budget, folder: Path, *, bad: float) -> Task:
    """A share `bad` of the demonstrations is in a wrong order."""
    data = sorting.demonstrations(seed, bad=bad, train=budget.demonstrations, held_out=budget.held_out)
    spare = [{**row, "completion": row["chosen"]} for row in data.held_out]
    return Task(
        sorting.model(seed), sorting.tokenizer(), data.train, spare, seed, budget, folder, max_length=32,
        completion_tokens=2 * sorting.DIGITS, measure=of_sorting,
    )  # fmt: skip


def dialogue_task(seed: int, budget: Budget, folder: Path) -> Task:
    """A small model that was pretrained on single turns: it knows the language and not how to answer."""
    from bench.replicate.scratch import small_bpe, small_gpt2, trained_on

    everything = pairs("train")
    turns = [{"text": row["completion"]} for row in shuffled(everything, seed)[: 32 * PRETRAINING_STEPS]]
    tokens = small_bpe([row["prompt"] + "\n" + row["completion"] for row in everything[:10_000]], VOCABULARY)
    model = small_gpt2(len(tokens), seed, width=WIDTH, layers=LAYERS, positions=POSITIONS, end=tokens.eos_token_id)
    model = trained_on(
        model, tokens, turns, folder / "pretraining", steps=PRETRAINING_STEPS, seed=seed, max_length=MAX_LENGTH
    )
    learned, kept = dialogues_that_fit(seed, budget, tokens, COMPLETION_TOKENS)
    return Task(
        model, tokens, learned, kept, seed, budget, folder, max_length=MAX_LENGTH,
        completion_tokens=COMPLETION_TOKENS, measure=of_dialogues,
    )  # fmt: skip


def smollm2_task(seed: int, budget: Budget, folder: Path) -> Task:
    """SmolLM2-135M as it was published; the common fine-tuning is merged, and each method trains its own adapter."""
    from bench.replicate.scratch import TEMPLATE
    from rlsft.data import assets
    from rlsft.models import load_causal_lm, load_tokenizer

    backbone = assets.smollm2("bfloat16")
    tokens = load_tokenizer(backbone)
    tokens.chat_template = TEMPLATE
    model = load_causal_lm(backbone, dtype="bfloat16", attn_implementation="eager")
    lora = {
        "use_peft": True, "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "dtype": "bfloat16",
        "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    }  # fmt: skip
    learned, kept = dialogues_that_fit(seed, budget, tokens, COMPLETION_TOKENS)
    return Task(
        model, tokens, learned, kept, seed, budget, folder, max_length=MAX_LENGTH,
        completion_tokens=COMPLETION_TOKENS, measure=of_dialogues, adapter=lora,
    )  # fmt: skip


def dialogues_that_fit(seed: int, budget: Budget, tokens: Any, completion_tokens: int) -> tuple[Rows, Rows]:
    """Demonstrations of a seed, and held-out prompts with a right and a wrong reply, none cut at `MAX_LENGTH`."""

    def fits(row: dict[str, Any]) -> bool:
        texts = [row["completion"]] if "completion" in row else row["references"]
        sizes = [len(tokens(text)["input_ids"]) for text in (row["prompt"], *texts)]
        return sizes[0] < MAX_LENGTH - completion_tokens - 1 and max(sizes[1:]) < completion_tokens

    learned = [row for row in chats(seed, 2 * budget.demonstrations) if fits(row)]
    kept = [row for row in held_out(2 * budget.held_out) if fits(row)]
    return learned[: budget.demonstrations], with_wrong_replies(kept[: budget.held_out])


def with_wrong_replies(rows: Rows) -> Rows:
    """`chosen`: what a person replied; `rejected`: what a person replied to the next prompt."""
    replies = [row["references"][0] for row in rows]
    others = replies[1:] + replies[:1]
    return [
        {**row, "completion": chosen, "chosen": chosen, "rejected": rejected}
        for row, chosen, rejected in zip(rows, replies, others, strict=True)
    ]


EXPERIMENTS: dict[str, list[Condition]] = {
    "sorting": [
        Condition({"regime": regime, "bad": bad}, budget, partial(sorting_task, bad=bad))
        for regime, budget in SORTING.items()
        for bad in (0.0, 0.2, 0.4)
    ],
    "dialogues": [Condition({}, DIALOGUES, dialogue_task)],
    "smollm2": [Condition({}, SMOLLM2, smollm2_task, ("sft_steps", "spin", "irft_2", "rft"))],
}
