"""Row kernels in plain PyTorch, a cache-sized block of rows at a time: what backend="reference" runs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rlsft_kernels._head.head import Head, statistics_dtype
from rlsft_kernels._head.rows import FoldState, RowGradients
from rlsft_kernels._head.token_rule import TokenRule
from rlsft_kernels._outer_product import accumulate_weight_gradient, adds_in_float32

_CPU_BLOCK_BYTES = 2**20  # 0.045 ms a row at 1 MiB, 0.15 at 48 MiB (V=49152, one CPU thread)
# exp() of anything below this is 0 in float64 too, and 0 * LOWEST is 0 where 0 * -inf would be NaN
LOWEST = -1e4


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Sums run in the statistics dtype."""
    return statistics_dtype(dtype)


def fold_(
    head: Head, tile_RC: Tensor, columns: slice, targets_R: Tensor, temperature: float | Tensor, state: FoldState
) -> None:
    """See `RowKernels.fold_`."""
    for part in _blocks(tile_RC):
        logits_RC, _ = _logits(head, tile_RC[part], columns, _column(temperature, part))
        _fold_block(logits_RC, columns.start, targets_R[part], state.of(part))


def gradient_(
    head: Head, tile_RC: Tensor, columns: slice, gradients: RowGradients, order: Tensor | None, out: Tensor
) -> None:
    """See `RowKernels.gradient_`."""
    for part in _blocks(out):
        rows = part if order is None else order[part]
        out[part] = _gradient_block(head, tile_RC[rows], columns, gradients.of(rows))


def loss_(
    head: Head, tile_RV: Tensor, targets_R: Tensor, temperature: float | Tensor, rule: TokenRule
) -> dict[str, Tensor] | None:
    """See `RowKernels.loss_`: in two passes here, so that rows without a gradient can be left out between them."""
    return None


def accumulate_(total_VH: Tensor, grad_tile_RV: Tensor, hidden_RH: Tensor, *, first: bool) -> None:
    """See `RowKernels.accumulate_`."""
    accumulate_weight_gradient(total_VH, grad_tile_RV, hidden_RH, first=first, native=False)


def accumulates(dtype: torch.dtype) -> bool:
    """See `RowKernels.accumulates`."""
    return adds_in_float32(dtype, native=False)


def _blocks(tile_RC: Tensor) -> Iterator[slice]:
    num_rows, num_columns = tile_RC.shape
    row_bytes = num_columns * statistics_dtype(tile_RC.dtype).itemsize
    step = max(1, _CPU_BLOCK_BYTES // max(1, row_bytes)) if tile_RC.device.type == "cpu" else max(1, num_rows)
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def _column(temperature: float | Tensor, part: slice) -> float | Tensor:
    return temperature[part, None] if isinstance(temperature, Tensor) else temperature


def _logits(
    head: Head, tile_RC: Tensor, columns: slice, temperature_R1: float | Tensor
) -> tuple[Tensor, Tensor | None]:
    """Final logits of a block and, with a softcap, the capped values that the chain rule needs."""
    scores_RC = tile_RC.to(statistics_dtype(tile_RC.dtype), copy=True)
    bias_C = head.bias_of(columns)
    if bias_C is not None:
        scores_RC += bias_C
    if head.logit_scale != 1.0:
        scores_RC *= head.logit_scale
    if head.softcap is None:
        return scores_RC.div_(temperature_R1), None
    capped_RC = scores_RC.div_(head.softcap).tanh_().mul_(head.softcap)
    return capped_RC / temperature_R1, capped_RC


def _fold_block(logits_RC: Tensor, column_start: int, targets_R: Tensor, state: FoldState) -> None:
    """Adds a block to the sums around the larger of the old and the new maximum; reuses the memory of the logits."""
    largest_R = logits_RC.amax(dim=-1)
    if state.first_largest is not None:
        at_largest_RC = logits_RC == largest_R[:, None]
        # argmax() is ten times slower than a second pass over the block
        columns_C = torch.arange(logits_RC.shape[1], device=logits_RC.device, dtype=logits_RC.dtype)
        first_R = torch.where(at_largest_RC, columns_C, torch.inf).amin(dim=-1).clamp_(max=logits_RC.shape[1])
        state.first_largest[:] = torch.where(
            largest_R > state.row_max, first_R.long() + column_start, state.first_largest
        )
    if state.sum_logit is not None:
        state.sum_logit.add_(logits_RC.sum(dim=-1))
    local_R = targets_R - column_start
    here_R = (local_R >= 0) & (local_R < logits_RC.shape[1])
    target_R = logits_RC.gather(-1, local_R.clamp(0, logits_RC.shape[1] - 1)[:, None])[:, 0]
    state.target_logit[:] = torch.where(here_R, target_R, state.target_logit)
    row_max_R = torch.fmax(largest_R, state.row_max)  # passes over a NaN, which the sums then carry
    around_R = torch.where(row_max_R == -torch.inf, 0, row_max_R)  # -inf - -inf would be NaN
    shifted_RC = logits_RC.sub_(around_R[:, None]).clamp_(min=LOWEST)
    _add_sums(shifted_RC, row_max_R, state)
    state.row_max[:] = row_max_R


def _add_sums(shifted_RC: Tensor, row_max_R: Tensor, state: FoldState) -> None:
    step_R = torch.where(state.sum_exp == 0, 0, state.row_max - row_max_R)
    shrink_R = step_R.exp()
    exp_RC = shifted_RC.exp()
    if state.sum_exp_shifted is not None:
        old_R = shrink_R * (state.sum_exp_shifted + step_R * state.sum_exp)
        state.sum_exp_shifted[:] = old_R + torch.linalg.vecdot(exp_RC, shifted_RC)
    if state.sum_exp_sq is not None:
        state.sum_exp_sq[:] = shrink_R.square() * state.sum_exp_sq + torch.linalg.vecdot(exp_RC, exp_RC)
    state.sum_exp[:] = shrink_R * state.sum_exp + exp_RC.sum(dim=-1)


def _gradient_block(head: Head, tile_RC: Tensor, columns: slice, g: RowGradients) -> Tensor:
    """d loss / d tile of one block of rows.

    The gradient by a final logit is `g * [j = target] + p_j * (h - g - e * (log p_j + entropy))` with g, e, h those
    by logprob, entropy and lse; then temperature, cap and scale.
    """
    temperature_R1 = g.temperature[:, None] if isinstance(g.temperature, Tensor) else g.temperature
    logits_RC, capped_RC = _logits(head, tile_RC, columns, temperature_R1)
    logprobs_RC = logits_RC.sub_(g.row_max[:, None]).sub_(g.log_sum[:, None]).clamp_(min=LOWEST)
    grad_RC = logprobs_RC.exp()
    zero = torch.zeros((), dtype=grad_RC.dtype, device=grad_RC.device)
    by_logprob_R1 = zero if g.by_logprob is None else g.by_logprob[:, None]
    by_lse_R1 = zero if g.by_lse is None else g.by_lse[:, None]
    rest_RC = by_lse_R1.expand(len(tile_RC), 1)
    if g.by_entropy is not None:
        assert g.entropy is not None
        rest_RC = by_lse_R1 - logprobs_RC.add_(g.entropy[:, None]).mul_(g.by_entropy[:, None])
    local_R1 = (g.targets - columns.start)[:, None]
    here_R1 = (local_R1 >= 0) & (local_R1 < tile_RC.shape[1])
    local_R1 = local_R1.clamp(0, tile_RC.shape[1] - 1)
    # g * (1 - p) of the target as one number: g - g * p would round twice where p is close to 1
    rest_target_R1 = rest_RC.gather(-1, local_R1) if rest_RC.shape[1] > 1 else rest_RC[:, :1]
    at_target_R1 = grad_RC.gather(-1, local_R1) * rest_target_R1 - by_logprob_R1 * g.logprob[:, None].expm1()
    grad_RC *= rest_RC - by_logprob_R1
    grad_RC.scatter_(-1, local_R1, torch.where(here_R1, at_target_R1, grad_RC.gather(-1, local_R1)))
    if capped_RC is not None and head.softcap is not None:
        grad_RC *= 1 - (capped_RC / head.softcap).square_()
    return grad_RC.mul_(head.logit_scale).div_(temperature_R1)
