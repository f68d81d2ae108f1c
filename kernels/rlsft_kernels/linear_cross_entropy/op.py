"""linear_cross_entropy: the SFT loss from hidden states and the head, its gradient made in the forward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsft_kernels._backend import Backend, Supported, choose_backend
from rlsft_kernels._checks import require_number, require_positive_int, require_scalar
from rlsft_kernels._head import DEFAULT_TILE_BYTES, Head, checked_head, statistics_dtype
from rlsft_kernels._saved_gradients import scale_saved_gradients
from rlsft_kernels.linear_cross_entropy.torch_path import linear_cross_entropy_fwd

SUPPORTED: Supported = {}


def linear_cross_entropy(
    hidden: Tensor,  # [..., H] float32, bfloat16, float16 or float64
    weight: Tensor,  # [V, H], dtype of hidden
    targets: Tensor,  # [...] int64
    *,
    bias: Tensor | None = None,  # [V]
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    normalizer: float | Tensor | None = None,  # a number or 0-d
    tile_bytes: int = DEFAULT_TILE_BYTES,
    backend: Backend = "auto",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of a language-model head without the `[N, V]` logits; `(loss, stats)`.

    Equals `F.cross_entropy(z, targets, ignore_index=ignore_index, reduction="sum") / normalizer` for
    `z = softcap * tanh(logit_scale * (hidden @ weight.T + bias) / softcap)`, with the softmax in float32
    (float64 for float64 input). Ignored rows are dropped before the first matrix product: they cost nothing,
    their gradient is exactly zero, and what they hold (NaN too) does not matter.

    Args:
        hidden: last hidden states, any number of leading axes.
        weight: weight of the output embedding; frozen, it costs no gradient.
        targets: token ids, already shifted, or `ignore_index`.
        bias: bias of the output embedding.
        ignore_index: target value of rows that do not count.
        softcap: cap of the logits.
        logit_scale: factor on the logits.
        normalizer: what the sum is divided by: None is the number of labelled tokens (at least 1); with
            gradient accumulation pass the labelled tokens of the whole step. A tensor stays on its device.
        tile_bytes: memory of the logits tile.
        backend: which implementation runs; "auto" picks by device and dtype.

    Returns:
        The 0-d loss (float32; float64 for float64 input), and 0-d tensors without gradient on the device:
        `num_tokens`, `sum_nll`, `accuracy` (top-1) and `entropy`, the last two as means over the labelled
        tokens.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or value does not fit; on the CPU also a target outside the vocabulary.
    """
    hidden, weight, bias = checked_head(hidden, weight, targets, bias)
    require_number("logit_scale", logit_scale)
    require_positive_int("tile_bytes", tile_bytes)
    if softcap is not None:
        require_number("softcap", softcap, above=0)
    if normalizer is not None:
        require_scalar("normalizer", normalizer)
    recording = torch.is_grad_enabled()
    needs = [recording and x is not None and x.requires_grad for x in (hidden, weight, bias)]
    nll, sums, *_ = torch.ops.rlsft.linear_cross_entropy(
        hidden.reshape(-1, hidden.shape[-1]),
        weight,
        targets.reshape(-1),
        bias,
        softcap,
        float(logit_scale),
        ignore_index,
        tile_bytes,
        needs,
        backend,
    )
    num_tokens, num_correct, entropy = sums.unbind()
    at_least_one = num_tokens.clamp(min=1)
    stats = {
        "num_tokens": num_tokens,
        "sum_nll": nll.detach(),
        "accuracy": num_correct / at_least_one,
        "entropy": entropy / at_least_one,
    }
    return nll / (at_least_one if normalizer is None else normalizer), stats


@torch.library.custom_op("rlsft::linear_cross_entropy", mutates_args=())
def _linear_cross_entropy_op(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    logit_scale: float,
    ignore_index: int,
    tile_bytes: int,
    needs: list[bool],  # gradients by hidden, weight, bias
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    op = "linear_cross_entropy"
    choose_backend(op, backend, device_type=hidden.device.type, dtype=hidden.dtype, supported=SUPPORTED)
    head = Head(weight, bias, softcap, logit_scale)
    return linear_cross_entropy_fwd(head, hidden, targets, ignore_index, tile_bytes, (needs[0], needs[1], needs[2]))


@_linear_cross_entropy_op.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    logit_scale: float,
    ignore_index: int,
    tile_bytes: int,
    needs: list[bool],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    wide = statistics_dtype(hidden.dtype)
    return (
        hidden.new_empty((), dtype=wide),
        hidden.new_empty(3, dtype=wide),
        hidden.new_empty(hidden.shape if needs[0] else 0),
        weight.new_empty(weight.shape if needs[1] else 0, dtype=wide if needs[1] else weight.dtype),
        weight.new_empty(weight.shape[0] if needs[2] else 0, dtype=wide if needs[2] else weight.dtype),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, weight, _targets, bias, *_rest, ctx.needs, _backend = inputs
    _nll, sums, *gradients = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(sums, *gradients)
    needed = [i for i, need in enumerate(ctx.needs) if need]
    ctx.save_for_backward(*(gradients[i] for i in needed), *((hidden, weight, bias)[i] for i in needed))


def _backward(ctx: Any, grad_nll: Tensor | None, *_unused: Any) -> tuple[Tensor | None, ...]:
    by_input: list[Tensor | None] = [None, None, None]
    if grad_nll is not None and any(ctx.needs):
        num = sum(ctx.needs)
        gradients, inputs = list(ctx.saved_tensors[:num]), list(ctx.saved_tensors[num:])
        scaled = iter(scale_saved_gradients(gradients, grad_nll, inputs, "linear_cross_entropy"))
        by_input = [next(scaled) if need else None for need in ctx.needs]
    return by_input[0], by_input[1], None, by_input[2], *(None,) * 6


_linear_cross_entropy_op.register_autograd(_backward, setup_context=_save_for_backward)
