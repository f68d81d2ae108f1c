"""The judge of answers: a reward model that learned from people's conversations which no method was trained on.

Its training pairs are a person's reply to a prompt against, by turns, a person's reply to something else and the same
reply with its words damaged. It starts from SmolLM2-135M, not from the sentence encoder that STR ranks with. It is
trained once a machine and kept in the cache; its accuracy on pairs of other conversations stands beside it.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.replicate.scratch import TEMPLATE

MAX_LENGTH = 72
LONGEST_PROMPT, LONGEST_REPLY = 30, 24  # words


@dataclass(frozen=True)
class Settings:
    """What decides the judge; another value is another folder of the cache."""

    layers: int = 8  # of 30
    pairs: int = 4000
    tested: int = 400
    batch: int = 16
    learning_rate: float = 3e-4
    lora_rank: int = 16
    seed: int = 7


@dataclass(frozen=True)
class Judge:
    """Scores answers; higher is more like what a person would reply."""

    model: Any
    tokenizer: Any
    accuracy: dict[str, float]  # of pairs of conversations that it never saw: "other", "damaged"

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
        """[n] scores."""
        from rlsft.rewards import score_texts

        return score_texts(
            self.model, self.tokenizer, list(prompts), [text.strip() for text in answers], batch_size=64,
            max_length=MAX_LENGTH, truncate_prompt=True,
        )  # fmt: skip

    def win_rate(self, prompts: Sequence[str], answers: Sequence[str], baseline: Sequence[str]) -> float:
        """Per cent of the prompts whose answer scores above the baseline's; a tie is half a win."""
        return 100 * wins(self(prompts, answers), self(prompts, baseline))


def wins(ours: Sequence[float] | NDArray[np.float64], theirs: Sequence[float] | NDArray[np.float64]) -> float:
    """Share of the places where ours is higher, ties counted half."""
    difference = np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64)
    return float(np.mean(np.where(difference > 0, 1.0, np.where(difference < 0, 0.0, 0.5))))


@cache
def judge(settings: Settings = Settings()) -> Judge:
    """The judge of these settings, trained when it is not in the cache.

    Raises:
        DataError: a package of the demo is missing; the message holds the line that installs it.
    """
    from rlsft.data import assets
    from rlsft.models import load_tokenizer
    from rlsft.rewards import RewardModel

    name = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode()).hexdigest()[:8]
    folder = assets.build_once(assets.cache_root() / "bench" / f"judge-{name}", lambda into: train(into, settings))
    accuracy = json.loads((folder / "accuracy.json").read_text())
    return Judge(RewardModel.from_pretrained(folder).eval(), load_tokenizer(folder), accuracy)


def train(folder: Path, settings: Settings) -> None:
    """Trains the judge into `folder`, with its accuracy on each kind of pair."""
    from rlsft import RewardConfig, RewardTrainer
    from rlsft.data import assets
    from rlsft.models import load_tokenizer
    from rlsft.rewards import RewardModel

    tokenizer = load_tokenizer(assets.smollm2("bfloat16"))
    tokenizer.chat_template = TEMPLATE
    backbone = lower_layers(folder / "start", settings.layers, tokenizer)
    learned, tested = (pairs(side, settings) for side in ("train", "test"))
    args = RewardConfig(
        output_dir=str(folder / "run"), seed=settings.seed, per_device_train_batch_size=settings.batch,
        num_train_epochs=1, learning_rate=settings.learning_rate, lr_scheduler_type="cosine", warmup_steps=10,
        dtype="bfloat16", attn_implementation="eager", use_peft=True, lora_r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank, lora_dropout=0.0, max_length=MAX_LENGTH, truncate_prompt=True,
        logging_steps=10, save_strategy="no", use_cpu=True, show_progress=False,
    )  # fmt: skip
    trainer = RewardTrainer(str(backbone), args, learned, processing_class=tokenizer)
    trainer.train()
    trainer.reward_model.save_pretrained(folder, tokenizer)
    shutil.rmtree(folder / "start")
    made = Judge(RewardModel.from_pretrained(folder).eval(), tokenizer, {})
    (folder / "accuracy.json").write_text(json.dumps(accuracy_of(made, tested)))


def lower_layers(folder: Path, count: int, tokenizer: Any) -> Path:
    """SmolLM2's first layers as a model folder of their own."""
    from rlsft.data import assets
    from rlsft.models import load_causal_lm

    model = load_causal_lm(assets.smollm2("bfloat16"), dtype="bfloat16", attn_implementation="eager")
    model.model.layers = model.model.layers[:count]
    model.config.num_hidden_layers = count
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def accuracy_of(made: Judge, tested: list[dict[str, str]]) -> dict[str, float]:
    """By kind of pair: how often the person's reply to this prompt scores higher."""
    prompts = [row["prompt"] for row in tested]
    chosen = made(prompts, [row["chosen"] for row in tested])
    rejected = made(prompts, [row["rejected"] for row in tested])
    by_kind = {kind: [row["kind"] == kind for row in tested] for kind in KINDS}
    return {kind: wins(chosen[chosen_rows], rejected[chosen_rows]) for kind, chosen_rows in by_kind.items()}


KINDS = ("other", "damaged")


def pairs(side: str, settings: Settings) -> list[dict[str, str]]:
    """Pairs out of the validation conversations: four fifths of these to learn from, one to test on."""
    from rlsft.data import chitchat

    chance = random.Random(settings.seed)
    rows = [row for row in chitchat.load("validation") if short(row["prompt"], LONGEST_PROMPT)]
    rows = [row for row in rows if short(row["completion"], LONGEST_REPLY)]
    conversations = sorted({row["conversation_id"] for row in rows})
    chance.shuffle(conversations)
    tested = set(conversations[: len(conversations) // 5])
    kept = [row for row in rows if (row["conversation_id"] in tested) == (side == "test")]
    chance.shuffle(kept)
    count = min(settings.tested if side == "test" else settings.pairs, len(kept) - 1)
    return [pair(kept[i], kept[i + 1], KINDS[i % 2], chance) for i in range(count)]


def pair(row: dict[str, str], other: dict[str, str], kind: str, chance: random.Random) -> dict[str, str]:
    """A person's reply, and what is worse."""
    worse = other["completion"] if kind == "other" else damaged(row["completion"], chance)
    return {"prompt": row["prompt"], "chosen": row["completion"], "rejected": worse, "kind": kind}


def damaged(text: str, chance: random.Random) -> str:
    """The words in another order, some of them twice, or cut off in the middle."""
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


if __name__ == "__main__":
    print(json.dumps(judge().accuracy))
