"""What the custom ops of losses with an in-forward gradient share: plan, fake and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsft_kernels._backend import resolve_backend
from rlsft_kernels._head.head import statistics_dtype
from rlsft_kernels._head.inputs import HeadInputs
from rlsft_kernels._head.loss import LossPlan, plan_loss
from rlsft_kernels._head.select import SUPPORTED
from rlsft_kernels._saved_gradients import scaled_gradients


def needed_gradients(*inputs: Tensor | None) -> list[bool]:
    """Which inputs a backward may ask about. Asked for outside the op: inside, autograd is off."""
    recording = torch.is_grad_enabled()
    return [recording and x is not None and x.requires_grad for x in inputs]


def chosen_plan(inputs: HeadInputs, needs: list[bool], tile_bytes: int, backend: str) -> LossPlan:
    """The plan of a call, from shapes and dtypes alone."""
    return plan_loss(
        inputs.hidden.shape[0], inputs.weight, needs_weight=needs[1], tile_bytes=tile_bytes, backend=backend
    )


def fake_gradients(inputs: HeadInputs, needs: list[bool], tile_bytes: int, op: str, backend: str) -> tuple[Tensor, ...]:
    """Shapes and dtypes of `gradients_for_inputs`."""
    device_type, dtype = inputs.hidden.device.type, inputs.hidden.dtype
    chosen = resolve_backend(op, backend, device_type=device_type, dtype=dtype, supported=SUPPORTED)
    weight_dtype = chosen_plan(inputs, needs, tile_bytes, chosen).weight_dtype
    dtypes = (dtype, weight_dtype, statistics_dtype(dtype), dtype, weight_dtype)
    return tuple(
        inputs.weight.new_empty(0) if x is None or not need else x.new_empty(x.shape, dtype=of)
        for x, need, of in zip(inputs.in_order(), needs, dtypes, strict=True)
    )


def save_head_gradients(
    ctx: Any, inputs: HeadInputs, needs: list[bool], output: tuple[Tensor, ...], *, num_values: int
) -> None:
    """setup_context of such an op: the first of its outputs is the loss, the rest are constants."""
    gradients = output[num_values:]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.needs = needs
    needed = [i for i, need in enumerate(needs) if need]
    in_order = inputs.in_order()
    ctx.save_for_backward(*(gradients[i] for i in needed), *(in_order[i] for i in needed))


def scaled_head_gradients(ctx: Any, grad_total: Tensor | None, op: str) -> list[Tensor | None]:
    """The saved gradients times the upstream scalar, on the device, None where none is needed."""
    if grad_total is None or not any(ctx.needs):
        return [None] * len(ctx.needs)
    num = sum(ctx.needs)
    saved = ctx.saved_tensors  # once: activation checkpointing unpacks by computing the forward again
    gradients, inputs = list(saved[:num]), list(saved[num:])
    scaled = iter(scaled_gradients(gradients, grad_total, inputs, op))
    return [next(scaled) if need else None for need in ctx.needs]
