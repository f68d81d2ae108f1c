"""Tensors as the native losses read them: NumPy views of contiguous memory, without a copy where none is needed."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

# What the native element-wise ops take; sums and exponentials run in float32 or wider.
NATIVE_DTYPES = ("float32", "bfloat16", "float16")


def as_column(x: Tensor) -> npt.NDArray[Any]:
    """float32 and float16 as they are, bfloat16 as its bits in uint16, float64 rounded to float32."""
    x = x.detach()
    if not x.is_contiguous():
        x = x.contiguous()
    if x.dtype == torch.float32:
        return x.numpy()
    if x.dtype == torch.bfloat16:
        x = x.view(torch.uint16)
    elif x.dtype == torch.float64:
        x = x.float()
    return x.numpy()


def as_optional_column(x: Tensor | None) -> npt.NDArray[Any] | None:
    """`as_column`, or None."""
    return None if x is None else as_column(x)


def as_mask(mask: Tensor) -> npt.NDArray[Any]:
    """One byte each, nonzero where a token counts."""
    kept = mask if mask.dtype == torch.bool else mask != 0
    return kept.contiguous().view(torch.uint8).numpy()


def scalar(x: float) -> Tensor:
    """0-d float32 on the CPU; `torch.tensor` takes three times as long, which counts for a few pairs."""
    return torch.scalar_tensor(x, dtype=torch.float32, device="cpu")
