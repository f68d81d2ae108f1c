"""pairwise_reward_loss on a GPU: loss, gradients and statistics in one pass, and one launch that adds the blocks up."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlsft_kernels import _triton_blocks as blocks
from rlsft_kernels._triton_blocks import as_float, load, softplus_of_negative, store, sum_row
from rlsft_kernels.pairwise_reward_loss.torch_path import STATS


def pairwise_reward_loss_fwd(
    chosen_P: Tensor, rejected_P: Tensor, margin_P: Tensor | None, center_coef: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(mean loss, stats [len(STATS)]: the count, then means, gradients of the loss by chosen and rejected), float32."""
    num_pairs, device = chosen_P.numel(), chosen_P.device
    num_blocks = max(1, triton.cdiv(num_pairs, blocks.BLOCK))
    partials_KB = torch.empty(1 + len(STATS), num_blocks, dtype=torch.float32, device=device)
    loss, stats = partials_KB.new_empty(()), partials_KB.new_empty(len(STATS))
    grad_chosen_P, grad_rejected_P = partials_KB.new_empty(num_pairs), partials_KB.new_empty(num_pairs)
    pair_block_kernel[(num_blocks,)](
        blocks.flat(chosen_P), blocks.flat(rejected_P), blocks.flat(margin_P), grad_chosen_P, grad_rejected_P,
        partials_KB, num_pairs, num_blocks, blocks.float_bits(center_coef),
        CENTERED=center_coef != 0, BLOCK=blocks.BLOCK, num_warps=4,
    )  # fmt: skip
    mean_kernel[(1 + len(STATS),)](
        partials_KB, loss, stats, num_blocks, max(1, num_pairs), MERGE=blocks.MERGE, num_warps=4
    )
    return loss, stats, grad_chosen_P, grad_rejected_P


@triton.jit
def _pair_block(
    chosen_ptr, rejected_ptr, margin_ptr, grad_chosen_ptr, grad_rejected_ptr, partials_ptr,
    num_pairs, num_blocks, center_coef,
    CENTERED: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    offsets = block * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < num_pairs
    chosen = load(chosen_ptr, offsets, inside, WHOLE)
    rejected = load(rejected_ptr, offsets, inside, WHOLE)
    difference = chosen - rejected
    gap = difference
    if margin_ptr is not None:
        gap = difference - load(margin_ptr, offsets, inside, WHOLE)
    ranking, pull = softplus_of_negative(gap)
    center = chosen + rejected
    loss, push = ranking, 0.0
    if CENTERED:  # otherwise its square must not enter: it overflows for scores that the ranking term still takes
        loss = ranking + center_coef * (center * center)
        push = 2.0 * center_coef * center
    pairs = tl.maximum(tl.cast(num_pairs, tl.float32), 1.0)
    store(grad_chosen_ptr, offsets, tl.div_rn(push - pull, pairs), inside, WHOLE)
    store(grad_rejected_ptr, offsets, tl.div_rn(push + pull, pairs), inside, WHOLE)

    out = partials_ptr + block
    tl.store(out, tl.sum(tl.where(inside, loss, 0.0)))
    tl.store(out + num_blocks, tl.sum(tl.where(inside, 1.0, 0.0)))
    tl.store(out + 2 * num_blocks, tl.sum(tl.where(inside, ranking, 0.0)))
    tl.store(out + 3 * num_blocks, tl.sum(tl.where(inside, center * center, 0.0)))
    tl.store(out + 4 * num_blocks, tl.sum(tl.where(inside & (difference > 0), 1.0, 0.0)))
    tl.store(out + 5 * num_blocks, tl.sum(tl.where(inside, difference, 0.0)))
    tl.store(out + 6 * num_blocks, tl.sum(tl.where(inside, chosen, 0.0)))
    tl.store(out + 7 * num_blocks, tl.sum(tl.where(inside, rejected, 0.0)))


@triton.jit(do_not_specialize=["center_bits"])
def pair_block_kernel(
    chosen_ptr, rejected_ptr, margin_ptr, grad_chosen_ptr, grad_rejected_ptr, partials_ptr,
    num_pairs, num_blocks, center_bits,
    CENTERED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of pairs: gradients, and column `block` of the partial sums in the order of STATS after the loss."""
    if (tl.program_id(0).to(tl.int64) + 1) * BLOCK <= num_pairs:
        _pair_block(
            chosen_ptr, rejected_ptr, margin_ptr, grad_chosen_ptr, grad_rejected_ptr, partials_ptr,
            num_pairs, num_blocks, as_float(center_bits), CENTERED, BLOCK, True,
        )  # fmt: skip
    else:
        _pair_block(
            chosen_ptr, rejected_ptr, margin_ptr, grad_chosen_ptr, grad_rejected_ptr, partials_ptr,
            num_pairs, num_blocks, as_float(center_bits), CENTERED, BLOCK, False,
        )  # fmt: skip


@triton.jit
def mean_kernel(partials_ptr, loss_ptr, stats_ptr, num_blocks, num_pairs, MERGE: tl.constexpr):
    """Program k adds row k: the loss, the count, then what is reported as a mean."""
    row = tl.program_id(0).to(tl.int64)
    value = sum_row(partials_ptr, row, num_blocks, MERGE)
    mean = tl.div_rn(value, tl.cast(num_pairs, tl.float32))
    if row == 0:
        tl.store(loss_ptr, mean)
    else:
        tl.store(stats_ptr + row - 1, tl.where(row == 1, value, mean))
