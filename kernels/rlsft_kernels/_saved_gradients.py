"""Backward of the ops that compute their gradient in the forward: saved gradients times a scalar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor


def scaled_gradients(gradients: Sequence[Tensor], scale: Tensor, inputs: Sequence[Tensor], op: str) -> list[Tensor]:
    """`gradients[i] * scale` in the dtype of `inputs[i]`, for the backward of an op that saved its gradients.

    Only a backward that records itself (create_graph=True) can be differentiated again, so only that one pays for the
    op below, whose own backward refuses. One that frees its graph hands the saved tensors themselves on where the
    scale is 1: a weight's gradient is as large as the head, and its copy costs half of the product that made it.
    """
    if torch.is_grad_enabled() or _is_traced(gradients):
        return scale_saved_gradients(list(gradients), scale, list(inputs), op)
    if _graph_is_kept():
        return _scale(gradients, scale, inputs)
    if scale.device.type == "cpu" and float(scale) == 1.0:  # a look at a number that costs nothing here
        return [g if g.dtype == x.dtype else g.to(x.dtype) for g, x in zip(gradients, inputs, strict=True)]
    return _scale(gradients, scale, inputs)


def _is_traced(tensors: Sequence[Tensor]) -> bool:
    """Whether what runs is recorded as a program, which must not depend on the number that the scale holds now."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0 or any(
        type(x) is not Tensor for x in tensors
    )  # fmt: skip


def _graph_is_kept() -> bool:
    """Whether this backward may run again (retain_graph=True); True where this version of torch does not tell."""
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if ask is None else bool(ask())


def _scale(gradients: Sequence[Tensor], scale: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    # multiplied before the cast: a GradScaler's factor must arrive before half precision could underflow
    # and nothing is converted that fits already: for a few pairs each call weighs
    scaled = [g * (scale if scale.dtype == g.dtype else scale.to(g.dtype)) for g in gradients]
    return [g if g.dtype == x.dtype else g.to(x.dtype) for g, x in zip(scaled, inputs, strict=True)]


@torch.library.custom_op("rlsft::scale_saved_gradients", mutates_args=())
def scale_saved_gradients(gradients: list[Tensor], scale: Tensor, inputs: list[Tensor], op: str) -> list[Tensor]:
    """`gradients[i] * scale`, on the device and in the dtype of `inputs[i]`.

    `inputs` ties the result to the tensors it is a gradient of: differentiating it again reaches
    the error below instead of being taken for a constant.
    """
    return _scale(gradients, scale, inputs)


@scale_saved_gradients.register_fake
def _(gradients: list[Tensor], scale: Tensor, inputs: list[Tensor], op: str) -> list[Tensor]:
    return [g.new_empty(g.shape, dtype=x.dtype) for g, x in zip(gradients, inputs, strict=True)]


def _remember_name(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.op = inputs[3]


def refuse_double_backward(ctx: Any, *_grads: Any) -> NoReturn:
    """Registered as the backward of every backward op."""
    raise RuntimeError(
        f"{ctx.op} has no second derivative: its gradient was asked to be differentiated again "
        "(create_graph=True). Use the function in its reference.py for that."
    )


scale_saved_gradients.register_autograd(refuse_double_backward, setup_context=_remember_name)


def register_pair_gradients(op: Any, name: str) -> None:
    """Autograd of an op that returns (loss, stats, gradients of the loss by its first two inputs).

    Args:
        op: the custom op.
        name: of the public function, for the message that refuses a second derivative.
    """

    def save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _loss, stats, *gradients = output
        ctx.num_inputs = len(inputs)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(stats, *gradients)
        ctx.save_for_backward(*gradients, inputs[0], inputs[1])

    def backward(ctx: Any, grad_loss: Tensor | None, *_unused: Any) -> tuple[Tensor | None, ...]:
        if grad_loss is None:
            return (None,) * ctx.num_inputs
        saved = ctx.saved_tensors
        first, second = scaled_gradients(saved[:2], grad_loss, saved[2:], name)
        return first, second, *(None,) * (ctx.num_inputs - 2)

    op.register_autograd(backward, setup_context=save)
