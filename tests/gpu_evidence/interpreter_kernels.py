"""What Triton's own interpreter gets wrong for bfloat16, as one kernel; imported after the interpreter is on."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

NAMES = ("add", "subtract", "multiply", "negate", "maximum", "smaller", "rounded", "sum")


@triton.jit
def bf16_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    lanes = tl.arange(0, N)
    x, y = tl.load(x_ptr + lanes), tl.load(y_ptr + lanes)
    tl.store(out_ptr + lanes, x + y)
    tl.store(out_ptr + N + lanes, x - y)
    tl.store(out_ptr + 2 * N + lanes, x * y)
    tl.store(out_ptr + 3 * N + lanes, -x)
    tl.store(out_ptr + 4 * N + lanes, tl.maximum(x, y))
    tl.store(out_ptr + 5 * N + lanes, tl.where(x < y, x, y))
    tl.store(out_ptr + 6 * N + lanes, (x.to(tl.float32) * 1.0009765625).to(tl.bfloat16))
    tl.store(out_ptr + 7 * N + lanes, tl.sum(tl.where(lanes < 2, x, 0.0)).to(tl.bfloat16) + tl.zeros((N,), tl.bfloat16))


def run_bf16(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Results by the kernel."""
    out = torch.empty(len(NAMES), len(x), dtype=torch.bfloat16)
    bf16_kernel[(1,)](x, y, out, N=len(x))
    return dict(zip(NAMES, out, strict=True))


def bf16_arithmetic(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The same by PyTorch."""
    rounded = (x.float() * 1.0009765625).bfloat16()
    results = (x + y, x - y, x * y, -x, torch.maximum(x, y), torch.minimum(x, y), rounded)
    total = (x[0].float() + x[1].float()).bfloat16().expand_as(x)
    return dict(zip(NAMES, (*results, total), strict=True))
