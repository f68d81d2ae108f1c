"""Device code that the element-wise Triton kernels share: accurate functions, settings as bits, ordered sums.

Every load is cast to float32 before any arithmetic. A reduction runs in two launches: blocks of `BLOCK` elements, a
size that depends on nothing but shapes, write one column each of `partials [K, P]`, and one more launch adds the
columns in order. No atomics, so repeated runs agree bitwise.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import struct

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024
MERGE = 1024


def float_bits(value: float) -> int:
    """Bits of a float32: a Python float as a kernel argument would be float64, as a constant it would recompile."""
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


def flat(x: Tensor | None) -> Tensor | None:
    """The elements in row-major order, copied only where they do not lie so."""
    return None if x is None else x.contiguous().view(-1)


def mask_bytes(mask: Tensor) -> Tensor:
    """[N] uint8, nonzero where a token counts."""
    as_bool = mask if mask.dtype == torch.bool else mask != 0
    return as_bool.contiguous().view(-1).view(torch.uint8)


@triton.jit
def as_float(bits):
    """The float32 that `float_bits` packed."""
    return tl.cast(bits, tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def load(ptr, offsets, inside, WHOLE: tl.constexpr):
    """float32; a block that is whole reads without a predicate, which an odd length would make scalar."""
    if WHOLE:
        return tl.load(ptr + offsets).to(tl.float32)
    return tl.load(ptr + offsets, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def load_mask(ptr, offsets, inside, WHOLE: tl.constexpr):
    """Whether each element counts."""
    if WHOLE:
        return tl.load(ptr + offsets) != 0
    return tl.load(ptr + offsets, mask=inside, other=0) != 0


@triton.jit
def store(ptr, offsets, x, inside, WHOLE: tl.constexpr):
    """The counterpart of `load`."""
    if WHOLE:
        tl.store(ptr + offsets, x)
    else:
        tl.store(ptr + offsets, x, mask=inside)


@triton.jit
def clamp(x, low, high):
    """NaN stays NaN, as in PyTorch."""
    return tl.where(x > high, high, tl.where(x < low, low, x))


@triton.jit
def exp(x):
    """`e^x`; what is left after whole powers of two is below 0.35, so that rounding `x / ln 2` costs no digit."""
    n = tl.floor(x * 1.4426950408889634 + 0.5)
    rest = (x - n * 0.693359375) + n * 2.12194440e-4
    return tl.exp2(rest * 1.4426950408889634) * tl.exp2(n)


@triton.jit
def expm1_less_x(x):
    """`e^x - 1 - x`, which cancels twice near 0: a series there."""
    series = 1.0 + x * (1 / 11)
    for n in tl.static_range(10, 2, -1):
        series = 1.0 + x * (1.0 / n) * series
    return tl.where(tl.abs(x) < 0.7, x * x * 0.5 * series, exp(x) - 1.0 - x)


@triton.jit
def softplus_of_negative(x):
    """(`log(1 + e^-x)`, `1 / (1 + e^x)`) for every finite x: the logistic loss and minus its slope."""
    z = exp(-tl.abs(clamp(x, -100.0, 100.0)))  # beyond, z has no weight beside 1 or |x|
    s = tl.div_rn(z, 2.0 + z)  # log(1 + z) = 2 atanh(z / (2 + z))
    square = s * s
    series = 1.0 / 15 + square * (1.0 / 17)
    for n in tl.static_range(13, 0, -2):
        series = 1.0 / n + square * series
    loss = tl.where(x < 0, -x, 0.0) + 2.0 * s * series
    slope = tl.div_rn(tl.where(x < 0, 1.0, z), 1.0 + z)
    return tl.where(x != x, x, loss), tl.where(x != x, x, slope)


@triton.jit
def kl_and_slope(difference, KIND: tl.constexpr):
    """Estimate of the KL from `logp - ref`, and its gradient by `logp`: zero where a clamp of the estimate holds."""
    d = clamp(difference, -20.0, 20.0)
    if KIND == "k1":
        estimate = d
        slope = d * 0.0 + 1.0
    elif KIND == "k2":
        estimate = d * d * 0.5
        slope = d
    else:
        raw = expm1_less_x(-d)
        estimate = tl.where(raw > 10.0, 10.0, raw)
        # 1 - e^-d cancels near 0, where raw = e^-d - 1 + d comes from a series
        slope = tl.where(raw < 10.0, tl.where(tl.abs(d) < 0.7, d - raw, 1.0 - exp(-d)), 0.0)
    return estimate, tl.where(tl.abs(difference) > 20.0, 0.0, slope)


@triton.jit
def sum_row(partials_ptr, row, num_partials, MERGE: tl.constexpr):
    """Sum of one row of `partials [K, P]`, chunk after chunk."""
    lanes = tl.arange(0, MERGE)
    total = tl.zeros((MERGE,), tl.float32)
    for start in range(0, num_partials, MERGE):
        columns = start + lanes
        total += tl.load(partials_ptr + row * num_partials + columns, mask=columns < num_partials, other=0.0)
    return tl.sum(total)


@triton.jit
def centered_square(partials_ptr, count_row, sum_row_index, square_row, mean, num_partials, MERGE: tl.constexpr):
    """Sum of squares about `mean` from each block's count, sum and squares about its own mean (Chan et al. 1983)."""
    lanes = tl.arange(0, MERGE)
    total = tl.zeros((MERGE,), tl.float32)
    for start in range(0, num_partials, MERGE):
        columns = start + lanes
        inside = columns < num_partials
        count = tl.load(partials_ptr + count_row * num_partials + columns, mask=inside, other=0.0)
        block_sum = tl.load(partials_ptr + sum_row_index * num_partials + columns, mask=inside, other=0.0)
        squares = tl.load(partials_ptr + square_row * num_partials + columns, mask=inside, other=0.0)
        shift = tl.div_rn(block_sum, tl.maximum(count, 1.0)) - mean
        total += squares + tl.where(count > 0, count * shift * shift, 0.0)
    return tl.sum(total)


@triton.jit
def merge_sums_kernel(partials_ptr, total_ptr, sums_ptr, num_partials, MERGE: tl.constexpr):
    """Program k adds row k; row 0 is the loss, the others are the statistics."""
    row = tl.program_id(0).to(tl.int64)
    value = sum_row(partials_ptr, row, num_partials, MERGE)
    if row == 0:
        tl.store(total_ptr, value)
    else:
        tl.store(sums_ptr + row - 1, value)
