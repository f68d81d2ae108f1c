"""Backward of the ops that compute their gradient in the forward: saved gradients times a scalar."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor


@torch.library.custom_op("rlsft::scale_saved_gradients", mutates_args=())
def scale_saved_gradients(gradients: list[Tensor], scale: Tensor, inputs: list[Tensor], op: str) -> list[Tensor]:
    """`gradients[i] * scale`, on the device and in the dtype of `inputs[i]`.

    The multiplication runs before the cast, so a GradScaler's factor arrives before half precision could
    underflow. `inputs` ties the result to the tensors it is a gradient of: differentiating it again reaches
    the error below instead of being taken for a constant.
    """
    return [(g * scale.to(g.dtype)).to(x.dtype) for g, x in zip(gradients, inputs, strict=True)]


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
