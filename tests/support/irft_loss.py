"""A loss as a user would write it, for `loss_type: tests.support.irft_loss:squared`."""

from __future__ import annotations

from torch import Tensor


def squared(delta_real: Tensor, delta_generated: Tensor, *, beta: float, offset: float) -> Tensor:
    """`(1 - beta * (delta_real - delta_generated))^2`, as IPO has it up to scale."""
    return (1 - beta * (delta_real - delta_generated) + offset) ** 2
