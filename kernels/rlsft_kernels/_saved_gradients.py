"""Backward of the ops that compute their gradient in the forward: saved gradients times a scalar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from rlsft_kernels._eager import is_traced


def scaled_gradients(gradients: Sequence[Tensor], scale: Tensor, inputs: Sequence[Tensor], op: str) -> list[Tensor]:
    """`gradients[i] * scale` in the dtype of `inputs[i]`, for the backward of an op that saved its gradients.

    Only a backward that records itself (create_graph=True) can be differentiated again, so only that one pays for the
    op below, whose own backward refuses. One that frees its graph hands the saved tensors themselves on where the
    scale is 1: a weight's gradient is as large as the head, and its copy costs half of the product that made it.
    """
    if torch.is_grad_enabled() or is_traced(gradients):
        return scale_saved_gradients(list(gradients), scale, list(inputs), op)
    if _graph_is_kept():
        return _scale(gradients, scale, inputs)
    if scale.device.type == "cpu" and float(scale) == 1.0:  # a look at a number that costs nothing here
        return [g if g.dtype == x.dtype else g.to(x.dtype) for g, x in zip(gradients, inputs, strict=True)]
    return _scale(gradients, scale, inputs)


def _graph_is_kept() -> bool:
    """Whether this backward may run again (retain_graph=True); True where this version of torch does not tell."""
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if ask is None else bool(ask())


def _scale(gradients: Sequence[Tensor], scale: Tensor, inputs: Sequence[Tensor]) -> list[Tensor]:
    # multiplied before the cast: a GradScaler's factor must arrive before half precision could underflow
    # and nothing is converted that fits already: for a few pairs each call weighs
    scaled = [_times(g, scale) for g in gradients]
    return [g if g.dtype == x.dtype else g.to(x.dtype) for g, x in zip(scaled, inputs, strict=True)]


def _times(gradient: Tensor, scale: Tensor) -> Tensor:
    """`gradient * scale`, of the gradient's dtype; the scale itself is never rounded to half precision.

    1 / 6144 is no bfloat16 number: rounded first, it would make every gradient of 6144 tokens 0.2 % too long.
    """
    if scale.dtype == gradient.dtype:
        return gradient * scale
    if gradient.dtype not in (torch.bfloat16, torch.float16):
        return gradient * scale.to(gradient.dtype)
    if gradient.device.type == "cpu":  # torch takes a scalar on the CPU at its own precision
        return gradient * scale
    return torch.mul(gradient, scale.reshape([1] * gradient.dim()), out=torch.empty_like(gradient))


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


PairForward = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]  # loss, stats, gradients of the loss by two inputs


def pair_op_with_gradients(op: Any, forward: PairForward, name: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The call `(first, second, *rest) -> (loss, stats)` of an op whose forward returns its gradients too.

    Traced, it is the custom op; an eager call on plain tensors takes the same forward and backward through a function
    of autograd, because on a few pairs the wrappers of a custom op cost several times what the loss does.

    Args:
        op: the custom op made of `forward`; gets its autograd here.
        forward: `(first, second, *rest) -> (loss, stats, gradient by first, gradient by second)`.
        name: of the public function, for the message that refuses a second derivative.
    """
    op.register_autograd(_pair_backward(name), setup_context=_save_pair_gradients)

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
            output = forward(*inputs)
            _save_pair_gradients(ctx, inputs, output)
            return output[0], output[1]

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
            return _pair_backward(name)(ctx, grads[0])

    def call(first: Tensor, second: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        if is_traced((first, second)):
            loss, stats, *_ = op(first, second, *rest)
            return loss, stats
        if torch.is_grad_enabled() and (first.requires_grad or second.requires_grad):
            return Direct.apply(first, second, *rest)  # type: ignore[no-any-return]
        loss, stats, *_ = forward(first, second, *rest)
        return loss, stats

    return call


def _save_pair_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _loss, stats, *gradients = output
    ctx.num_inputs = len(inputs)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(stats, *gradients)
    ctx.save_for_backward(*gradients, inputs[0], inputs[1])


def _pair_backward(name: str) -> Callable[..., tuple[Tensor | None, ...]]:
    def backward(ctx: Any, grad_loss: Tensor | None, *_unused: Any) -> tuple[Tensor | None, ...]:
        if grad_loss is None:
            return (None,) * ctx.num_inputs
        saved = ctx.saved_tensors
        first, second = scaled_gradients(saved[:2], grad_loss, saved[2:], name)
        return first, second, *(None,) * (ctx.num_inputs - 2)

    return backward
