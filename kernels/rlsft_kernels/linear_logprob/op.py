"""linear_logprob: log-probability, entropy and logsumexp of tokens from hidden states and the head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlsft_kernels._backend import Backend, Supported, choose_backend
from rlsft_kernels._checks import require_choice, require_number, require_positive_int
from rlsft_kernels._head import DEFAULT_TILE_BYTES, Head, checked_head, statistics_dtype
from rlsft_kernels._saved_gradients import refuse_double_backward
from rlsft_kernels.linear_logprob.reference import LogprobOutput
from rlsft_kernels.linear_logprob.torch_path import (
    FIELDS,
    SavedStatistics,
    UpstreamGradients,
    linear_logprob_bwd,
    linear_logprob_fwd,
)

SUPPORTED: Supported = {}
_SAVED = {"logprob", "row_max", "log_sum"}


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
    ignore_index: int = -100,
    tile_bytes: int = DEFAULT_TILE_BYTES,
    backend: Backend = "auto",
) -> LogprobOutput:
    """Log-probability of `targets` under the softmax of a language-model head, without the `[N, V]` logits.

    Equals `log_softmax(z)[targets]` for `z = softcap * tanh(logit_scale * (hidden @ weight.T + bias) /
    softcap) / temperature`; the order bias, logit_scale, softcap, temperature is fixed. The matrix product
    runs in the input dtype, everything after it in float32 (float64 for float64 input). Under
    `torch.autocast` hidden and weight are cast as by `F.linear`.

    Gradients flow to hidden, weight and bias through `logprob`, `entropy` and `lse`. A frozen weight costs no
    weight gradient; rows whose upstream gradient is zero cost no backward. There is no second derivative.

    Args:
        hidden: last hidden states, any number of leading axes.
        weight: weight of the output embedding.
        targets: token ids; rows equal to `ignore_index` give 0 everywhere and exactly zero gradient.
        bias: bias of the output embedding.
        temperature: a positive number, or one per token.
        softcap: cap of the final logits (Gemma's `final_logit_softcapping`).
        logit_scale: factor on the logits (Cohere's `logit_scale`).
        outputs: names of the fields of `LogprobOutput` to compute; the others are None.
        ignore_index: target value of rows to leave out.
        tile_bytes: memory of the logits tile; more rows a tile are faster up to the cache of the machine.
        backend: which implementation runs; "auto" picks by device and dtype.

    Returns:
        `LogprobOutput`, tensors shaped like `targets`. A row whose logits are all -inf gives NaN, as
        log_softmax does.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or value does not fit; on the CPU also a target outside the vocabulary.
    """
    hidden, weight, bias = checked_head(hidden, weight, targets, bias)
    if isinstance(outputs, str):
        raise TypeError(f"outputs must be a sequence of names, got the string {outputs!r}; pass ({outputs!r},)")
    for name in outputs:
        require_choice("outputs", name, LogprobOutput._fields)
    require_number("logit_scale", logit_scale)
    require_positive_int("tile_bytes", tile_bytes)
    if softcap is not None:
        require_number("softcap", softcap, above=0)
    temperature_N = _flat_temperature(temperature, targets)
    fields = torch.ops.rlsft.linear_logprob(
        hidden.reshape(-1, hidden.shape[-1]),
        weight,
        targets.reshape(-1),
        bias,
        temperature_N,
        1.0 if isinstance(temperature, Tensor) else float(temperature),
        softcap,
        float(logit_scale),
        ",".join(outputs),
        ignore_index,
        tile_bytes,
        backend,
    )
    asked = {name: x.view(targets.shape) for name, x in zip(FIELDS, fields, strict=True) if name in outputs}
    return LogprobOutput(**asked)


def _flat_temperature(temperature: float | Tensor, targets: Tensor) -> Tensor | None:
    if not isinstance(temperature, Tensor):
        require_number("temperature", temperature, above=0)
        return None
    if temperature.shape != targets.shape:
        raise ValueError(
            f"temperature must be a number or shaped like targets {list(targets.shape)}, got {list(temperature.shape)}"
        )
    if temperature.requires_grad:
        raise ValueError("temperature gets no gradient; pass temperature.detach()")
    return temperature.reshape(-1)


@torch.library.custom_op("rlsft::linear_logprob", mutates_args=())
def _linear_logprob_op(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    temperature_N: Tensor | None,
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    outputs: str,  # comma-separated
    ignore_index: int,
    tile_bytes: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    choose_backend("linear_logprob", backend, device_type=hidden.device.type, dtype=hidden.dtype, supported=SUPPORTED)
    head = Head(weight, bias, softcap, logit_scale)
    spread = temperature if temperature_N is None else temperature_N.to(statistics_dtype(hidden.dtype))
    wanted = frozenset(outputs.split(",")) | _SAVED
    fields = linear_logprob_fwd(head, hidden, targets, spread, wanted, ignore_index, tile_bytes)
    return tuple(fields[name] for name in FIELDS)  # type: ignore[return-value]


@_linear_logprob_op.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    temperature_N: Tensor | None,
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    outputs: str,
    ignore_index: int,
    tile_bytes: int,
    backend: str,
) -> tuple[Tensor, ...]:
    wanted = frozenset(outputs.split(",")) | _SAVED
    wide = statistics_dtype(hidden.dtype)
    return tuple(
        hidden.new_empty(hidden.shape[0] if name in wanted else 0, dtype=torch.bool if name == "is_top1" else wide)
        for name in FIELDS
    )


@torch.library.custom_op("rlsft::linear_logprob_backward", mutates_args=())
def _linear_logprob_backward_op(
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
    grad_lse: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    temperature_N: Tensor | None,
    saved: list[Tensor],  # logprob, entropy, row_max, log_sum
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    ignore_index: int,
    tile_bytes: int,
    needs: list[bool],  # hidden, weight, bias
) -> tuple[Tensor, Tensor, Tensor]:
    wide = statistics_dtype(hidden.dtype)
    hidden_grad, weight_grad, bias_grad = linear_logprob_bwd(
        Head(weight, bias, softcap, logit_scale),
        hidden,
        targets,
        temperature if temperature_N is None else temperature_N.to(wide),
        UpstreamGradients(grad_logprob, grad_entropy, grad_lse, wide),
        SavedStatistics(*saved),
        ignore_index,
        tile_bytes,
        (needs[0], needs[1], needs[2]),
    )
    return hidden_grad, weight_grad.to(weight.dtype), bias_grad if bias is None else bias_grad.to(bias.dtype)


@_linear_logprob_backward_op.register_fake
def _(
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
    grad_lse: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    temperature_N: Tensor | None,
    saved: list[Tensor],
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    ignore_index: int,
    tile_bytes: int,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    empty = weight.new_empty(0)
    return (
        hidden.new_empty(hidden.shape) if needs[0] else empty,
        weight.new_empty(weight.shape) if needs[1] else weight.new_empty(0),
        bias.new_empty(bias.shape) if needs[2] and bias is not None else weight.new_empty(0),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    (
        hidden,
        weight,
        targets,
        bias,
        temperature_N,
        *ctx.transform,
        _outputs,
        ctx.ignore_index,
        ctx.tile_bytes,
        _,
    ) = inputs
    fields = dict(zip(FIELDS, output, strict=True))
    ctx.set_materialize_grads(False)  # an entropy that is only logged must not cost a zero gradient
    ctx.mark_non_differentiable(*(fields[name] for name in FIELDS if name not in ("logprob", "entropy", "lse")))
    saved = [fields[name] for name in ("logprob", "entropy", "row_max", "log_sum")]
    ctx.save_for_backward(hidden, weight, targets, bias, temperature_N, *saved)


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    hidden, weight, targets, bias, temperature_N, *saved = ctx.saved_tensors
    needs = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[3]]
    upstream = grads[:3]
    if all(grad is None for grad in upstream) or not any(needs):
        return (None,) * 12
    found = torch.ops.rlsft.linear_logprob_backward(
        *upstream, hidden, weight, targets, bias, temperature_N, saved, *ctx.transform,
        ctx.ignore_index, ctx.tile_bytes, needs,
    )  # fmt: skip
    grad_hidden, grad_weight, grad_bias = (g if need else None for g, need in zip(found, needs, strict=True))
    return grad_hidden, grad_weight, None, grad_bias, *(None,) * 8


def _name_op(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.op = "linear_logprob"


_linear_logprob_op.register_autograd(_backward, setup_context=_save_for_backward)
_linear_logprob_backward_op.register_autograd(refuse_double_backward, setup_context=_name_op)
