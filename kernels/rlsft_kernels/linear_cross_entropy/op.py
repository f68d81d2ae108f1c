"""linear_cross_entropy: the SFT loss from hidden states and the head, its gradient made in the forward."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rlsft_kernels._aggregation import place_normalizer
from rlsft_kernels._backend import Backend, choose_backend
from rlsft_kernels._checks import require_choice, require_float_tensor, require_positive_int, require_scalar
from rlsft_kernels._eager import refuse_forward_mode
from rlsft_kernels._head.head import Head, check_transform, checked_head, statistics_dtype
from rlsft_kernels._head.in_forward import (
    chosen_plan,
    fake_gradients,
    needed_gradients,
    save_head_gradients,
    scaled_head_gradients,
)
from rlsft_kernels._head.inputs import HeadInputs, gradients_for_inputs
from rlsft_kernels._head.lora import lora_factors
from rlsft_kernels._head.select import SUPPORTED, row_kernels
from rlsft_kernels._head.tiling import DEFAULT_TILE_BYTES
from rlsft_kernels.linear_cross_entropy.tiled import linear_cross_entropy_fwd

KINDS = ("nll", "dft")


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
    kind: Literal["nll", "dft"] = "nll",
    token_weights: Tensor | None = None,  # [...] float
    lora: tuple[Tensor, Tensor, float] | None = None,  # A [r, H], B [V, r], scale
    tile_bytes: int = DEFAULT_TILE_BYTES,
    backend: Backend = "auto",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of a language-model head without the `[N, V]` logits; `(loss, stats)`.

    Equals `F.cross_entropy(z, targets, ignore_index=ignore_index, reduction="sum") / normalizer` for
    `z = softcap * tanh(logit_scale * (hidden @ weight.T + bias) / softcap)`, with the softmax in float32
    (float64 for float64 input). Ignored rows are dropped before the first matrix product: they cost nothing,
    their gradient is exactly zero, and what they hold (NaN too) does not matter.

    The gradient is made in the forward: three matrix products for loss and gradients, two with a frozen weight. In
    bfloat16 over several tiles on a CPU it takes a fourth, which is faster there than adding up the weight gradient.

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
        kind: "nll", or "dft" for dynamic fine-tuning (arXiv 2508.05629): each token's loss times its own
            probability, taken as a constant.
        token_weights: factor on the loss of each token, a constant; the statistics leave it out.
        lora: a low-rank update of the head, `weight + scale * B @ A`, without merging it.
        tile_bytes: memory of the logits tile, an upper limit.
        backend: which implementation runs; "auto" picks by device and dtype.

    Returns:
        The 0-d loss (float32; float64 for float64 input), and 0-d tensors without gradient on the device:
        `num_tokens`, `sum_nll`, `accuracy` (top-1) and `entropy`, the last two as means over the labelled
        tokens.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or value does not fit; on the CPU also a target outside the vocabulary.
    """
    refuse_forward_mode("linear_cross_entropy", hidden, weight, bias)
    hidden, weight, bias = checked_head(hidden, weight, targets, bias)
    check_transform(softcap, logit_scale)
    require_positive_int("tile_bytes", tile_bytes)
    require_choice("kind", kind, KINDS)
    if normalizer is not None:
        require_scalar("normalizer", normalizer)
    if token_weights is not None:
        _check_token_weights(token_weights, targets)
    hidden_NH = hidden.reshape(-1, hidden.shape[-1])
    lora_hidden, lora_weight = lora_factors(hidden_NH, weight, lora)
    wide = statistics_dtype(hidden.dtype)
    weights = targets.new_ones((), dtype=wide) if token_weights is None else token_weights.to(wide)
    labelled = (targets != ignore_index).sum().clamp(min=1) if normalizer is None else normalizer
    weights, left = place_normalizer(weights, labelled, hidden.dtype)
    total, sums, *_ = torch.ops.rlsft.linear_cross_entropy(
        hidden_NH,
        weight,
        targets.reshape(-1),
        bias,
        lora_hidden,
        lora_weight,
        weights.expand(targets.shape).reshape(-1),
        softcap,
        float(logit_scale),
        kind,
        ignore_index,
        tile_bytes,
        needed_gradients(hidden_NH, weight, bias, lora_hidden, lora_weight),
        backend,
    )
    num_tokens, num_correct, entropy, nll = sums.unbind()
    at_least_one = num_tokens.clamp(min=1)
    stats = {
        "num_tokens": num_tokens,
        "sum_nll": nll,
        "accuracy": num_correct / at_least_one,
        "entropy": entropy / at_least_one,
    }
    return total / left, stats


def _check_token_weights(token_weights: Tensor, targets: Tensor) -> None:
    require_float_tensor("token_weights", token_weights)
    if token_weights.shape != targets.shape:
        raise ValueError(
            f"token_weights must be shaped like targets {list(targets.shape)}, got {list(token_weights.shape)}"
        )
    if token_weights.requires_grad:
        raise ValueError("token_weights gets no gradient; pass token_weights.detach()")


@torch.library.custom_op("rlsft::linear_cross_entropy", mutates_args=())
def _linear_cross_entropy_op(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    lora_hidden: Tensor | None,
    lora_weight: Tensor | None,
    token_weights: Tensor | None,
    softcap: float | None,
    logit_scale: float,
    kind: str,
    ignore_index: int,
    tile_bytes: int,
    needs: list[bool],  # gradients by hidden, weight, bias, lora_hidden, lora_weight
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    op, dtype = "linear_cross_entropy", hidden.dtype
    chosen = choose_backend(op, backend, device_type=hidden.device.type, dtype=dtype, supported=SUPPORTED)
    inputs = HeadInputs(hidden, weight, bias, lora_hidden, lora_weight)
    out = linear_cross_entropy_fwd(
        Head(inputs.weights, bias, softcap, logit_scale),
        row_kernels(chosen),
        inputs.hiddens,
        targets,
        token_weights,
        kind,
        ignore_index,
        tile_bytes,
        inputs.needs(needs),
        chosen_plan(inputs, needs, tile_bytes, chosen),
    )
    return out.total, out.sums, *gradients_for_inputs(inputs, out.gradients)


@_linear_cross_entropy_op.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    lora_hidden: Tensor | None,
    lora_weight: Tensor | None,
    token_weights: Tensor | None,
    softcap: float | None,
    logit_scale: float,
    kind: str,
    ignore_index: int,
    tile_bytes: int,
    needs: list[bool],
    backend: str,
) -> tuple[Tensor, ...]:
    wide = statistics_dtype(hidden.dtype)
    inputs = HeadInputs(hidden, weight, bias, lora_hidden, lora_weight)
    gradients = fake_gradients(inputs, needs, tile_bytes, "linear_cross_entropy", backend)
    return hidden.new_empty((), dtype=wide), hidden.new_empty(4, dtype=wide), *gradients


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, weight, _targets, bias, lora_hidden, lora_weight, *_rest, needs, _backend = inputs
    save_head_gradients(ctx, HeadInputs(hidden, weight, bias, lora_hidden, lora_weight), needs, output, num_values=2)


def _backward(ctx: Any, grad_total: Tensor | None, *_unused: Any) -> tuple[Tensor | None, ...]:
    hidden, weight, bias, lora_hidden, lora_weight = scaled_head_gradients(ctx, grad_total, "linear_cross_entropy")
    return hidden, weight, None, bias, lora_hidden, lora_weight, *(None,) * 8


_linear_cross_entropy_op.register_autograd(_backward, setup_context=_save_for_backward)
