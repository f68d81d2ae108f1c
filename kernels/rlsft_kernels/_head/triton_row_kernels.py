"""Device code of the head's row kernels: one program a row, every load cast to float32 before any arithmetic.

A block of a row is `[ROUNDS, LANES]` columns, `LANES` being one 16-byte load of every thread. Maxima and sums run along
`ROUNDS` only, inside a thread: no shuffle and no barrier before the end of the row. Whole blocks are read without a
mask, so a vocabulary that is odd narrows the loads of the last block alone.
"""

# mypy: disable-error-code="no-untyped-def"
# what a @triton.jit function takes and returns is decided when it is compiled
from __future__ import annotations

import triton
import triton.language as tl

# The maximum of no logits so far: finite, so that its difference to -inf is -inf and not NaN.
_NOTHING = tl.constexpr(-3.4028234663852886e38)
# exp() of anything below this is 0, and 0 * _LOWEST is 0 where 0 * -inf would be NaN.
_LOWEST = tl.constexpr(-1e4)
_MAX_LOG_RATIO = tl.constexpr(20.0)
_MAX_K3 = tl.constexpr(10.0)


@triton.jit
def _as_float(bits):
    """A float32 that crossed as its bits: a Python float argument would be float64 or compiled in."""
    return tl.cast(bits, tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def _exp(x):
    """Through exp2, whose instruction flushes subnormal results; tl.exp pays three more instructions to keep them."""
    return tl.exp2(x * 1.4426950408889634)


@triton.jit
def _expm1(x):
    """`e^x - 1` without cancellation near 0, where exp(x) - 1 has no digits left."""
    series = 1.0 + x * (1 / 9)
    for n in tl.static_range(8, 1, -1):
        series = 1.0 + x * (1.0 / n) * series
    return tl.where(tl.abs(x) < 0.35, x * series, _exp(x) - 1.0)


@triton.jit
def _tanh(x):
    """Within two units in the last place: a polynomial for small x, where the quotient would cancel."""
    decay = _exp(-2.0 * tl.abs(x))
    root = tl.rsqrt(1.0 + decay)  # squared it is the reciprocal, for half the instructions of a division
    large = 1.0 - 2.0 * (decay * (root * root))
    s = x * x
    poly = -0.33333318 + s * (0.13332602 + s * (-0.05385386 + s * (0.02107775 - 0.00628247 * s)))
    return tl.where(tl.abs(x) < 0.55, x + x * (s * poly), tl.where(x < 0, -large, large))


@triton.jit
def _factors(row, temperature_ptr, temperature_bits, LOGIT_SCALE: tl.constexpr, SOFTCAP: tl.constexpr):
    """What multiplies a score before the cap, after it, and the gradient by a final logit."""
    per_temperature = 1.0
    if temperature_ptr is not None:
        per_temperature = tl.div_rn(1.0, tl.load(temperature_ptr + row).to(tl.float32))
    elif temperature_bits is not None:
        per_temperature = tl.div_rn(1.0, _as_float(temperature_bits))
    chain = per_temperature * LOGIT_SCALE
    if SOFTCAP is not None:
        return LOGIT_SCALE / SOFTCAP, per_temperature * SOFTCAP, chain
    return chain, chain, chain


@triton.jit
def _final_logits(
    row_ptr, bias_ptr, columns, num_columns, before, after, SOFTCAP: tl.constexpr, MASKED: tl.constexpr
):  # fmt: skip
    """Final logits of some columns, -inf outside the row, and tanh(y / softcap), which is what the chain rule needs."""
    if MASKED:
        inside = columns < num_columns
        score = tl.load(row_ptr + columns, mask=inside, other=0.0).to(tl.float32)
        if bias_ptr is not None:
            score += tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    else:
        score = tl.load(row_ptr + columns).to(tl.float32)
        if bias_ptr is not None:
            score += tl.load(bias_ptr + columns).to(tl.float32)
    logits = score * before
    capped = logits
    if SOFTCAP is not None:
        capped = _tanh(logits)
        logits = capped * after
    if MASKED:
        # after the chain: a cap turns -inf into -softcap, a negative scale into +inf
        logits = tl.where(inside, logits, float("-inf"))
    return logits, capped


@triton.jit
def _fold_block(
    logits, start, num_columns, top, total, shifted, squares, plain, first,
    ENTROPY: tl.constexpr, SQUARES: tl.constexpr, MEAN: tl.constexpr, TOP1: tl.constexpr, MASKED: tl.constexpr,
    ROUNDS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Adds `[ROUNDS, LANES]` logits to the lanes' running maximum and sums, all shifted by that maximum."""
    new_top = tl.maximum(top, tl.max(logits, axis=0))
    rise = tl.maximum(top - new_top, _LOWEST)
    decay = _exp(rise)
    difference = logits - new_top[None, :]
    weights = _exp(difference)
    if ENTROPY:
        weighted = weights * tl.maximum(difference, _LOWEST)
        shifted = decay * (shifted + total * rise) + tl.sum(weighted, axis=0)
    if SQUARES:
        squares = decay * decay * squares + tl.sum(weights * weights, axis=0)
    if MEAN:
        if MASKED:
            columns = start + tl.arange(0, ROUNDS)[:, None] * LANES + tl.arange(0, LANES)[None, :]
            plain += tl.sum(tl.where(columns < num_columns, logits, 0.0), axis=0)
        else:
            plain += tl.sum(logits, axis=0)
    if TOP1:
        # without the lane's own offset, which is added once at the end
        steps = tl.arange(0, ROUNDS)[:, None] * LANES
        at_top = tl.min(tl.where(logits == new_top[None, :], steps, ROUNDS * LANES), axis=0)
        first = tl.where(new_top > top, start + at_top, first)
    total = decay * total + tl.sum(weights, axis=0)
    return new_top, total, shifted, squares, plain, first


@triton.jit
def _fold_row(
    row_ptr, bias_ptr, num_columns, before, after, SOFTCAP: tl.constexpr,
    ENTROPY: tl.constexpr, SQUARES: tl.constexpr, MEAN: tl.constexpr, TOP1: tl.constexpr,
    ROUNDS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Maximum, its first column, and sums over one row: sum e^d, sum e^d d, sum e^2d, sum z with d = z - maximum."""
    top = tl.full((LANES,), _NOTHING, tl.float32)
    total = tl.zeros((LANES,), tl.float32)
    shifted = tl.zeros((LANES,), tl.float32)
    squares = tl.zeros((LANES,), tl.float32)
    plain = tl.zeros((LANES,), tl.float32)
    first = tl.zeros((LANES,), tl.int32)
    block = tl.arange(0, ROUNDS)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    whole = num_columns // (ROUNDS * LANES) * (ROUNDS * LANES)
    for start in range(0, whole, ROUNDS * LANES):
        logits, _ = _final_logits(row_ptr, bias_ptr, start + block, num_columns, before, after, SOFTCAP, False)
        top, total, shifted, squares, plain, first = _fold_block(
            logits, start, num_columns, top, total, shifted, squares, plain, first,
            ENTROPY, SQUARES, MEAN, TOP1, False, ROUNDS, LANES,
        )  # fmt: skip
    for start in range(whole, num_columns, ROUNDS * LANES):
        logits, _ = _final_logits(row_ptr, bias_ptr, start + block, num_columns, before, after, SOFTCAP, True)
        top, total, shifted, squares, plain, first = _fold_block(
            logits, start, num_columns, top, total, shifted, squares, plain, first,
            ENTROPY, SQUARES, MEAN, TOP1, True, ROUNDS, LANES,
        )  # fmt: skip
    first += tl.arange(0, LANES)
    return _merge_lanes(top, total, shifted, squares, plain, first, ENTROPY, SQUARES, MEAN, TOP1)


@triton.jit
def _merge_lanes(
    top, total, shifted, squares, plain, first,
    ENTROPY: tl.constexpr, SQUARES: tl.constexpr, MEAN: tl.constexpr, TOP1: tl.constexpr,
):  # fmt: skip
    row_top = tl.max(top, axis=0)
    rise = tl.maximum(top - row_top, _LOWEST)
    decay = _exp(rise)
    row_shifted, row_squares, row_plain, row_first = 0.0, 0.0, 0.0, 0
    if ENTROPY:
        row_shifted = tl.sum(decay * (shifted + total * rise), axis=0)
    if SQUARES:
        row_squares = tl.sum(decay * decay * squares, axis=0)
    if MEAN:
        row_plain = tl.sum(plain, axis=0)
    if TOP1:
        row_first = tl.min(tl.where(top == row_top, first, 2147483647), axis=0)
    row_total = tl.sum(decay * total, axis=0)
    # a row of only -inf has seen no logit: its maximum is -inf, and everything that follows is NaN, as in log_softmax
    row_top = tl.where(row_total > 0, row_top, float("-inf"))
    if TOP1:
        row_first = tl.where(row_total == row_total, row_first, -1)  # NaN has no largest
    return row_top, row_total, row_shifted, row_squares, row_plain, row_first


@triton.jit
def _decay(top, new_top):
    """`e^(top - new_top)`, 0 where nothing but -inf was seen so far."""
    return tl.where(top == float("-inf"), 0.0, _exp(top - new_top))


@triton.jit(do_not_specialize=["column_start", "temperature_bits"])
def fold_tile_kernel(
    tile_ptr,  # [R, V]
    targets_ptr,  # [R]
    bias_ptr,  # [V] or None
    temperature_ptr,  # [R] or None
    row_max_ptr, sum_exp_ptr, sum_exp_shifted_ptr, sum_exp_sq_ptr, sum_logit_ptr, target_logit_ptr,  # [R], updated
    argmax_ptr,  # [R], updated
    num_columns, row_stride, column_start, temperature_bits,
    LOGIT_SCALE: tl.constexpr, SOFTCAP: tl.constexpr, FIRST: tl.constexpr,
    ENTROPY: tl.constexpr, SQUARES: tl.constexpr, MEAN: tl.constexpr, TOP1: tl.constexpr,
    ROUNDS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Folds columns `column_start ...` of the logits into the statistics of their rows."""
    row = tl.program_id(0).to(tl.int64)
    row_ptr = tile_ptr + row * row_stride
    before, after, _ = _factors(row, temperature_ptr, temperature_bits, LOGIT_SCALE, SOFTCAP)
    top, total, shifted, squares, plain, first = _fold_row(
        row_ptr, bias_ptr, num_columns, before, after, SOFTCAP, ENTROPY, SQUARES, MEAN, TOP1, ROUNDS, LANES
    )
    first += column_start
    if not FIRST:
        old_top, old_total = tl.load(row_max_ptr + row), tl.load(sum_exp_ptr + row)
        new_top = tl.maximum(old_top, top)
        old_decay, decay = _decay(old_top, new_top), _decay(top, new_top)
        if ENTROPY:
            old_shifted = tl.load(sum_exp_shifted_ptr + row) + old_total * tl.maximum(old_top - new_top, _LOWEST)
            shifted = old_decay * old_shifted + decay * (shifted + total * tl.maximum(top - new_top, _LOWEST))
        if SQUARES:
            squares = old_decay * old_decay * tl.load(sum_exp_sq_ptr + row) + decay * decay * squares
        if MEAN:
            plain += tl.load(sum_logit_ptr + row)
        if TOP1:
            old_first = tl.load(argmax_ptr + row).to(tl.int32)
            first = tl.where((old_first < 0) | (total != total), -1, tl.where(top > old_top, first, old_first))
        total = old_decay * old_total + decay * total
        top = new_top
    tl.store(row_max_ptr + row, top)
    tl.store(sum_exp_ptr + row, total)
    if ENTROPY:
        tl.store(sum_exp_shifted_ptr + row, shifted)
    if SQUARES:
        tl.store(sum_exp_sq_ptr + row, squares)
    if MEAN:
        tl.store(sum_logit_ptr + row, plain)
    if TOP1:
        tl.store(argmax_ptr + row, first)
    target = (tl.load(targets_ptr + row) - column_start).to(tl.int32)
    if (target >= 0) & (target < num_columns):
        logit, _ = _final_logits(row_ptr, bias_ptr, target, num_columns, before, after, SOFTCAP, False)
        tl.store(target_logit_ptr + row, logit)


@triton.jit
def _gradient_block(
    row_ptr, bias_ptr, columns, num_columns, before, after, chain, target, top, log_sum, entropy, g, e, h, at_target,
    live, SOFTCAP: tl.constexpr, ENTROPY: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Overwrites some columns with d loss / d (hidden @ weight.T + bias), each number rounded once."""
    logits, capped = _final_logits(row_ptr, bias_ptr, columns, num_columns, before, after, SOFTCAP, MASKED)
    logprobs = (logits - top) - log_sum
    slope = h - g
    if ENTROPY:
        slope = slope - e * (tl.maximum(logprobs, _LOWEST) + entropy)
    grad = tl.where(columns == target, at_target, _exp(logprobs) * slope) * chain
    if SOFTCAP is not None:
        grad *= 1.0 - capped * capped
    grad = tl.where(live, grad, 0.0).to(row_ptr.dtype.element_ty)
    if MASKED:
        tl.store(row_ptr + columns, grad, mask=columns < num_columns)
    else:
        tl.store(row_ptr + columns, grad)


@triton.jit
def _target_gradient(logprob, entropy, g, e, h, ENTROPY: tl.constexpr):
    """The target's `g (1 - p) + p (h - e (log p + entropy))`: g - g p would round twice where p is close to 1."""
    slope = h
    if ENTROPY:
        slope = slope - e * (tl.maximum(logprob, _LOWEST) + entropy)
    return _exp(logprob) * slope - g * _expm1(logprob)


@triton.jit
def _gradient_row(
    row_ptr, bias_ptr, num_columns, before, after, chain, target, top, log_sum, logprob, entropy, g, e, h, live,
    SOFTCAP: tl.constexpr, ENTROPY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Last block first: after a fold of the same row the end of it is what the caches still hold."""
    at_target = _target_gradient(logprob, entropy, g, e, h, ENTROPY)
    block = tl.arange(0, BLOCK)
    whole = num_columns // BLOCK * BLOCK
    for start in range(whole, num_columns, BLOCK):
        _gradient_block(
            row_ptr, bias_ptr, start + block, num_columns, before, after, chain, target, top, log_sum, entropy,
            g, e, h, at_target, live, SOFTCAP, ENTROPY, True,
        )  # fmt: skip
    for done in range(0, whole, BLOCK):
        _gradient_block(
            row_ptr, bias_ptr, whole - BLOCK - done + block, num_columns, before, after, chain, target, top, log_sum,
            entropy, g, e, h, at_target, live, SOFTCAP, ENTROPY, False,
        )  # fmt: skip


@triton.jit(do_not_specialize=["column_start", "temperature_bits"])
def gradient_tile_kernel(
    tile_ptr,  # [R, V], overwritten
    targets_ptr,  # [R]
    bias_ptr,  # [V] or None
    temperature_ptr,  # [R] or None
    row_max_ptr, log_sum_ptr, logprob_ptr,  # [R]
    entropy_ptr, grad_logprob_ptr, grad_entropy_ptr, grad_lse_ptr,  # [R] or None
    num_columns, row_stride, column_start, temperature_bits,
    LOGIT_SCALE: tl.constexpr, SOFTCAP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`g [j = target] + p_j (h - g - e (log p_j + entropy))` through temperature, cap and scale, in place."""
    row = tl.program_id(0).to(tl.int64)
    before, after, chain = _factors(row, temperature_ptr, temperature_bits, LOGIT_SCALE, SOFTCAP)
    g, e, h, entropy = 0.0, 0.0, 0.0, 0.0
    if grad_logprob_ptr is not None:
        g = tl.load(grad_logprob_ptr + row)
    if grad_entropy_ptr is not None:
        e, entropy = tl.load(grad_entropy_ptr + row), tl.load(entropy_ptr + row)
    if grad_lse_ptr is not None:
        h = tl.load(grad_lse_ptr + row)
    target = (tl.load(targets_ptr + row) - column_start).to(tl.int32)
    top, log_sum, logprob = tl.load(row_max_ptr + row), tl.load(log_sum_ptr + row), tl.load(logprob_ptr + row)
    _gradient_row(
        tile_ptr + row * row_stride, bias_ptr, num_columns, before, after, chain, target, top, log_sum, logprob,
        entropy, g, e, h, True, SOFTCAP, grad_entropy_ptr is not None, BLOCK,
    )  # fmt: skip
