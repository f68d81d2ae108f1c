"""linear_logprob: log-probability, entropy and logsumexp of tokens from hidden states and the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlsft_kernels._backend import Backend, choose_backend
from rlsft_kernels._checks import require_choice, require_number, require_positive_int
from rlsft_kernels._eager import refuse_forward_mode
from rlsft_kernels._head.head import Head, check_transform, checked_head, statistics_dtype
from rlsft_kernels._head.inputs import HeadInputs, gradients_for_inputs
from rlsft_kernels._head.lora import lora_factors
from rlsft_kernels._head.rows import STATISTICS
from rlsft_kernels._head.select import SUPPORTED, row_kernels
from rlsft_kernels._head.temperature import flat_temperature
from rlsft_kernels._head.tiling import DEFAULT_TILE_BYTES
from rlsft_kernels._saved_gradients import refuse_double_backward
from rlsft_kernels.linear_logprob.reference import LogprobOutput
from rlsft_kernels.linear_logprob.tiled import SAVED, UpstreamGradients, linear_logprob_bwd, linear_logprob_fwd

_ALWAYS = frozenset(("logprob", "row_max", "log_sum"))  # what the backward needs of every row


def linear_logprob(
    hidden: Tensor,  # [..., H] float32, bfloat16, float16 or float64
    weight: Tensor,  # [V, H], dtype of hidden
    targets: Tensor,  # [...] int64
    *,
    bias: Tensor | None = None,  # [V]
    temperature: float | Tensor = 1.0,  # or [...], one per token
    softcap: float | None = None,
    logit_scale: float = 1.0,
    outputs: Sequence[str] = ("logprob",),
    lora: tuple[Tensor, Tensor, float] | None = None,  # A [r, H], B [V, r], scale
    ignore_index: int = -100,
    tile_bytes: int = DEFAULT_TILE_BYTES,
    memory_budget: int = 0,
    backend: Backend = "auto",
) -> LogprobOutput:
    """Log-probability of `targets` under the softmax of a language-model head, without the `[N, V]` logits.

    Equals `log_softmax(z)[targets]` for `z = softcap * tanh(logit_scale * (hidden @ weight.T + bias) /
    softcap) / temperature`; the order bias, logit_scale, softcap, temperature is fixed. The matrix product
    runs in the input dtype, everything after it in float32 (float64 for float64 input). Under
    `torch.autocast` hidden and weight are cast as by `F.linear`.

    Gradients flow to hidden, weight and bias through `logprob`, `entropy` and `lse`. A frozen weight costs no
    weight gradient; rows whose upstream gradient is zero cost no backward. There is no second derivative.

    The backward computes the logits again: four matrix products for a forward and a backward. Logits that fit into
    `memory_budget` are kept instead, at three products for their share: the dial between the two.

    Args:
        hidden: last hidden states, any number of leading axes.
        weight: weight of the output embedding.
        targets: token ids; rows equal to `ignore_index` give 0 everywhere and exactly zero gradient.
        bias: bias of the output embedding.
        temperature: a positive number, or one per token.
        softcap: cap of the final logits (Gemma's `final_logit_softcapping`).
        logit_scale: factor on the logits (Cohere's `logit_scale`).
        outputs: names of the fields of `LogprobOutput` to compute; the others are None.
        lora: a low-rank update of the head, `weight + scale * B @ A`, without merging it; gradients flow to A and
            B.
        ignore_index: target value of rows to leave out.
        tile_bytes: memory of the logits tile, an upper limit.
        memory_budget: bytes of logits to keep for the backward.
        backend: which implementation runs; "auto" picks by device and dtype.

    Returns:
        `LogprobOutput`, tensors shaped like `targets`. A row whose logits are all -inf gives NaN, as
        log_softmax does.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or value does not fit; on the CPU also a target outside the vocabulary.
    """
    refuse_forward_mode("linear_logprob", hidden, weight, bias, *(lora or ())[:2])
    hidden, weight, bias = checked_head(hidden, weight, targets, bias)
    if isinstance(outputs, str):
        raise TypeError(f"outputs must be a sequence of names, got the string {outputs!r}; pass ({outputs!r},)")
    for name in outputs:
        require_choice("outputs", name, LogprobOutput._fields)
    check_transform(softcap, logit_scale)
    require_positive_int("tile_bytes", tile_bytes)
    require_number("memory_budget", memory_budget, at_least=0)
    temperature_N, temperature_one = flat_temperature(temperature, targets)
    hidden_NH = hidden.reshape(-1, hidden.shape[-1])
    lora_hidden, lora_weight = lora_factors(hidden_NH, weight, lora)
    fields = torch.ops.rlsft.linear_logprob(
        hidden_NH,
        weight,
        targets.reshape(-1),
        bias,
        lora_hidden,
        lora_weight,
        temperature_N,
        temperature_one,
        softcap,
        float(logit_scale),
        ",".join(outputs),
        ignore_index,
        tile_bytes,
        _kept_columns(hidden_NH, weight, bias, lora_weight, int(memory_budget)),
        backend,
    )
    statistics = zip(STATISTICS, fields[:-1], strict=True)
    return LogprobOutput(**{name: x.view(targets.shape) for name, x in statistics if name in outputs})


def _kept_columns(hidden_NH: Tensor, weight: Tensor, bias: Tensor | None, lora: Tensor | None, budget: int) -> int:
    """Columns of logits that the budget keeps; none where no backward can follow."""
    differentiable = any(x is not None and x.requires_grad for x in (hidden_NH, weight, bias, lora))
    if not (torch.is_grad_enabled() and differentiable):
        return 0
    row_bytes = max(1, hidden_NH.shape[0] * weight.element_size())
    return min(weight.shape[0], budget // row_bytes)


@torch.library.custom_op("rlsft::linear_logprob", mutates_args=())
def _linear_logprob_op(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    lora_hidden: Tensor | None,  # [N, r]
    lora_weight: Tensor | None,  # [V, r]
    temperature_N: Tensor | None,
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    outputs: str,  # comma-separated
    ignore_index: int,
    tile_bytes: int,
    kept_columns: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    device_type, dtype = hidden.device.type, hidden.dtype
    chosen = choose_backend("linear_logprob", backend, device_type=device_type, dtype=dtype, supported=SUPPORTED)
    kept = hidden.new_empty(hidden.shape[0] * kept_columns)
    inputs = HeadInputs(hidden, weight, bias, lora_hidden, lora_weight)
    fields = linear_logprob_fwd(
        Head(inputs.weights, bias, softcap, logit_scale),
        row_kernels(chosen),
        inputs.hiddens,
        targets,
        temperature if temperature_N is None else temperature_N.to(statistics_dtype(dtype)),
        frozenset(outputs.split(",")) | _ALWAYS,
        ignore_index,
        tile_bytes,
        kept,
    )
    return *(fields[name] for name in STATISTICS), kept  # type: ignore[return-value]


@_linear_logprob_op.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    lora_hidden: Tensor | None,
    lora_weight: Tensor | None,
    temperature_N: Tensor | None,
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    outputs: str,
    ignore_index: int,
    tile_bytes: int,
    kept_columns: int,
    backend: str,
) -> tuple[Tensor, ...]:
    wanted = frozenset(outputs.split(",")) | _ALWAYS
    wide = statistics_dtype(hidden.dtype)
    fields = (
        hidden.new_empty(hidden.shape[0] if name in wanted else 0, dtype=torch.bool if name == "is_top1" else wide)
        for name in STATISTICS
    )
    return *fields, hidden.new_empty(hidden.shape[0] * kept_columns)


@torch.library.custom_op("rlsft::linear_logprob_backward", mutates_args=())
def _linear_logprob_backward_op(
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
    grad_lse: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    lora_hidden: Tensor | None,
    lora_weight: Tensor | None,
    temperature_N: Tensor | None,
    saved: list[Tensor],  # SAVED, then the kept logits
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    ignore_index: int,
    tile_bytes: int,
    needs: list[bool],  # hidden, weight, bias, lora_hidden, lora_weight
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    device_type, dtype = hidden.device.type, hidden.dtype
    chosen = choose_backend(
        "linear_logprob_backward", backend, device_type=device_type, dtype=dtype, supported=SUPPORTED
    )
    inputs = HeadInputs(hidden, weight, bias, lora_hidden, lora_weight)
    found = linear_logprob_bwd(
        Head(inputs.weights, bias, softcap, logit_scale),
        row_kernels(chosen),
        inputs.hiddens,
        targets,
        temperature if temperature_N is None else temperature_N.to(statistics_dtype(dtype)),
        UpstreamGradients(grad_logprob, grad_entropy, grad_lse),
        dict(zip(SAVED, saved[:-1], strict=True)),
        ignore_index,
        tile_bytes,
        inputs.needs(needs),
        saved[-1],
    )
    hidden_grad, weight_grad, bias_grad, *adapter = gradients_for_inputs(inputs, found)
    bias_grad = bias_grad if bias is None else bias_grad.to(bias.dtype)
    return hidden_grad, weight_grad, bias_grad, adapter[0], adapter[1]


@_linear_logprob_backward_op.register_fake
def _(
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
    grad_lse: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    lora_hidden: Tensor | None,
    lora_weight: Tensor | None,
    temperature_N: Tensor | None,
    saved: list[Tensor],
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    ignore_index: int,
    tile_bytes: int,
    needs: list[bool],
    backend: str,
) -> tuple[Tensor, ...]:
    inputs = (hidden, weight, bias, lora_hidden, lora_weight)
    return tuple(
        weight.new_empty(0) if x is None or not need else x.new_empty(x.shape)
        for x, need in zip(inputs, needs, strict=True)
    )


_DIFFERENTIABLE_INPUTS = (0, 1, 3, 4, 5)  # hidden, weight, bias, lora_hidden, lora_weight


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, temperature, softcap, logit_scale, _outputs, ignore_index, tile_bytes, _kept, ctx.backend = inputs
    ctx.transform = (temperature, softcap, logit_scale, ignore_index, tile_bytes)
    fields = dict(zip(STATISTICS, output[:-1], strict=True))
    ctx.set_materialize_grads(False)  # an entropy that is only logged must not cost a zero gradient
    constant = (fields[name] for name in STATISTICS if name not in ("logprob", "entropy", "lse"))
    ctx.mark_non_differentiable(*constant, output[-1])
    ctx.save_for_backward(*tensors, *(fields[name] for name in SAVED), output[-1])


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    by_input: list[Tensor | None] = [None] * 15
    # unpacked once: activation checkpointing would have to compute the forward again for a second time
    unpacked = ctx.saved_tensors
    tensors, saved = unpacked[:-5], list(unpacked[-5:])
    needs = [ctx.needs_input_grad[i] for i in _DIFFERENTIABLE_INPUTS]
    upstream = grads[:3]
    if all(grad is None for grad in upstream) or not any(needs):
        return tuple(by_input)
    found = torch.ops.rlsft.linear_logprob_backward(*upstream, *tensors, saved, *ctx.transform, needs, ctx.backend)
    for position, grad, need in zip(_DIFFERENTIABLE_INPUTS, found, needs, strict=True):
        by_input[position] = grad if need else None
    return tuple(by_input)


def _name_op(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.op = "linear_logprob"


_linear_logprob_op.register_autograd(_backward, setup_context=_save_for_backward)
_linear_logprob_backward_op.register_autograd(refuse_double_backward, setup_context=_name_op)
