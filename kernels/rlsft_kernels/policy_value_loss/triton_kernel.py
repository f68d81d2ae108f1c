"""policy_value_loss on a GPU: loss, gradients and statistics in one pass, and one launch that adds the blocks up."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlsft_kernels import _triton_blocks as blocks
from rlsft_kernels._triton_blocks import (
    as_float,
    centered_square,
    clamp,
    exp,
    expm1_less_x,
    kl_and_slope,
    load,
    load_mask,
    store,
    sum_row,
)
from rlsft_kernels.policy_value_loss.torch_path import SUMS, LossTerms

# rows of the partial sums: the loss, then SUMS
_COUNT = tl.constexpr(1 + SUMS.index("count"))
_POLICY = tl.constexpr(1 + SUMS.index("loss/policy"))
_VALUE = tl.constexpr(1 + SUMS.index("loss/value"))
_ENTROPY = tl.constexpr(1 + SUMS.index("entropy"))
_KL_REF = tl.constexpr(1 + SUMS.index("kl_ref"))
_K1 = tl.constexpr(1 + SUMS.index("approxkl_k1"))
_K2 = tl.constexpr(1 + SUMS.index("approxkl_k2"))
_K3 = tl.constexpr(1 + SUMS.index("approxkl_k3"))
_CLIPPED = tl.constexpr(1 + SUMS.index("clipfrac"))
_BOUNDED = tl.constexpr(1 + SUMS.index("clipfrac_lower"))
_VALUE_CLIPPED = tl.constexpr(1 + SUMS.index("vf_clipfrac"))
_RATIO = tl.constexpr(1 + SUMS.index("ratio"))
_RATIO_SQUARE = tl.constexpr(1 + SUMS.index("ratio_centered_square"))
_RATIO_MAX = tl.constexpr(1 + SUMS.index("ratio_max"))


def policy_value_loss_fwd(
    tokens: dict[str, Tensor | None],  # each of one shape; None where a part is left out
    mask: Tensor,  # bool or integer, the same shape
    terms: LossTerms,
    moments: Tensor | None,  # [2]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(summed loss, sums [len(SUMS)], gradients of the sum by logprobs, values and entropy), float32."""
    num_tokens, device = mask.numel(), mask.device
    num_blocks = max(1, triton.cdiv(num_tokens, blocks.BLOCK))
    partials_KB = torch.empty(1 + len(SUMS), num_blocks, dtype=torch.float32, device=device)
    total, sums, grad_logprobs = (partials_KB.new_empty(size) for size in ((), (len(SUMS),), mask.shape))
    grad_values, grad_entropy = (
        partials_KB.new_empty(0 if tokens[name] is None else mask.shape) for name in ("values", "entropy")
    )
    settings = (
        1 - terms.clip_low, 1 + terms.clip_high, terms.dual_clip or 0.0, terms.value_clip or 0.0, terms.vf_coef,
        terms.entropy_coef, terms.kl_coef,
    )  # fmt: skip
    loss_block_kernel[(num_blocks,)](
        *(blocks.flat(tokens[name]) for name in (
            "logprobs", "old_logprobs", "advantages", "values", "old_values", "returns", "entropy", "ref_logprobs"
        )),
        blocks.mask_bytes(mask), blocks.flat(moments), grad_logprobs, grad_values, grad_entropy, partials_KB,
        num_tokens, num_blocks, *map(blocks.float_bits, settings),
        DUAL=terms.dual_clip is not None, VALUE_CLIP=terms.value_clip is not None, KL_KIND=terms.kl_estimator,
        BLOCK=blocks.BLOCK, num_warps=8,
    )  # fmt: skip
    merge_kernel[(1 + len(SUMS),)](
        partials_KB, total, sums, num_blocks, HAS_VALUES=tokens["values"] is not None,
        HAS_ENTROPY=tokens["entropy"] is not None, HAS_REF=tokens["ref_logprobs"] is not None,
        MERGE=blocks.MERGE, num_warps=4,
    )  # fmt: skip
    return total, sums, grad_logprobs, grad_values, grad_entropy


@triton.jit
def _policy(difference, adv, at_least, at_most, dual_clip, DUAL: tl.constexpr):
    """Loss, its gradient by logp, the ratio and whether each clip won; a tie gives the unclipped gradient."""
    ratio = exp(clamp(difference, -20.0, 20.0))
    unclipped = -adv * ratio
    clipped = -adv * clamp(ratio, at_least, at_most)
    is_clipped = clipped > unclipped
    loss = tl.where(is_clipped, clipped, unclipped)
    is_bounded = adv != adv
    if DUAL:
        bound = -adv * dual_clip
        is_bounded = (adv < 0) & (loss > bound)
        loss = tl.where(is_bounded, bound, loss)
        is_flat = is_clipped | is_bounded | (tl.abs(difference) > 20.0)
    else:
        is_flat = is_clipped | (tl.abs(difference) > 20.0)
    return loss, tl.where(is_flat, 0.0, unclipped), ratio, is_clipped, is_bounded


@triton.jit
def _value(value, old, target, clip, VALUE_CLIP: tl.constexpr):
    """Loss, its gradient by the value, and whether the clip won."""
    error = value - target
    is_clipped = error > float("inf")
    if VALUE_CLIP:
        move = value - old
        capped = old + clamp(move, -clip, clip) - target
        is_clipped = capped * capped > error * error
        slope = tl.where(is_clipped, tl.where(tl.abs(move) <= clip, capped, 0.0), error)
        error = tl.where(is_clipped, capped, error)
    else:
        slope = error
    return error * error * 0.5, slope, is_clipped


@triton.jit
def _put(out, row, num_blocks, x, keep):
    tl.store(out + row * num_blocks, tl.sum(tl.where(keep, x, 0.0)))


@triton.jit
def _loss_block(
    logp_ptr, old_ptr, adv_ptr, value_ptr, old_value_ptr, target_ptr, entropy_ptr, ref_ptr, mask_ptr, moments_ptr,
    grad_logp_ptr, grad_value_ptr, grad_entropy_ptr, partials_ptr, num_tokens, num_blocks,
    at_least, at_most, dual_clip, value_clip, vf_coef, entropy_coef, kl_coef,
    DUAL: tl.constexpr, VALUE_CLIP: tl.constexpr, KL_KIND: tl.constexpr, BLOCK: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    offsets = block * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < num_tokens
    keep = load_mask(mask_ptr, offsets, inside, WHOLE)
    logp = load(logp_ptr, offsets, inside, WHOLE)
    adv = load(adv_ptr, offsets, inside, WHOLE)
    if moments_ptr is not None:
        adv = (adv - tl.load(moments_ptr).to(tl.float32)) * tl.load(moments_ptr + 1).to(tl.float32)
    difference = logp - load(old_ptr, offsets, inside, WHOLE)
    policy, grad_logp, ratio, is_clipped, is_bounded = _policy(difference, adv, at_least, at_most, dual_clip, DUAL)
    loss = policy
    out = partials_ptr + block
    if value_ptr is not None:
        value_loss, slope, value_clipped = _value(
            load(value_ptr, offsets, inside, WHOLE), load(old_value_ptr, offsets, inside, WHOLE),
            load(target_ptr, offsets, inside, WHOLE), value_clip, VALUE_CLIP,
        )  # fmt: skip
        loss += vf_coef * value_loss
        store(grad_value_ptr, offsets, tl.where(keep, vf_coef * slope, 0.0), inside, WHOLE)
        _put(out, _VALUE, num_blocks, value_loss, keep)
        _put(out, _VALUE_CLIPPED, num_blocks, 1.0, keep & value_clipped)
    if entropy_ptr is not None:
        entropy = load(entropy_ptr, offsets, inside, WHOLE)
        loss -= entropy_coef * entropy
        store(grad_entropy_ptr, offsets, tl.where(keep, -entropy_coef, 0.0), inside, WHOLE)
        _put(out, _ENTROPY, num_blocks, entropy, keep)
    if ref_ptr is not None:
        kl, slope = kl_and_slope(logp - load(ref_ptr, offsets, inside, WHOLE), KL_KIND)
        loss += kl_coef * kl
        grad_logp += kl_coef * slope
        _put(out, _KL_REF, num_blocks, kl, keep)
    store(grad_logp_ptr, offsets, tl.where(keep, grad_logp, 0.0), inside, WHOLE)

    log_ratio = clamp(difference, -20.0, 20.0)
    count = tl.sum(tl.where(keep, 1.0, 0.0))
    ratio_sum = tl.sum(tl.where(keep, ratio, 0.0))
    # about the block's own mean: the ratios are all close to 1, and sum(r^2) - mean^2 would cancel
    centered = ratio - tl.div_rn(ratio_sum, tl.maximum(count, 1.0))
    _put(out, 0, num_blocks, loss, keep)
    tl.store(out + _COUNT * num_blocks, count)
    _put(out, _POLICY, num_blocks, policy, keep)
    _put(out, _K1, num_blocks, -log_ratio, keep)
    _put(out, _K2, num_blocks, log_ratio * log_ratio * 0.5, keep)
    _put(out, _K3, num_blocks, expm1_less_x(log_ratio), keep)
    _put(out, _CLIPPED, num_blocks, 1.0, keep & is_clipped)
    _put(out, _BOUNDED, num_blocks, 1.0, keep & is_bounded)
    tl.store(out + _RATIO * num_blocks, ratio_sum)
    _put(out, _RATIO_SQUARE, num_blocks, centered * centered, keep)
    tl.store(out + _RATIO_MAX * num_blocks, tl.max(tl.where(keep, ratio, 0.0)))


@triton.jit(
    do_not_specialize=["least_bits", "most_bits", "dual_bits", "value_bits", "vf_bits", "entropy_bits", "kl_bits"]
)
def loss_block_kernel(
    logp_ptr, old_ptr, adv_ptr, value_ptr, old_value_ptr, target_ptr, entropy_ptr, ref_ptr, mask_ptr, moments_ptr,
    grad_logp_ptr, grad_value_ptr, grad_entropy_ptr, partials_ptr, num_tokens, num_blocks,
    least_bits, most_bits, dual_bits, value_bits, vf_bits, entropy_bits, kl_bits,
    DUAL: tl.constexpr, VALUE_CLIP: tl.constexpr, KL_KIND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One block of tokens: gradients, and column `block` of the partial sums."""
    if (tl.program_id(0).to(tl.int64) + 1) * BLOCK <= num_tokens:
        _loss_block(
            logp_ptr, old_ptr, adv_ptr, value_ptr, old_value_ptr, target_ptr, entropy_ptr, ref_ptr, mask_ptr,
            moments_ptr, grad_logp_ptr, grad_value_ptr, grad_entropy_ptr, partials_ptr, num_tokens, num_blocks,
            as_float(least_bits), as_float(most_bits), as_float(dual_bits), as_float(value_bits), as_float(vf_bits),
            as_float(entropy_bits), as_float(kl_bits), DUAL, VALUE_CLIP, KL_KIND, BLOCK, True,
        )  # fmt: skip
    else:
        _loss_block(
            logp_ptr, old_ptr, adv_ptr, value_ptr, old_value_ptr, target_ptr, entropy_ptr, ref_ptr, mask_ptr,
            moments_ptr, grad_logp_ptr, grad_value_ptr, grad_entropy_ptr, partials_ptr, num_tokens, num_blocks,
            as_float(least_bits), as_float(most_bits), as_float(dual_bits), as_float(value_bits), as_float(vf_bits),
            as_float(entropy_bits), as_float(kl_bits), DUAL, VALUE_CLIP, KL_KIND, BLOCK, False,
        )  # fmt: skip


@triton.jit
def merge_kernel(
    partials_ptr, total_ptr, sums_ptr, num_blocks,
    HAS_VALUES: tl.constexpr, HAS_ENTROPY: tl.constexpr, HAS_REF: tl.constexpr, MERGE: tl.constexpr,
):  # fmt: skip
    """Program k merges row k in the order of the blocks; rows of parts that are left out were never written."""
    row = tl.program_id(0).to(tl.int64)
    if row == _RATIO_MAX:
        lanes = tl.arange(0, MERGE)
        largest = tl.zeros((MERGE,), tl.float32)
        for start in range(0, num_blocks, MERGE):
            inside = start + lanes < num_blocks
            x = tl.load(partials_ptr + row * num_blocks + start + lanes, mask=inside, other=0.0)
            largest = tl.maximum(largest, x)
        # a maximum may pass over a NaN, a sum does not
        ratio_sum = sum_row(partials_ptr, _RATIO, num_blocks, MERGE)
        value = tl.where(ratio_sum != ratio_sum, ratio_sum, tl.max(largest))
    elif row == _RATIO_SQUARE:
        count = sum_row(partials_ptr, _COUNT, num_blocks, MERGE)
        mean = tl.div_rn(sum_row(partials_ptr, _RATIO, num_blocks, MERGE), tl.maximum(count, 1.0))
        value = centered_square(partials_ptr, _COUNT, _RATIO, _RATIO_SQUARE, mean, num_blocks, MERGE)
    else:
        value = sum_row(partials_ptr, row, num_blocks, MERGE)
        if not HAS_VALUES:
            value = tl.where((row == _VALUE) | (row == _VALUE_CLIPPED), 0.0, value)
        if not HAS_ENTROPY:
            value = tl.where(row == _ENTROPY, 0.0, value)
        if not HAS_REF:
            value = tl.where(row == _KL_REF, 0.0, value)
    if row == 0:
        tl.store(total_ptr, value)
    else:
        tl.store(sums_ptr + row - 1, value)
