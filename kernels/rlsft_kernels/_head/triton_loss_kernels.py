"""Device code of the token losses of the head: a whole row is read, scored and overwritten with its gradient."""

# mypy: disable-error-code="no-untyped-def"
# what a @triton.jit function takes and returns is decided when it is compiled
from __future__ import annotations

import triton
import triton.language as tl

from rlsft_kernels._head.triton_row_kernels import (
    _as_float,
    _exp,
    _expm1,
    _factors,
    _final_logits,
    _fold_row,
    _gradient_row,
)

_MAX_LOG_RATIO = tl.constexpr(20.0)
_MAX_K3 = tl.constexpr(10.0)


@triton.jit
def _policy_slope(
    logprob, row, advantages_ptr, old_ptr, ratio_low, ratio_high, dual_clip, RULE: tl.constexpr, DUAL: tl.constexpr
):  # fmt: skip
    """d loss / d logprob of the token, before weight and KL."""
    if RULE == "nll":
        slope = -1.0
    elif RULE == "dft":
        slope = -_exp(logprob)
    else:
        advantage = tl.load(advantages_ptr + row).to(tl.float32)
        if RULE == "reinforce":
            slope = -advantage
        else:
            difference = logprob - tl.load(old_ptr + row).to(tl.float32)
            ratio = _exp(tl.minimum(tl.maximum(difference, -_MAX_LOG_RATIO), _MAX_LOG_RATIO))
            unclipped = -advantage * ratio
            clipped = -advantage * tl.minimum(tl.maximum(ratio, ratio_low), ratio_high)
            if RULE == "cispo":
                slope = clipped
            else:
                flat = (clipped > unclipped) | (tl.abs(difference) > _MAX_LOG_RATIO)
                if DUAL:
                    flat = flat | ((advantage < 0) & (tl.maximum(clipped, unclipped) > -advantage * dual_clip))
                slope = tl.where(flat, 0.0, unclipped)
    return slope


@triton.jit
def _kl_slope(logprob, ref, KL: tl.constexpr):
    """d estimate / d logprob, 0 where a clamp of the estimate holds."""
    difference = logprob - ref
    slope = difference * 0.0 + 1.0
    if KL == "k2":
        slope = difference
    if KL == "k3":
        slope = -_expm1(-difference)
        slope = tl.where(difference - slope < _MAX_K3, slope, 0.0)
    return tl.where(tl.abs(difference) > _MAX_LOG_RATIO, 0.0, slope)


@triton.jit
def _token_slopes(
    row, logprob, weight_ptr, advantages_ptr, old_ptr, ref_ptr, low_bits, high_bits, dual_bits, kl_bits,
    entropy_coef_bits, live, RULE: tl.constexpr, DUAL: tl.constexpr, KL: tl.constexpr, BONUS: tl.constexpr,
):  # fmt: skip
    """d loss / d logprob and d loss / d entropy of a token, exactly 0 where it is not live, whatever it holds."""
    low, high, dual_clip = _as_float(low_bits), _as_float(high_bits), _as_float(dual_bits)
    g = _policy_slope(logprob, row, advantages_ptr, old_ptr, low, high, dual_clip, RULE, DUAL)
    e = 0.0
    if ref_ptr is not None:
        g += _as_float(kl_bits) * _kl_slope(logprob, tl.load(ref_ptr + row).to(tl.float32), KL)
    if BONUS:
        e = -_as_float(entropy_coef_bits)
    if weight_ptr is not None:
        weight = tl.load(weight_ptr + row).to(tl.float32)
        g, e = g * weight, e * weight
    return tl.where(live, g, 0.0), tl.where(live, e, 0.0)


@triton.jit(
    do_not_specialize=["temperature_bits", "low_bits", "high_bits", "dual_bits", "kl_bits", "entropy_coef_bits"]
)
def loss_tile_kernel(
    tile_ptr,  # [R, V], overwritten with a gradient
    targets_ptr,  # [R]
    bias_ptr,  # [V] or None
    temperature_ptr, weight_ptr, mask_ptr, advantages_ptr, old_ptr, ref_ptr,  # [R] or None
    logprob_ptr,  # [R], out
    entropy_ptr, is_top1_ptr, grad_logprob_ptr, grad_entropy_ptr,  # [R] or None, out
    num_columns, row_stride, temperature_bits, low_bits, high_bits, dual_bits, kl_bits, entropy_coef_bits,
    LOGIT_SCALE: tl.constexpr, SOFTCAP: tl.constexpr, RULE: tl.constexpr, DUAL: tl.constexpr, KL: tl.constexpr,
    BONUS: tl.constexpr, GRADIENT: tl.constexpr, ROUNDS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Statistics of a whole row, the token's coefficients, and the row overwritten with its gradient."""
    row = tl.program_id(0).to(tl.int64)
    row_ptr = tile_ptr + row * row_stride
    before, after, chain = _factors(row, temperature_ptr, temperature_bits, LOGIT_SCALE, SOFTCAP)
    NEED_ENTROPY: tl.constexpr = BONUS or entropy_ptr is not None
    top, total, shifted, _, _, first = _fold_row(
        row_ptr, bias_ptr, num_columns, before, after, SOFTCAP, NEED_ENTROPY, False, False, is_top1_ptr is not None,
        ROUNDS, LANES,
    )  # fmt: skip
    target = tl.load(targets_ptr + row).to(tl.int32)
    target_logit, _ = _final_logits(row_ptr, bias_ptr, target, num_columns, before, after, SOFTCAP, False)
    log_sum = tl.log(total)
    logprob = (target_logit - top) - log_sum
    entropy = log_sum - shifted / total
    live = True
    if mask_ptr is not None:
        live = tl.load(mask_ptr + row) != 0
    g, e = _token_slopes(
        row, logprob, weight_ptr, advantages_ptr, old_ptr, ref_ptr, low_bits, high_bits, dual_bits, kl_bits,
        entropy_coef_bits, live, RULE, DUAL, KL, BONUS,
    )  # fmt: skip
    tl.store(logprob_ptr + row, tl.where(live, logprob, 0.0))
    if entropy_ptr is not None:
        tl.store(entropy_ptr + row, tl.where(live, entropy, 0.0))
    if is_top1_ptr is not None:
        tl.store(is_top1_ptr + row, live & (first == target))
    if grad_logprob_ptr is not None:
        tl.store(grad_logprob_ptr + row, g)
    if grad_entropy_ptr is not None:
        tl.store(grad_entropy_ptr + row, e)
    if GRADIENT:
        tl.debug_barrier()  # every thread has read the target's logit from the row that is overwritten now
        _gradient_row(
            row_ptr, bias_ptr, num_columns, before, after, chain, target, top, log_sum, logprob, entropy, g, e, 0.0,
            live, SOFTCAP, BONUS, ROUNDS * LANES,
        )  # fmt: skip
