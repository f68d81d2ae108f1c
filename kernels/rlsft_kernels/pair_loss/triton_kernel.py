"""pair_loss on a GPU: loss, gradients and statistics in one pass, and one launch that adds the blocks up.

Gradients are those of the mean. Its divisor is known before the pass unless a mask is given without a normalizer; only
then one more pass divides them.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlsft_kernels import _triton_blocks as blocks
from rlsft_kernels._triton_blocks import (
    as_float,
    clamp,
    exp,
    load,
    load_mask,
    softplus_of_negative,
    store,
    sum_row,
)
from rlsft_kernels.pair_loss.reference import MAX_EXPONENT, SATURATED_PULL, STATS
from rlsft_kernels.pair_loss.torch_path import PairTerms

_MAX_EXPONENT = tl.constexpr(MAX_EXPONENT)
_SATURATED = tl.constexpr(SATURATED_PULL)


def pair_loss_fwd(
    real_P: Tensor,
    generated_P: Tensor,
    mask_P: Tensor | None,  # bool or integer
    normalizer: Tensor | None,  # 0-d
    terms: PairTerms,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(loss, stats [len(STATS)], gradients of the loss by both sides), float32."""
    num_pairs, device = real_P.numel(), real_P.device
    num_blocks = max(1, triton.cdiv(num_pairs, blocks.BLOCK))
    partials_KB = torch.empty(len(STATS), num_blocks, dtype=torch.float32, device=device)
    loss, divisor, stats = (partials_KB.new_empty(size) for size in ((), (), (len(STATS),)))
    grad_real_P, grad_generated_P = partials_KB.new_empty(num_pairs), partials_KB.new_empty(num_pairs)
    mask_bytes_P = None if mask_P is None else blocks.mask_bytes(mask_P)
    settings = map(blocks.float_bits, (terms.beta, terms.offset, terms.label_smoothing))
    divide_later = mask_P is not None and normalizer is None
    pair_block_kernel[(num_blocks,)](
        blocks.flat(real_P), blocks.flat(generated_P), mask_bytes_P, normalizer, grad_real_P, grad_generated_P,
        partials_KB, num_pairs, num_blocks, *settings,
        KIND=terms.kind, SMOOTHED=terms.label_smoothing != 0, DIVIDE=not divide_later, BLOCK=blocks.BLOCK, num_warps=4,
    )  # fmt: skip
    merge_kernel[(len(STATS),)](
        partials_KB, normalizer, loss, divisor, stats, num_blocks, MERGE=blocks.MERGE, num_warps=4
    )
    if divide_later:
        divide_kernel[(num_blocks,)](grad_real_P, grad_generated_P, divisor, num_pairs, BLOCK=blocks.BLOCK, num_warps=4)
    return loss, stats, grad_real_P, grad_generated_P


@triton.jit
def _terms(real, generated, beta, offset, smoothing, KIND: tl.constexpr, SMOOTHED: tl.constexpr):
    """Loss, its slopes by `beta * real` and `beta * generated`, and whether the pull is nearly gone."""
    x = beta * (real - generated)
    if KIND == "logistic":
        loss, pull = softplus_of_negative(x)
        saturated = pull < _SATURATED
        if SMOOTHED:
            loss += smoothing * x
            pull -= smoothing
        return loss, -pull, pull, saturated
    elif KIND == "linear":
        one = tl.full(x.shape, 1.0, tl.float32)
        return -x, -one, one, one < 0
    elif KIND == "hinge":
        saturated = x >= 1.0
        pull = tl.where(saturated, 0.0, 1.0)
        return tl.where(saturated, 0.0, 1.0 - x), -pull, pull, saturated
    elif KIND == "bernoulli":
        loss_real, pull = softplus_of_negative(beta * real + offset)
        loss_generated, push = softplus_of_negative(-(beta * generated + offset))
        return loss_real + loss_generated, -pull, push, (pull < _SATURATED) & (push < _SATURATED)
    else:
        tl.static_assert(KIND == "kliep", "pair_loss: no such kind")
        rho = beta * generated + offset
        weight = exp(clamp(rho, -100.0, _MAX_EXPONENT))
        saturated = rho > _MAX_EXPONENT
        one = tl.full(x.shape, 1.0, tl.float32)
        return weight - (beta * real + offset), -one, tl.where(saturated, 0.0, weight), saturated


@triton.jit
def _put(out, row: tl.constexpr, num_blocks, x, keep):
    tl.store(out + row * num_blocks, tl.sum(tl.where(keep, x, 0.0)))


@triton.jit
def _pair_block(
    real_ptr, generated_ptr, mask_ptr, normalizer_ptr, grad_real_ptr, grad_generated_ptr, partials_ptr,
    num_pairs, num_blocks, beta, offset, smoothing,
    KIND: tl.constexpr, SMOOTHED: tl.constexpr, DIVIDE: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    offsets = block * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < num_pairs
    keep = inside
    if mask_ptr is not None:
        keep = load_mask(mask_ptr, offsets, inside, WHOLE)
    real = load(real_ptr, offsets, inside, WHOLE)
    generated = load(generated_ptr, offsets, inside, WHOLE)
    loss, slope_real, slope_generated, saturated = _terms(real, generated, beta, offset, smoothing, KIND, SMOOTHED)
    grad_real, grad_generated = beta * slope_real, beta * slope_generated
    if DIVIDE:
        if normalizer_ptr is not None:
            divisor = tl.load(normalizer_ptr).to(tl.float32)
        else:
            divisor = tl.maximum(num_pairs, 1).to(tl.float32)
        grad_real = tl.div_rn(grad_real, divisor)
        grad_generated = tl.div_rn(grad_generated, divisor)
    store(grad_real_ptr, offsets, tl.where(keep, grad_real, 0.0), inside, WHOLE)
    store(grad_generated_ptr, offsets, tl.where(keep, grad_generated, 0.0), inside, WHOLE)

    out = partials_ptr + block  # in the order of STATS
    _put(out, 0, num_blocks, 1.0, keep)
    _put(out, 1, num_blocks, loss, keep)
    _put(out, 2, num_blocks, 1.0, keep & (real > generated))
    _put(out, 3, num_blocks, beta * real, keep)
    _put(out, 4, num_blocks, beta * generated, keep)
    _put(out, 5, num_blocks, beta * (real - generated), keep)
    _put(out, 6, num_blocks, 1.0, keep & saturated)


@triton.jit(do_not_specialize=["num_pairs", "beta_bits", "offset_bits", "smoothing_bits"])
def pair_block_kernel(
    real_ptr, generated_ptr, mask_ptr, normalizer_ptr, grad_real_ptr, grad_generated_ptr, partials_ptr,
    num_pairs, num_blocks, beta_bits, offset_bits, smoothing_bits,
    KIND: tl.constexpr, SMOOTHED: tl.constexpr, DIVIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of pairs: gradients, and column `block` of the partial sums."""
    if (tl.program_id(0).to(tl.int64) + 1) * BLOCK <= num_pairs:
        _pair_block(
            real_ptr, generated_ptr, mask_ptr, normalizer_ptr, grad_real_ptr, grad_generated_ptr, partials_ptr,
            num_pairs, num_blocks, as_float(beta_bits), as_float(offset_bits), as_float(smoothing_bits),
            KIND, SMOOTHED, DIVIDE, BLOCK, True,
        )  # fmt: skip
    else:
        _pair_block(
            real_ptr, generated_ptr, mask_ptr, normalizer_ptr, grad_real_ptr, grad_generated_ptr, partials_ptr,
            num_pairs, num_blocks, as_float(beta_bits), as_float(offset_bits), as_float(smoothing_bits),
            KIND, SMOOTHED, DIVIDE, BLOCK, False,
        )  # fmt: skip


@triton.jit
def merge_kernel(partials_ptr, normalizer_ptr, loss_ptr, divisor_ptr, stats_ptr, num_blocks, MERGE: tl.constexpr):
    """Program k merges row k: the number of pairs, then means over them; the loss has its own divisor."""
    row = tl.program_id(0).to(tl.int64)
    count = sum_row(partials_ptr, 0, num_blocks, MERGE)
    pairs = tl.maximum(count, 1.0)
    value = sum_row(partials_ptr, row, num_blocks, MERGE)
    if row == 0:
        tl.store(stats_ptr, count)
        tl.store(divisor_ptr, pairs)
    else:
        tl.store(stats_ptr + row, tl.div_rn(value, pairs))
    if row == 1:
        divisor = pairs
        if normalizer_ptr is not None:
            divisor = tl.load(normalizer_ptr).to(tl.float32)
        tl.store(loss_ptr, tl.div_rn(value, divisor))


@triton.jit
def divide_kernel(grad_real_ptr, grad_generated_ptr, divisor_ptr, num_pairs, BLOCK: tl.constexpr):
    """Divides both gradients in place."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < num_pairs
    divisor = tl.load(divisor_ptr)
    grad_real = tl.load(grad_real_ptr + offsets, mask=inside, other=0.0)
    grad_generated = tl.load(grad_generated_ptr + offsets, mask=inside, other=0.0)
    tl.store(grad_real_ptr + offsets, tl.div_rn(grad_real, divisor), mask=inside)
    tl.store(grad_generated_ptr + offsets, tl.div_rn(grad_generated, divisor), mask=inside)
