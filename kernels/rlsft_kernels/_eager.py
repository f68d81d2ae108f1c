"""Who calls: plain eager PyTorch, which needs none of the wrappers of a custom op, or somebody who transforms it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad


def is_traced(tensors: Sequence[Tensor]) -> bool:
    """Whether somebody records or transforms what runs: torch.compile, export, fake tensors, torch.func, a subclass.

    A program that is recorded must not depend on numbers that tensors hold now, and only a custom op is recorded whole.
    """
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or any(type(x) is not Tensor and type(x) is not torch.nn.Parameter for x in tensors)
    )


def refuse_forward_mode(op: str, *tensors: Tensor | None) -> None:
    """RuntimeError where a tensor carries a tangent: an op without a forward derivative would drop it silently."""
    if forward_ad._current_level < 0:
        return
    if any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise RuntimeError(
            f"{op} has no forward-mode derivative (torch.func.jvp, jacfwd, forward_ad): use its gradient, or the "
            "function in its reference.py"
        )
