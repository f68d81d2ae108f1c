"""Whether a call is plain eager PyTorch, which needs none of the wrappers of a custom op."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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
