"""What a run of RFT needs at its peak, the policy step, beside plain SFT: on one trunk and on separate models."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from torch import nn

from rlsft.models import estimate_training, meta_causal_lm
from rlsft.models.estimate import TrainingEstimate, format_bytes


@dataclass(frozen=True, kw_only=True)
class RFTMemory:
    """Estimated peak memory in bytes; the set-up that the config asks for is `chosen`."""

    sft: int
    shared: int | None  # None without LoRA: there is no trunk that could be shared
    separate: int
    chosen: str  # "shared" or "separate"

    def rows(self) -> list[tuple[str, str, str]]:
        """Set-up, bytes, and bytes against plain SFT."""
        found = [
            ("plain SFT", self.sft),
            ("RFT, share_trunk=True", self.shared),
            ("RFT, share_trunk=False", self.separate),
        ]
        marked = {"shared": "RFT, share_trunk=True", "separate": "RFT, share_trunk=False"}[self.chosen]
        return [
            (f"{name} (this run)" if name == marked else name, format_bytes(count), f"{count / self.sft - 1:+.0%}")
            if count is not None
            else (name, "needs use_peft", "")
            for name, count in found
        ]

    def __rich__(self) -> Any:
        """A table for a terminal."""
        from rich.table import Table

        table = Table("peak memory", "estimate", "against SFT", title="Estimated memory (not measured)")
        for row in self.rows():
            table.add_row(*row)
        return table


def estimate_memory(model: str | os.PathLike[str] | nn.Module, args: Any, *, sequence_length: int) -> RFTMemory:
    """Peak memory of the policy step of `RFTTrainer` with `args`.

    On one trunk a reward and a reference cost their adapters; apart, each is a model of its own. In the first round the
    reference is the policy without its adapter.

    Args:
        model: a causal LM, or its folder, of which only the config is read.
        args: `RFTConfig`.
        sequence_length: tokens a sequence, prompt and answer.
    """
    plain = _estimate(model, args, sequence_length, copies=0)
    others = 2 if args.rounds > 1 else 1  # reward, and the reference once it differs from the adapter-free policy
    if not args.use_peft:
        separate = _estimate(model, args, sequence_length, copies=2).total_bytes
        return RFTMemory(sft=plain.total_bytes, shared=None, separate=separate, chosen="separate")
    adapters = others * 4 * plain.trainable_parameters  # frozen ones, in float32
    return RFTMemory(
        sft=plain.total_bytes,
        shared=plain.total_bytes + adapters,
        separate=_estimate(model, args, sequence_length, copies=others).total_bytes + adapters,
        chosen="shared" if args.shares_trunk else "separate",
    )


def _estimate(
    model: str | os.PathLike[str] | nn.Module, args: Any, sequence_length: int, *, copies: int
) -> TrainingEstimate:
    return estimate_training(
        model if isinstance(model, nn.Module) else meta_causal_lm(model, dtype=args.dtype),
        batch_size=args.per_device_train_batch_size,
        sequence_length=sequence_length,
        lora_r=args.lora_r if args.use_peft else None,
        gradient_checkpointing=bool(args.gradient_checkpointing),
        frozen_copies=copies,
        flops_per_second=1e12,  # memory alone is asked for: nothing is timed
    )
