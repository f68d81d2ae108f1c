"""What a training run would need, before it starts: memory by part, arithmetic, time. Estimates, and labelled so."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlsft.errors import ModelError
from rlsft.models.head import lm_head_of, unwrap

# Activations kept for backward, in values per token, layer and unit of width: about 17 (34 bytes in half precision) with everything kept (Korthikanti
# et al., arXiv 2205.05198, without the attention matrix that fused attention does not store), 1 with checkpointing.
_VALUES_PER_WIDTH = 17
_VALUES_PER_WIDTH_CHECKPOINTED = 1
# Share of the speed of one large matrix product that a whole forward and backward pass reaches.
_MODEL_EFFICIENCY = 0.35


@dataclass(frozen=True, kw_only=True)
class TrainingEstimate:
    """Bytes and operations of one training set-up; every figure is an estimate, not a measurement."""

    parameters: int
    trainable_parameters: int
    weight_bytes: int  # all copies of the model
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    logits_bytes_avoided: int  # what full float32 logits and their gradient would have taken
    flops_per_step: float
    seconds_per_step: float | None  # None = no throughput given
    num_steps: int | None

    @property
    def total_bytes(self) -> int:
        """Peak memory: weights, gradients, optimizer state and activations."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes

    @property
    def total_seconds(self) -> float | None:
        """Time of all steps; None when the number of steps or the throughput is unknown."""
        if self.seconds_per_step is None or self.num_steps is None:
            return None
        return self.seconds_per_step * self.num_steps

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line of the report, ready for a table."""
        rows = [
            ("parameters", f"{self.parameters:,} ({self.trainable_parameters:,} trained)"),
            ("weights", format_bytes(self.weight_bytes)),
            ("gradients", format_bytes(self.gradient_bytes)),
            ("optimizer state", format_bytes(self.optimizer_bytes)),
            ("activations (rough)", format_bytes(self.activation_bytes)),
            ("peak memory (estimate)", format_bytes(self.total_bytes)),
            ("logits never built", format_bytes(self.logits_bytes_avoided)),
            ("arithmetic a step", f"{self.flops_per_step:.2e} operations"),
        ]
        if self.seconds_per_step is not None:
            rows.append(("time a step (estimate)", format_seconds(self.seconds_per_step)))
        if self.total_seconds is not None:
            rows.append((f"time for {self.num_steps:,} steps (estimate)", format_seconds(self.total_seconds)))
        return rows

    def __rich__(self) -> Any:
        """A two-column table for a terminal."""
        from rich.table import Table

        table = Table("estimate", "value", title="Estimated needs (not measured)")
        for row in self.rows():
            table.add_row(*row)
        return table


def estimate_training(
    model: nn.Module,
    *,
    batch_size: int,
    max_length: int,
    gradient_checkpointing: bool = False,
    num_steps: int | None = None,
    gradient_accumulation_steps: int = 1,
    frozen_copies: int = 0,
    flops_per_second: float | None = None,
) -> TrainingEstimate:
    """Memory and time that training `model` with AdamW would take.

    `model` may live on the meta device, so nothing has to be loaded. Operations follow the usual count of two a
    parameter and token for each of forward, backward through activations and, for trained weights, backward through
    weights.

    Args:
        model: a causal LM; parameters with `requires_grad` count as trained (a LoRA model has few).
        batch_size: sequences in one forward pass.
        max_length: tokens a sequence, prompt and padding included.
        gradient_checkpointing: whether activations are recomputed in backward.
        num_steps: optimizer steps; None = unknown.
        gradient_accumulation_steps: forward passes in one optimizer step.
        frozen_copies: further copies of the model in memory (reference, reward model).
        flops_per_second: for instance `matmul_flops_per_second(...)`; None = no time estimate.

    Raises:
        ModelError: batch_size or max_length below one.
    """
    if batch_size < 1 or max_length < 1:
        raise ModelError(f"batch_size and max_length must be at least 1, got {batch_size} and {max_length}")
    weights = list(model.parameters())
    parameters = sum(p.numel() for p in weights)
    trainable = sum(p.numel() for p in weights if p.requires_grad)
    weight_bytes = sum(p.numel() * p.element_size() for p in weights)
    gradient_bytes = sum(p.numel() * p.element_size() for p in weights if p.requires_grad)
    tokens = batch_size * max_length
    passes = 4 + (2 if gradient_checkpointing else 0)
    flops = float(gradient_accumulation_steps * tokens * (passes * parameters + 2 * trainable))
    return TrainingEstimate(
        parameters=parameters,
        trainable_parameters=trainable,
        weight_bytes=weight_bytes * (1 + frozen_copies),
        gradient_bytes=gradient_bytes,
        optimizer_bytes=2 * gradient_bytes,  # AdamW keeps two moments in the dtype of the parameter
        activation_bytes=_activation_bytes(model, tokens, gradient_checkpointing),
        logits_bytes_avoided=2 * 4 * tokens * lm_head_of(model).weight.shape[0],
        flops_per_step=flops,
        seconds_per_step=None if flops_per_second is None else flops / (flops_per_second * _MODEL_EFFICIENCY),
        num_steps=num_steps,
    )


def _activation_bytes(model: nn.Module, tokens: int, gradient_checkpointing: bool) -> int:
    config = unwrap(model).config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    width, layers = config.hidden_size, config.num_hidden_layers
    size = lm_head_of(model).weight.element_size()
    if gradient_checkpointing:  # the input of every layer, and one layer in full while it is recomputed
        return tokens * width * size * (_VALUES_PER_WIDTH_CHECKPOINTED * layers + _VALUES_PER_WIDTH)
    return tokens * width * size * _VALUES_PER_WIDTH * layers


def matmul_flops_per_second(
    device: str | torch.device, dtype: torch.dtype, *, size: int = 512, budget_seconds: float = 0.2
) -> float:
    """Operations a second of a square matrix product on `device`, measured for about `budget_seconds`."""
    a = torch.randn(size, size, device=device, dtype=torch.float32).to(dtype)
    done, start = 0, 0.0
    for attempt in range(1000):
        if attempt == 1:  # the first product pays for set-up
            _synchronize(device)
            start = time.perf_counter()
        a @ a
        done = attempt
        if attempt and time.perf_counter() - start > budget_seconds:
            break
    _synchronize(device)
    return 2 * size**3 * done / (time.perf_counter() - start)


def _synchronize(device: str | torch.device) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def format_bytes(count: float) -> str:
    """`count` bytes with a binary unit: 1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def format_seconds(seconds: float) -> str:
    """A duration that a person reads: 0.25 -> "0.25 s", 75 -> "1 min 15 s", 7300 -> "2 h 2 min"."""
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
