"""The language-model head in tiles: what `linear_logprob` and `linear_cross_entropy` share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rlsft_kernels._checks import require_float_tensor, require_head

# Chosen on a head of H=576, V=49152 in bf16 on one CPU thread: the GEMM wants many rows (0.16 ms a row at 64 rows,
# 0.06 at 512), the statistics want a block that stays in cache (0.045 ms a row at 1 MiB, 0.15 at 48 MiB).
DEFAULT_TILE_BYTES = 64 * 2**20
_CPU_BLOCK_BYTES = 2**20
# exp() of anything below this is 0 in float64 too, and 0 * LOWEST is 0 where 0 * -inf would be NaN
LOWEST = -1e4


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums and exponentials run in: float64 for float64 input, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class RowStatistics:
    """Softmax statistics of a block of rows, shifted by the row maximum: p close to 1 keeps its digits."""

    shifted: Tensor  # [R, V] logits minus their row maximum; reused by whoever needs the buffer
    exp: Tensor  # [R, V]
    row_max: Tensor  # [R]
    log_sum: Tensor  # [R] log of the sum of exp, so that logsumexp = row_max + log_sum
    logprob: Tensor  # [R]


@dataclass(frozen=True)
class Head:
    """`softcap(logit_scale * (hidden @ weight.T + bias)) / temperature`, one tile of rows at a time."""

    weight: Tensor  # [V, H]
    bias: Tensor | None  # [V]
    softcap: float | None
    logit_scale: float

    def tiles(self, hidden_NH: Tensor, rows_L: Tensor, tile_bytes: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yields `(rows_C, hidden_CH, tile_CV)` of the listed rows; every tile is the same buffer, reused."""
        num_columns = self.weight.shape[0]
        row_bytes = num_columns * self.weight.element_size()
        rows_per_tile = max(1, tile_bytes // max(1, row_bytes))
        buffer = self.weight.new_empty(min(rows_per_tile, len(rows_L)), num_columns)
        for start in range(0, len(rows_L), rows_per_tile):
            rows_C = rows_L[start : start + rows_per_tile]
            hidden_CH = hidden_NH.index_select(0, rows_C)
            tile_CV = buffer[: len(rows_C)]
            torch.mm(hidden_CH, self.weight.t(), out=tile_CV)
            yield rows_C, hidden_CH, tile_CV

    def blocks(self, num_rows: int) -> Iterator[slice]:
        """Row blocks in which the statistics of a tile run: cache-sized on a CPU, one block elsewhere."""
        row_bytes = self.weight.shape[0] * statistics_dtype(self.weight.dtype).itemsize
        on_cpu = self.weight.device.type == "cpu"
        step = max(1, _CPU_BLOCK_BYTES // max(1, row_bytes)) if on_cpu else max(1, num_rows)
        for start in range(0, num_rows, step):
            yield slice(start, min(start + step, num_rows))

    def logits(self, tile_RV: Tensor, temperature_R1: Tensor | float) -> tuple[Tensor, Tensor | None]:
        """Final logits of a block and, with a softcap, the capped values that `chain_` needs."""
        scores_RV = tile_RV.to(statistics_dtype(tile_RV.dtype), copy=True)
        if self.bias is not None:
            scores_RV += self.bias
        if self.logit_scale != 1.0:
            scores_RV *= self.logit_scale
        if self.softcap is None:
            return scores_RV.div_(temperature_R1), None
        capped_RV = scores_RV.div_(self.softcap).tanh_().mul_(self.softcap)
        return capped_RV / temperature_R1, capped_RV

    def chain_(self, grad_RV: Tensor, capped_RV: Tensor | None, temperature_R1: Tensor | float) -> Tensor:
        """Turns the gradient by the final logits, in place, into that by `hidden @ weight.T + bias`."""
        if capped_RV is not None and self.softcap is not None:
            grad_RV *= 1 - (capped_RV / self.softcap).square_()
        return grad_RV.mul_(self.logit_scale).div_(temperature_R1)


def row_statistics(logits_RV: Tensor, targets_R: Tensor) -> RowStatistics:
    """Log-probability of the targets and what it was made of; a row of only -inf gives NaN, as log_softmax does.

    Overwrites `logits_RV`.
    """
    row_max_R = logits_RV.amax(dim=-1)
    shifted_RV = logits_RV.sub_(row_max_R[:, None])
    shifted_target_R = shifted_RV.gather(-1, targets_R[:, None])[:, 0]
    shifted_RV.clamp_(min=LOWEST)
    exp_RV = shifted_RV.exp()
    log_sum_R = exp_RV.sum(dim=-1).log_()
    return RowStatistics(shifted_RV, exp_RV, row_max_R, log_sum_R, shifted_target_R - log_sum_R)


def is_first_largest(statistics: RowStatistics, targets_R: Tensor) -> Tensor:
    """Whether the target is the first of the largest logits. As `argmax() == target`, which is 10 times slower."""
    num_columns, dtype = statistics.shifted.shape[-1], statistics.shifted.dtype
    columns_V = torch.arange(num_columns, device=targets_R.device, dtype=dtype)  # exact up to 16 million tokens
    return torch.where(statistics.shifted == 0, columns_V, torch.inf).amin(dim=-1) == targets_R


def entropy_of(statistics: RowStatistics) -> Tensor:
    """`-sum p log p` of each row: `log_sum - sum p * shifted`, in which a vanished p adds exactly 0."""
    weighted_R = torch.linalg.vecdot(statistics.exp, statistics.shifted)
    return statistics.log_sum - weighted_R / statistics.log_sum.exp()


class HeadGradients:
    """Collects the gradients of a head from its tiles; sums over rows are kept in the statistics dtype."""

    def __init__(self, head: Head, hidden_NH: Tensor, needs: tuple[bool, bool, bool]) -> None:
        self._head = head
        needs_hidden, needs_weight, needs_bias = needs
        wide = statistics_dtype(hidden_NH.dtype)
        self.hidden_NH = torch.zeros_like(hidden_NH, memory_format=torch.contiguous_format) if needs_hidden else None
        self.weight = (
            torch.zeros_like(head.weight, dtype=wide, memory_format=torch.contiguous_format) if needs_weight else None
        )
        self.bias = head.weight.new_zeros(head.weight.shape[0], dtype=wide) if needs_bias else None

    def add(self, rows_C: Tensor, hidden_CH: Tensor, grad_tile_CV: Tensor) -> None:
        """Adds one tile of the gradient by `hidden @ weight.T + bias`."""
        if self.hidden_NH is not None:
            self.hidden_NH.index_copy_(0, rows_C, grad_tile_CV @ self._head.weight)
        if self.weight is not None:
            if self.weight.dtype == grad_tile_CV.dtype:
                self.weight.addmm_(grad_tile_CV.t(), hidden_CH)
            else:  # a half-precision product, then a float32 sum: one rounding a tile instead of one a row
                self.weight += grad_tile_CV.t() @ hidden_CH
        if self.bias is not None:
            self.bias += grad_tile_CV.sum(dim=0, dtype=self.bias.dtype)

    def as_tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three gradients; what was not asked for is an empty tensor, because an op returns no None."""
        gradients = (self.hidden_NH, self.weight, self.bias)
        hidden, weight, bias = (self._head.weight.new_empty(0) if g is None else g for g in gradients)
        return hidden, weight, bias


def labelled_rows(targets_N: Tensor, ignore_index: int, num_columns: int) -> Tensor:
    """Rows whose target counts; on a CPU a target outside the vocabulary raises, on a GPU the gather asserts."""
    rows_L = (targets_N != ignore_index).nonzero()[:, 0]
    if targets_N.device.type == "cpu":
        targets_L = targets_N[rows_L]
        bad = ((targets_L < 0) | (targets_L >= num_columns)).nonzero()
        if len(bad):
            row = int(rows_L[bad[0, 0]])
            raise ValueError(
                f"targets must be in [0, {num_columns}) or ignore_index={ignore_index}, "
                f"got {int(targets_N[row])} in row {row}"
            )
    return rows_L


def checked_head(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """hidden, weight and bias after the checks; inside `torch.autocast` cast as `F.linear` casts (not float64)."""
    require_float_tensor("hidden", hidden)
    device_type = hidden.device.type
    if torch.is_autocast_enabled(device_type) and hidden.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device_type)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    require_head(hidden, weight, targets, bias)
    return hidden, weight, bias
