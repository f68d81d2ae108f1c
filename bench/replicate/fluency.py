"""A reward model that tells people's replies from damaged ones: eight layers of SmolLM2-135M with LoRA.

It is trained by `RewardTrainer` once a machine and kept in the cache. It does not learn whether a reply belongs to the
prompt; `relevance.py` measures that.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.replicate.judged_pairs import pairs
from bench.replicate.scratch import TEMPLATE

MAX_LENGTH = 72


@dataclass(frozen=True)
class Settings:
    """What decides the model; another value is another folder of the cache."""

    layers: int = 8  # of 30: a quarter of the cost, and tens of thousands of answers are judged
    pairs: int = 4000
    batch: int = 16
    learning_rate: float = 3e-4
    lora_rank: int = 16
    seed: int = 7


@dataclass(frozen=True)
class Fluency:
    """The trained reward model."""

    model: Any
    tokenizer: Any

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
        """[n] rewards."""
        from rlsft.rewards import score_texts

        return score_texts(
            self.model, self.tokenizer, list(prompts), [text.strip() for text in answers], batch_size=64,
            max_length=MAX_LENGTH, truncate_prompt=True,
        )  # fmt: skip


@cache
def fluency(settings: Settings = Settings()) -> Fluency:
    """The model of these settings, trained when it is not in the cache (about five minutes of one core)."""
    from rlsft.data import assets
    from rlsft.models import load_tokenizer
    from rlsft.rewards import RewardModel

    name = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode()).hexdigest()[:8]
    target = assets.cache_root() / "bench" / f"fluency-{name}"
    folder = assets.build_once(target, lambda into: train(into, settings))
    return Fluency(RewardModel.from_pretrained(folder).eval(), load_tokenizer(folder))


def train(folder: Path, settings: Settings) -> None:
    """Trains the model into `folder`."""
    from rlsft import RewardConfig, RewardTrainer
    from rlsft.data import assets
    from rlsft.models import load_tokenizer

    tokenizer = load_tokenizer(assets.smollm2("bfloat16"))
    tokenizer.chat_template = TEMPLATE
    backbone = lower_layers(folder / "start", settings.layers, tokenizer)
    args = RewardConfig(
        output_dir=str(folder / "run"), seed=settings.seed, per_device_train_batch_size=settings.batch,
        num_train_epochs=1, learning_rate=settings.learning_rate, lr_scheduler_type="cosine", warmup_steps=10,
        dtype="bfloat16", attn_implementation="eager", use_peft=True, lora_r=settings.lora_rank,
        lora_alpha=2 * settings.lora_rank, lora_dropout=0.0, max_length=MAX_LENGTH, truncate_prompt=True,
        logging_steps=10, save_strategy="no", use_cpu=True, show_progress=False,
    )  # fmt: skip
    trainer = RewardTrainer(str(backbone), args, pairs("train", settings.pairs), processing_class=tokenizer)
    trainer.train()
    trainer.reward_model.save_pretrained(folder, tokenizer)
    shutil.rmtree(folder / "start")


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
