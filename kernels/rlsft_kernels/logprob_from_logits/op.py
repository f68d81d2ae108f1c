"""logprob_from_logits: log-probability, entropy and logsumexp of tokens from logits that are already there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlsft_kernels._backend import Backend, choose_backend
from rlsft_kernels._checks import require_choice, require_float_tensor
from rlsft_kernels._eager import refuse_forward_mode
from rlsft_kernels._head.head import Head, check_transform, labelled_rows, spread_rows, statistics_dtype
from rlsft_kernels._head.passes import live_rows, row_gradients
from rlsft_kernels._head.rows import STATISTICS, finish_fold, start_fold
from rlsft_kernels._head.select import SUPPORTED, row_kernels
from rlsft_kernels._head.temperature import flat_temperature
from rlsft_kernels._saved_gradients import refuse_double_backward
from rlsft_kernels.linear_logprob.reference import LogprobOutput
from rlsft_kernels.linear_logprob.tiled import SAVED, UpstreamGradients

_ALWAYS = frozenset(("logprob", "row_max", "log_sum"))


def logprob_from_logits(
    logits: Tensor,  # [..., V] float32, bfloat16, float16 or float64
    targets: Tensor,  # [...] int64
    *,
    temperature: float | Tensor = 1.0,  # or [...], one per token
    softcap: float | None = None,
    logit_scale: float = 1.0,
    outputs: Sequence[str] = ("logprob",),
    ignore_index: int = -100,
    backend: Backend = "auto",
) -> LogprobOutput:
    """Log-probability of `targets` under the softmax of given logits: `linear_logprob` after its matrix product.

    Equals `log_softmax(z)[targets]` for `z = softcap * tanh(logit_scale * logits / softcap) / temperature`, in float32
    (float64 for float64 logits). One pass over the logits, one more for the gradient; no copy in float32 and no
    tensor of their size besides the gradient. Where the head is at hand `linear_logprob` needs no logits at all.

    Args:
        logits: scores of every token, any number of leading axes; contiguous rows are read where they lie.
        targets: token ids; rows equal to `ignore_index` give 0 everywhere and exactly zero gradient.
        temperature: a positive number, or one per token.
        softcap: cap of the scaled logits.
        logit_scale: factor on the logits.
        outputs: names of the fields of `LogprobOutput` to compute; the others are None.
        ignore_index: target value of rows to leave out.
        backend: which implementation runs; "auto" picks by device and dtype.

    Returns:
        `LogprobOutput`, tensors shaped like `targets`; gradients flow to `logits` through `logprob`, `entropy`, `lse`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or value does not fit; on the CPU also a target outside the vocabulary.
    """
    refuse_forward_mode("logprob_from_logits", logits)
    _check_logits(logits, targets)
    if isinstance(outputs, str):
        raise TypeError(f"outputs must be a sequence of names, got the string {outputs!r}; pass ({outputs!r},)")
    for name in outputs:
        require_choice("outputs", name, LogprobOutput._fields)
    check_transform(softcap, logit_scale)
    temperature_N, temperature_one = flat_temperature(temperature, targets)
    fields = torch.ops.rlsft.logprob_from_logits(
        logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), temperature_N, temperature_one, softcap,
        float(logit_scale), ",".join(outputs), ignore_index, backend,
    )  # fmt: skip
    statistics = zip(STATISTICS, fields, strict=True)
    return LogprobOutput(**{name: x.view(targets.shape) for name, x in statistics if name in outputs})


def _check_logits(logits: Tensor, targets: Tensor) -> None:
    require_float_tensor("logits", logits)
    if logits.ndim < 2 or logits.shape[-1] == 0:
        raise ValueError(f"logits must be [..., V] with V >= 1, got {list(logits.shape)}")
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64:
        came = getattr(targets, "dtype", type(targets).__name__)
        raise TypeError(f"targets must be int64 token ids, got {came}; convert with .long()")
    if targets.shape != logits.shape[:-1]:
        raise ValueError(f"targets must be {list(logits.shape[:-1])}, one per row of logits, got {list(targets.shape)}")
    if targets.device != logits.device:
        raise ValueError(f"targets must be on {logits.device} like logits, got {targets.device}")


def _head_of(logits: Tensor, softcap: float | None, logit_scale: float) -> Head:
    """The transform after a product that somebody else has made."""
    return Head((logits.new_empty(logits.shape[1], 0),), None, softcap, logit_scale)


def _rows(logits: Tensor) -> Tensor:
    return logits if logits.stride(1) == 1 and logits.stride(0) >= logits.shape[1] else logits.contiguous()


@torch.library.custom_op("rlsft::logprob_from_logits", mutates_args=())
def _logprob_from_logits_op(
    logits: Tensor,
    targets: Tensor,
    temperature_N: Tensor | None,
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    outputs: str,  # comma-separated
    ignore_index: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    device, dtype = logits.device, logits.dtype
    chosen = choose_backend("logprob_from_logits", backend, device_type=device.type, dtype=dtype, supported=SUPPORTED)
    kernels, wanted = row_kernels(chosen), frozenset(outputs.split(",")) | _ALWAYS
    wide, num_columns = statistics_dtype(dtype), logits.shape[1]
    if device.type == "cpu":
        labelled_rows(targets, ignore_index, num_columns)
    labelled_N = targets != ignore_index
    marked_N = torch.where(labelled_N, targets, 0)
    state = start_fold(len(targets), wanted, device=device, dtype=kernels.state_dtype(dtype))
    spread = temperature if temperature_N is None else temperature_N.to(wide)
    if len(targets):
        head = _head_of(logits, softcap, logit_scale)
        kernels.fold_(head, _rows(logits), slice(0, num_columns), marked_N, spread, state)
    found = finish_fold(state, marked_N, num_columns, wanted, wide)
    fields = (
        labelled_N.new_empty(0, dtype=torch.bool if name == "is_top1" else wide)
        if name not in found
        else spread_rows(found[name], None, labelled_N)
        for name in STATISTICS
    )
    return tuple(fields)  # type: ignore[return-value]


@_logprob_from_logits_op.register_fake
def _(
    logits: Tensor,
    targets: Tensor,
    temperature_N: Tensor | None,
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    outputs: str,
    ignore_index: int,
    backend: str,
) -> tuple[Tensor, ...]:
    wanted, wide = frozenset(outputs.split(",")) | _ALWAYS, statistics_dtype(logits.dtype)
    return tuple(
        logits.new_empty(logits.shape[0] if name in wanted else 0, dtype=torch.bool if name == "is_top1" else wide)
        for name in STATISTICS
    )


@torch.library.custom_op("rlsft::logprob_from_logits_backward", mutates_args=())
def _logprob_from_logits_backward_op(
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
    grad_lse: Tensor | None,
    logits: Tensor,
    targets: Tensor,
    temperature_N: Tensor | None,
    saved: list[Tensor],  # SAVED
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    ignore_index: int,
    backend: str,
) -> Tensor:
    op, dtype = "logprob_from_logits_backward", logits.dtype
    chosen = choose_backend(op, backend, device_type=logits.device.type, dtype=dtype, supported=SUPPORTED)
    wide = statistics_dtype(dtype)
    labelled_N = targets != ignore_index
    upstream = UpstreamGradients(grad_logprob, grad_entropy, grad_lse).of(None, wide)
    by = [None if x is None else torch.where(labelled_N, x, 0) for x in upstream]
    values = {name: x for name, x in zip(SAVED, saved, strict=True) if len(x) == len(targets)}
    spread = temperature if temperature_N is None else temperature_N.to(wide)
    gradients = row_gradients(torch.where(labelled_N, targets, 0), spread, values, *by)
    live_A = live_rows(*by)
    num_live = len(targets) if live_A is None else len(live_A)
    out_AV = logits.new_empty(num_live, logits.shape[1])
    if num_live:
        head, columns = _head_of(logits, softcap, logit_scale), slice(0, logits.shape[1])
        row_kernels(chosen).gradient_(head, _rows(logits), columns, gradients, live_A, out_AV)
    return out_AV if live_A is None else torch.zeros_like(logits).index_copy_(0, live_A, out_AV)


@_logprob_from_logits_backward_op.register_fake
def _(
    grad_logprob: Tensor | None,
    grad_entropy: Tensor | None,
    grad_lse: Tensor | None,
    logits: Tensor,
    *_settings: Any,
) -> Tensor:
    return logits.new_empty(logits.shape)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, temperature, softcap, logit_scale, _outputs, ignore_index, ctx.backend = inputs
    ctx.transform = (temperature, softcap, logit_scale, ignore_index)
    fields = dict(zip(STATISTICS, output, strict=True))
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*(fields[name] for name in STATISTICS if name not in ("logprob", "entropy", "lse")))
    ctx.save_for_backward(*tensors, *(fields[name] for name in SAVED))


def _backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    logits, targets, temperature_N, *saved = ctx.saved_tensors
    if all(grad is None for grad in grads[:3]):
        return (None,) * 9
    grad = torch.ops.rlsft.logprob_from_logits_backward(
        *grads[:3], logits, targets, temperature_N, saved, *ctx.transform, ctx.backend
    )
    return grad, *(None,) * 8


def _name_op(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.op = "logprob_from_logits"


_logprob_from_logits_op.register_autograd(_backward, setup_context=_save_for_backward)
_logprob_from_logits_backward_op.register_autograd(refuse_double_backward, setup_context=_name_op)
