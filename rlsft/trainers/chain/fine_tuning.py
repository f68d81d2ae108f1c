"""The supervised stage of a chain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlsft.models import load_causal_lm, merge_lora
from rlsft.trainers.base import last_checkpoint, trained_tokens
from rlsft.trainers.sft import SFTTrainer


def fine_tune(
    model: str,
    config: Any,
    rows: Sequence[dict[str, Any]],
    held_out: Sequence[dict[str, Any]],
    *,
    tokenizer: Any,
    callbacks: Sequence[Any],
    target: Path,
) -> dict[str, Any]:
    """Supervised fine-tuning of the folder `model` on `rows`, written to `target` with its adapter merged.

    Goes on from a checkpoint in the config's output directory. Returns what done.json keeps.
    """
    trainer = SFTTrainer(
        model=load_causal_lm(model, dtype=config.dtype, attn_implementation=config.attn_implementation),
        args=config,
        train_dataset=list(rows),
        eval_dataset=list(held_out) or None,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(config.output_dir) is not None)
    measured = trainer.evaluate() if held_out else {}
    merge_lora(trainer.model).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return {"num_examples": len(rows), "num_tokens": trained_tokens(trainer), **measured}
