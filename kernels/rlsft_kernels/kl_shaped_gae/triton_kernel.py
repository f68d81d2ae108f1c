"""kl_shaped_gae on a GPU: rewards, advantages, returns and moments in one pass over the tokens.

With `S_t = gamma * V_next + gamma * lam * A_next`, where next is the next unmasked token, `A_t = r_t + S_t - V_t` and
`S` before token t is `gamma * lam * (r_t + S_t) + gamma * (1 - lam) * V_t`: a first-order linear recursion, which scans
in parallel. A masked token is the identity. Behind the last token S is `gamma * bootstrap + score`, so a score finds
the last unmasked token without a search. The scan leaves `S` before each token; shifted by a lane it is `S_t`.

Rows lie padded or flat alike: row b is the tokens `[start_b, end_b)`. Many rows take one program each; few long ones
are cut into blocks, each summed up as `S_before = decay * S_after + gain` first. Cuts depend on shapes only.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from rlsft_kernels import _triton_blocks as blocks
from rlsft_kernels._triton_blocks import as_float, centered_square, kl_and_slope, sum_row
from rlsft_kernels.kl_shaped_gae.reference import STATS

MANY_ROWS = 128  # as many programs keep a GPU busy without cutting rows
_NUM_SUMS = 9  # rows of the partial sums
_SEGMENTS = 256  # blocks of a row whose summaries are scanned at once


def kl_shaped_gae_fwd(
    scores: Tensor,  # [B], or shaped like values
    logprobs: Tensor,  # [B, T], or [N] with cu_seqlens
    ref_logprobs: Tensor | None,  # shaped like values, as the mask
    values: Tensor,
    mask: Tensor,  # bool or integer
    *,
    kl_coef: Tensor,  # 0-d
    kl_estimator: str,
    gamma: float,
    lam: float,
    whiten: bool,
    bootstrap_values: Tensor | None,  # [B]
    cu_seqlens: Tensor | None = None,  # [B + 1] on the device
    longest: int | None = None,  # length of the longest row where cu_seqlens is given
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(advantages, returns, moments [2], stats [len(STATS)]), float32."""
    num_rows = len(values) if cu_seqlens is None else len(cu_seqlens) - 1
    width = values.shape[1] if cu_seqlens is None else longest
    if width is None:
        raise ValueError("longest is needed with cu_seqlens: reading it from the device would wait for the GPU")
    num_tokens, wide = values.numel(), {"dtype": torch.float32, "device": values.device}
    block = min(blocks.BLOCK, max(32, triton.next_power_of_2(width)))
    warps = max(1, block // 256)
    num_slots = num_tokens // block + num_rows + 1  # rows end inside blocks: some slots stay empty
    partials_KS = torch.zeros(_NUM_SUMS, num_slots, **wide)  # type: ignore[call-overload]
    advantages, returns = torch.empty(values.shape, **wide), torch.empty(values.shape, **wide)  # type: ignore[call-overload]
    moments, stats = partials_KS.new_empty(2), partials_KS.new_empty(len(STATS))
    num_cuts = triton.cdiv(width, block) if num_rows < MANY_ROWS and width > block else 1
    is_dense = scores.shape == values.shape and (scores.ndim == 2 or scores.numel() != num_rows)
    tokens = [blocks.flat(x) for x in (scores, logprobs, ref_logprobs, values)]
    tokens += [blocks.mask_bytes(mask), blocks.flat(bootstrap_values), blocks.flat(cu_seqlens)]
    settings = [width, blocks.float_bits(gamma), blocks.float_bits(gamma * lam), blocks.float_bits(gamma * (1 - lam))]
    flags = {"KL_KIND": kl_estimator, "DENSE": is_dense, "CUT": num_cuts > 1, "BLOCK": block, "num_warps": warps}
    summaries_3S = None
    if num_rows * num_cuts > 0 and num_tokens > 0:
        if num_cuts > 1:
            summaries_3S = torch.empty(3, num_slots, **wide)  # type: ignore[call-overload]
            summary_kernel[(num_rows * num_cuts,)](
                *tokens, kl_coef, summaries_3S, num_slots, num_cuts, *settings, **flags
            )
        scan_kernel[(num_rows * num_cuts,)](
            *tokens, kl_coef, summaries_3S, advantages, returns, partials_KS, num_slots, num_cuts, *settings,
            SEGMENTS=_SEGMENTS, **flags,
        )  # fmt: skip
    merge_kernel[(1,)](partials_KS, kl_coef, moments, stats, num_slots, WHITEN=whiten, MERGE=blocks.MERGE, num_warps=4)
    if whiten and num_tokens > 0:
        grid = (triton.cdiv(num_tokens, blocks.BLOCK),)
        whiten_kernel[grid](advantages, tokens[4], moments, num_tokens, BLOCK=blocks.BLOCK, num_warps=4)
    return advantages, returns, moments, stats


@triton.jit
def _compose(decay_later, gain_later, decay, gain):
    """The recursion through later tokens first, then through earlier ones."""
    return decay_later * decay, gain + decay * gain_later


@triton.jit
def _row_bounds(row, cu_ptr, width):
    if cu_ptr is not None:
        return tl.load(cu_ptr + row).to(tl.int64), tl.load(cu_ptr + row + 1).to(tl.int64)
    return row * width, (row + 1) * width


@triton.jit
def _tokens(
    scores_ptr, logp_ptr, ref_ptr, values_ptr, mask_ptr, offsets, inside, kl_coef,
    KL_KIND: tl.constexpr, DENSE: tl.constexpr,
):  # fmt: skip
    """Whether each token counts, its value, KL, score and reward; zero where it does not, whatever lies there."""
    keep = inside & (tl.load(mask_ptr + offsets, mask=inside, other=0) != 0)
    value = tl.where(keep, tl.load(values_ptr + offsets, mask=inside, other=0.0).to(tl.float32), 0.0)
    kl = tl.zeros_like(value)
    if ref_ptr is not None:
        logp = tl.load(logp_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        ref = tl.load(ref_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
        estimate, _slope = kl_and_slope(logp - ref, KL_KIND)
        kl = tl.where(keep, estimate, 0.0)
    score = tl.zeros_like(value)
    if DENSE:
        score = tl.where(keep, tl.load(scores_ptr + offsets, mask=inside, other=0.0).to(tl.float32), 0.0)
    return keep, value, kl, score, score - kl_coef * kl


@triton.jit
def _scan_block(keep, value, reward, gamma_lam, gamma_rest):
    """At each lane the recursion from the end of the block to before its token: decay and gain."""
    decay = tl.where(keep, gamma_lam, 1.0)
    gain = tl.where(keep, gamma_lam * reward + gamma_rest * value, 0.0)
    return tl.associative_scan((decay, gain), 0, _compose, reverse=True)


@triton.jit
def _first_lane(x, BLOCK: tl.constexpr):
    return tl.sum(tl.where(tl.arange(0, BLOCK) == 0, x, 0.0))


@triton.jit(do_not_specialize=["gamma_bits", "decay_bits", "rest_bits"])
def summary_kernel(
    scores_ptr, logp_ptr, ref_ptr, values_ptr, mask_ptr, bootstrap_ptr, cu_ptr, kl_coef_ptr, summaries_ptr,
    num_slots, num_cuts, width, gamma_bits, decay_bits, rest_bits,
    KL_KIND: tl.constexpr, DENSE: tl.constexpr, CUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Decay, gain and number of tokens that count of one block of one row."""
    program = tl.program_id(0).to(tl.int64)
    row, cut = program // num_cuts, program % num_cuts
    start, end = _row_bounds(row, cu_ptr, width)
    offsets = start + cut * BLOCK + tl.arange(0, BLOCK)
    if start + cut * BLOCK < end:
        keep, value, _kl, _score, reward = _tokens(
            scores_ptr, logp_ptr, ref_ptr, values_ptr, mask_ptr, offsets, offsets < end,
            tl.load(kl_coef_ptr).to(tl.float32), KL_KIND, DENSE,
        )  # fmt: skip
        decay, gain = _scan_block(keep, value, reward, as_float(decay_bits), as_float(rest_bits))
        out = summaries_ptr + start // BLOCK + row + cut
        tl.store(out, _first_lane(decay, BLOCK))
        tl.store(out + num_slots, _first_lane(gain, BLOCK))
        tl.store(out + 2 * num_slots, tl.sum(tl.where(keep, 1.0, 0.0)))


@triton.jit
def _behind_cut(summaries_ptr, slot, cut, last_cut, num_slots, carry, SEGMENTS: tl.constexpr):
    """S behind block `cut`, and how many tokens count there, from the summaries of the later blocks of its row."""
    lanes = tl.arange(0, SEGMENTS)
    seen = 0.0
    for back in range(0, last_cut - cut, SEGMENTS):
        later = last_cut - back - (SEGMENTS - 1) + lanes
        inside = later > cut
        decay = tl.load(summaries_ptr + slot + later, mask=inside, other=1.0)
        gain = tl.load(summaries_ptr + slot + num_slots + later, mask=inside, other=0.0)
        seen += tl.sum(tl.load(summaries_ptr + slot + 2 * num_slots + later, mask=inside, other=0.0))
        decay, gain = tl.associative_scan((decay, gain), 0, _compose, reverse=True)
        carry = _first_lane(gain, SEGMENTS) + _first_lane(decay, SEGMENTS) * carry
    return carry, seen


@triton.jit
def _put_centered(out, sum_row_index, square_row, num_slots, x, keep, count):
    total = tl.sum(tl.where(keep, x, 0.0))
    centered = tl.where(keep, x - tl.div_rn(total, tl.maximum(count, 1.0)), 0.0)
    tl.store(out + sum_row_index * num_slots, total)
    tl.store(out + square_row * num_slots, tl.sum(centered * centered))


@triton.jit(do_not_specialize=["gamma_bits", "decay_bits", "rest_bits"])
def scan_kernel(
    scores_ptr, logp_ptr, ref_ptr, values_ptr, mask_ptr, bootstrap_ptr, cu_ptr, kl_coef_ptr, summaries_ptr,
    advantages_ptr, returns_ptr, partials_ptr, num_slots, num_cuts, width, gamma_bits, decay_bits, rest_bits,
    KL_KIND: tl.constexpr, DENSE: tl.constexpr, CUT: tl.constexpr, BLOCK: tl.constexpr, SEGMENTS: tl.constexpr,
):  # fmt: skip
    """One row from its end, or one block of it: advantages, returns and a column of partial sums a block."""
    program = tl.program_id(0).to(tl.int64)
    row, cut = program // num_cuts, program % num_cuts
    start, end = _row_bounds(row, cu_ptr, width)
    kl_coef = tl.load(kl_coef_ptr).to(tl.float32)
    slot = start // BLOCK + row
    last_cut = tl.cdiv(end - start, BLOCK) - 1
    carry, row_score = 0.0, 0.0
    if bootstrap_ptr is not None:
        carry = as_float(gamma_bits) * tl.load(bootstrap_ptr + row).to(tl.float32)
    if not DENSE:
        row_score = tl.load(scores_ptr + row).to(tl.float32)
        carry += row_score
    seen = 0.0
    num_steps = last_cut + 1
    if CUT:
        num_steps = tl.where(cut <= last_cut, 1, 0)
        carry, seen = _behind_cut(summaries_ptr, slot, cut, last_cut, num_slots, carry, SEGMENTS)
        last_cut = cut
    for step in range(num_steps):
        lanes = tl.arange(0, BLOCK)
        offsets = start + (last_cut - step) * BLOCK + lanes
        inside = offsets < end
        keep, value, kl, score, reward = _tokens(
            scores_ptr, logp_ptr, ref_ptr, values_ptr, mask_ptr, offsets, inside, kl_coef, KL_KIND, DENSE
        )
        decay, gain = _scan_block(keep, value, reward, as_float(decay_bits), as_float(rest_bits))
        before = gain + decay * carry
        shifted = tl.gather(before, tl.minimum(lanes + 1, BLOCK - 1), 0)
        behind = tl.where(lanes == BLOCK - 1, carry, shifted)
        returns = reward + behind
        advantages = returns - value
        tl.store(returns_ptr + offsets, tl.where(keep, returns, 0.0), mask=inside)
        tl.store(advantages_ptr + offsets, tl.where(keep, advantages, 0.0), mask=inside)
        carry = _first_lane(before, BLOCK)

        count = tl.sum(tl.where(keep, 1.0, 0.0))
        out = partials_ptr + slot + last_cut - step
        tl.store(out, count)
        tl.store(out + num_slots, tl.sum(kl))
        score_sum = tl.sum(score)
        holds_last = (count > 0) & (seen == 0)
        if not DENSE:
            score_sum = tl.where(holds_last, row_score, 0.0)
        seen += count
        tl.store(out + 2 * num_slots, score_sum)
        tl.store(out + 3 * num_slots, tl.where(holds_last, 1.0, 0.0))
        tl.store(out + 4 * num_slots, tl.sum(value))
        _put_centered(out, 5, 6, num_slots, advantages, keep, count)
        _put_centered(out, 7, 8, num_slots, returns, keep, count)


@triton.jit
def merge_kernel(
    partials_ptr, kl_coef_ptr, moments_ptr, stats_ptr, num_slots, WHITEN: tl.constexpr, MERGE: tl.constexpr
):  # fmt: skip
    """The moments and the statistics, from the blocks in their order."""
    count = sum_row(partials_ptr, 0, num_slots, MERGE)
    kl = sum_row(partials_ptr, 1, num_slots, MERGE)
    score = sum_row(partials_ptr, 2, num_slots, MERGE)
    sequences = sum_row(partials_ptr, 3, num_slots, MERGE)
    values = sum_row(partials_ptr, 4, num_slots, MERGE)
    tokens, rows = tl.maximum(count, 1.0), tl.maximum(sequences, 1.0)
    degrees = tl.maximum(count - 1.0, 1.0)
    mean = tl.div_rn(sum_row(partials_ptr, 5, num_slots, MERGE), tokens)
    variance = tl.div_rn(centered_square(partials_ptr, 0, 5, 6, mean, num_slots, MERGE), degrees)
    returns_mean = tl.div_rn(sum_row(partials_ptr, 7, num_slots, MERGE), tokens)
    returns_variance = tl.div_rn(centered_square(partials_ptr, 0, 7, 8, returns_mean, num_slots, MERGE), degrees)
    tl.store(moments_ptr, tl.where(count > 1, mean, 0.0))
    tl.store(moments_ptr + 1, tl.where(count > 1, tl.div_rn(1.0, tl.sqrt_rn(variance + 1e-8)), 1.0))
    penalty = -tl.load(kl_coef_ptr).to(tl.float32) * kl
    tl.store(stats_ptr, count)
    tl.store(stats_ptr + 1, sequences)
    tl.store(stats_ptr + 2, tl.div_rn(kl, tokens))
    tl.store(stats_ptr + 3, tl.div_rn(kl, rows))
    tl.store(stats_ptr + 4, tl.div_rn(penalty, rows))
    tl.store(stats_ptr + 5, tl.div_rn(score, rows))
    tl.store(stats_ptr + 6, tl.div_rn(penalty + score, rows))
    tl.store(stats_ptr + 7, mean)
    tl.store(stats_ptr + 8, variance)
    tl.store(stats_ptr + 9, returns_mean)
    tl.store(stats_ptr + 10, returns_variance)
    tl.store(stats_ptr + 11, tl.div_rn(values, tokens))
    tl.store(stats_ptr + 12, tl.where((count <= 1) & WHITEN, 1.0, 0.0))


@triton.jit
def whiten_kernel(advantages_ptr, mask_ptr, moments_ptr, num_tokens, BLOCK: tl.constexpr):
    """Whitens in place what counts; the rest stays 0."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < num_tokens
    keep = tl.load(mask_ptr + offsets, mask=inside, other=0) != 0
    x = tl.load(advantages_ptr + offsets, mask=inside, other=0.0)
    white = (x - tl.load(moments_ptr)) * tl.load(moments_ptr + 1)
    tl.store(advantages_ptr + offsets, tl.where(keep, white, 0.0), mask=inside)
