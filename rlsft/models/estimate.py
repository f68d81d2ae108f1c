"""What a training run would need, before it starts: memory by part, arithmetic, time; labelled as estimates."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlsft.errors import ModelError
from rlsft.models.head import lm_head_of, unwrap
from rlsft.models.loading import existing_source, first_line, resolve_dtype

# Activations kept for backward, in values per token, layer and unit of width: about 17 (34 bytes in half
# precision) with everything kept (Korthikanti et al., arXiv 2205.05198, without the attention matrix that
# fused attention does not store), 1 with checkpointing.
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
    checkpointed_activation_bytes: int  # with gradient_checkpointing, whether or not it is on
    logits_bytes_avoided: int  # what full float32 logits and their gradient would have taken
    flops_per_step: float
    seconds_per_step: float
    num_steps: int | None

    @property
    def total_bytes(self) -> int:
        """Peak memory: weights, gradients, optimizer state and activations."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes

    @property
    def total_seconds(self) -> float | None:
        """Time of all steps; None when their number is unknown."""
        return None if self.num_steps is None else self.seconds_per_step * self.num_steps

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line of the report, ready for a table."""
        rows = [
            ("parameters", f"{self.parameters:,} ({self.trainable_parameters:,} trained)"),
            ("weights", format_bytes(self.weight_bytes)),
            ("gradients", format_bytes(self.gradient_bytes)),
            ("optimizer state", format_bytes(self.optimizer_bytes)),
            ("activations (rough)", format_bytes(self.activation_bytes)),
            ("peak memory (estimate)", format_bytes(self.total_bytes)),
            *self._advice(),
            ("logits never built", format_bytes(self.logits_bytes_avoided)),
            ("arithmetic a step", f"{self.flops_per_step:.2e} operations"),
            ("time a step (estimate)", format_seconds(self.seconds_per_step)),
        ]
        if self.total_seconds is not None:
            rows.append((f"time for {self.num_steps:,} steps (estimate)", format_seconds(self.total_seconds)))
        return rows

    def _advice(self) -> list[tuple[str, str]]:
        """What recomputing activations would save, where it is off."""
        saved = self.activation_bytes - self.checkpointed_activation_bytes
        if saved <= 0:
            return []
        return [
            (
                "peak with gradient_checkpointing=True",
                f"{format_bytes(self.total_bytes - saved)}, a third more arithmetic",
            )
        ]

    def __rich__(self) -> Any:
        """A two-column table for a terminal."""
        from rich.table import Table

        table = Table("estimate", "value", title="Estimated needs (not measured)")
        for row in self.rows():
            table.add_row(*row)
        return table


def estimate_training(
    model: nn.Module | str | os.PathLike[str],
    *,
    batch_size: int,
    sequence_length: int,
    dtype: str | torch.dtype = "auto",
    lora_r: int | None = None,
    gradient_checkpointing: bool = False,
    gradient_accumulation_steps: int = 1,
    num_examples: int | None = None,
    num_epochs: float = 1.0,
    frozen_copies: int = 0,
    flops_per_second: float | None = None,
) -> TrainingEstimate:
    """Memory and time that training `model` with AdamW would take.

    A folder is not loaded: its config is built on the meta device, which holds no values. Operations follow the
    usual count of two a parameter and token for each of forward, backward through activations and, for trained
    weights, backward through weights; recomputation adds a forward.

    Args:
        model: a causal LM (parameters with `requires_grad` count as trained), or its folder.
        batch_size: sequences in one forward pass.
        sequence_length: tokens a sequence, prompt and padding included.
        dtype: of the weights, where `model` is a folder; "auto" = what its config says.
        lora_r: rank of the LoRA adapter that will be added to every linear layer but the head; None = train what
            the model says.
        gradient_checkpointing: whether activations are recomputed in backward.
        gradient_accumulation_steps: forward passes in one optimizer step.
        num_examples: rows of the training set; None = the number of steps stays unknown.
        num_epochs: passes over them.
        frozen_copies: further copies of the model in memory (reference, reward model).
        flops_per_second: speed of the machine; None = a matrix product is timed for a fifth of a second.

    Raises:
        ModelError: batch_size or sequence_length below one, or a folder without a causal LM.
    """
    if batch_size < 1 or sequence_length < 1:
        raise ModelError(f"batch_size and sequence_length must be at least 1, got {batch_size} and {sequence_length}")
    module = model if isinstance(model, nn.Module) else meta_causal_lm(model, dtype=dtype)
    weights = list(module.parameters())
    parameters = sum(p.numel() for p in weights)
    trainable, gradient_bytes = _trained(module, lora_r)
    tokens = batch_size * sequence_length
    forwards = 2 if gradient_checkpointing else 1
    flops = 2.0 * gradient_accumulation_steps * tokens * ((forwards + 1) * parameters + trainable)
    speed = flops_per_second or matmul_flops_per_second(*_device_and_dtype(weights[0]))
    steps = None
    if num_examples is not None:
        steps = math.ceil(num_examples * num_epochs / (batch_size * gradient_accumulation_steps))
    return TrainingEstimate(
        parameters=parameters,
        trainable_parameters=trainable,
        weight_bytes=sum(p.numel() * p.element_size() for p in weights) * (1 + frozen_copies),
        gradient_bytes=gradient_bytes,
        optimizer_bytes=2 * gradient_bytes,  # AdamW keeps two moments in the dtype of the parameter
        activation_bytes=_activation_bytes(module, tokens, gradient_checkpointing),
        checkpointed_activation_bytes=_activation_bytes(module, tokens, True),
        logits_bytes_avoided=2 * 4 * tokens * lm_head_of(module).weight.shape[0],
        flops_per_step=flops,
        seconds_per_step=flops / (speed * _MODEL_EFFICIENCY),
        num_steps=steps,
    )


def meta_causal_lm(path: str | os.PathLike[str], *, dtype: str | torch.dtype = "auto") -> nn.Module:
    """The model of a folder's config without its weights: shapes and dtypes only.

    Raises:
        ModelError: no such folder, or no causal LM in it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    source = existing_source("model", path)
    try:
        config = AutoConfig.from_pretrained(source)
        resolved = resolve_dtype(dtype)
        chosen = (getattr(config, "dtype", None) or torch.float32) if resolved == "auto" else resolved
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=chosen)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{source} holds no causal language model: {first_line(error)}") from error


def _trained(model: nn.Module, lora_r: int | None) -> tuple[int, int]:
    """Number of trained parameters and their bytes."""
    if lora_r is None:
        trained = [p for p in model.parameters() if p.requires_grad]
        return sum(p.numel() for p in trained), sum(p.numel() * p.element_size() for p in trained)
    head = lm_head_of(model).weight
    adapted: list[Any] = [
        module.weight
        for module in model.modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and module.weight is not head
    ]
    count = sum(lora_r * (weight.shape[0] + weight.shape[1]) for weight in adapted)
    return count, 4 * count  # peft keeps adapters in float32 whatever the model's dtype


def _device_and_dtype(weight: nn.Parameter) -> tuple[str, torch.dtype]:
    if weight.device.type != "meta":
        return str(weight.device), weight.dtype
    return ("cuda" if torch.cuda.is_available() else "cpu"), weight.dtype


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
