"""linear_logprob in row tiles with a hand-written backward, in plain PyTorch: what backend="reference" runs.

Equal to `linear_logprob_reference` without ever holding logits of more rows than one tile. The backward
computes the tile again, overwrites it with the gradient and multiplies: four GEMMs in all, three with a
frozen weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlsft_kernels._head import (
    LOWEST,
    Head,
    HeadGradients,
    entropy_of,
    is_first_largest,
    labelled_rows,
    row_statistics,
    statistics_dtype,
)

# The outputs of the op in the order of LogprobOutput, then what only the backward needs.
FIELDS = ("logprob", "entropy", "lse", "log_sum_sq_probs", "mean_logit", "is_top1", "row_max", "log_sum")


@dataclass(frozen=True)
class UpstreamGradients:
    """Gradients of the loss by the differentiable outputs, each [N] or None."""

    logprob: Tensor | None
    entropy: Tensor | None
    lse: Tensor | None
    dtype: torch.dtype

    def live_rows(self, rows_L: Tensor) -> Tensor:
        """Rows on which some gradient is not zero; the others would add exact zeros, so they cost no GEMM."""
        live_L = torch.zeros_like(rows_L, dtype=torch.bool)
        for grad_N in (self.logprob, self.entropy, self.lse):
            if grad_N is not None:
                live_L |= grad_N[rows_L] != 0
        return rows_L[live_L]

    def of_rows(self, name: str, rows_R: Tensor) -> Tensor:  # [R, 1]
        """One of the three on some rows, zero where it is None."""
        grad_N: Tensor | None = getattr(self, name)
        if grad_N is None:
            return torch.zeros(1, 1, dtype=self.dtype, device=rows_R.device)
        return grad_N[rows_R, None].to(self.dtype)


@dataclass(frozen=True)
class SavedStatistics:
    """What the backward needs of the forward, each [N]; `entropy` is read only under an entropy gradient."""

    logprob: Tensor
    entropy: Tensor
    row_max: Tensor
    log_sum: Tensor


def linear_logprob_fwd(
    head: Head,
    hidden_NH: Tensor,
    targets_N: Tensor,
    temperature: float | Tensor,  # or [N]
    wanted: frozenset[str],
    ignore_index: int,
    tile_bytes: int,
) -> dict[str, Tensor]:
    """The wanted fields as [N] tensors, zero on ignored rows; the others as empty tensors."""
    rows_L = labelled_rows(targets_N, ignore_index, head.weight.shape[0])
    folded: dict[str, list[Tensor]] = {name: [] for name in FIELDS if name in wanted}
    for rows_C, _, tile_CV in head.tiles(hidden_NH, rows_L, tile_bytes):
        for part in head.blocks(len(rows_C)):
            logits_RV, _ = head.logits(tile_CV[part], _of_rows(temperature, rows_C[part]))
            for name, value_R in _fold(logits_RV, targets_N[rows_C[part]], wanted).items():
                folded[name].append(value_R)
    return {name: _scatter(folded.get(name), rows_L, hidden_NH, name) for name in FIELDS}


def linear_logprob_bwd(
    head: Head,
    hidden_NH: Tensor,
    targets_N: Tensor,
    temperature: float | Tensor,  # or [N]
    upstream: UpstreamGradients,
    saved: SavedStatistics,
    ignore_index: int,
    tile_bytes: int,
    needs: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by hidden, weight and bias; what `needs` leaves out is an empty tensor."""
    gradients = HeadGradients(head, hidden_NH, needs)
    rows_L = upstream.live_rows((targets_N != ignore_index).nonzero()[:, 0])
    for rows_C, hidden_CH, tile_CV in head.tiles(hidden_NH, rows_L, tile_bytes):
        for part in head.blocks(len(rows_C)):
            rows_R = rows_C[part]
            tile_CV[part] = _grad_block(
                head, tile_CV[part], rows_R, targets_N[rows_R], _of_rows(temperature, rows_R), upstream, saved
            )
        gradients.add(rows_C, hidden_CH, tile_CV)
    return gradients.as_tensors()


def _fold(logits_RV: Tensor, targets_R: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
    values: dict[str, Tensor] = {}
    # row_statistics reuses the memory of the logits, so what needs them comes first
    if "mean_logit" in wanted:
        values["mean_logit"] = logits_RV.mean(dim=-1)
    statistics = row_statistics(logits_RV, targets_R)
    if "is_top1" in wanted:
        values["is_top1"] = is_first_largest(statistics, targets_R)
    if "entropy" in wanted:
        values["entropy"] = entropy_of(statistics)
    if "log_sum_sq_probs" in wanted:
        square_sum_R = torch.linalg.vecdot(statistics.exp, statistics.exp)
        values["log_sum_sq_probs"] = square_sum_R.log() - 2 * statistics.log_sum
    if "lse" in wanted:
        values["lse"] = statistics.row_max + statistics.log_sum
    for name in ("logprob", "row_max", "log_sum"):
        if name in wanted:
            values[name] = getattr(statistics, name)
    return values


def _scatter(parts: list[Tensor] | None, rows_L: Tensor, hidden_NH: Tensor, name: str) -> Tensor:
    dtype = torch.bool if name == "is_top1" else statistics_dtype(hidden_NH.dtype)
    if parts is None:
        return hidden_NH.new_empty(0, dtype=dtype)
    out_N = hidden_NH.new_zeros(len(hidden_NH), dtype=dtype)
    return out_N.index_copy_(0, rows_L, torch.cat(parts)) if parts else out_N


def _grad_block(
    head: Head,
    tile_RV: Tensor,
    rows_R: Tensor,
    targets_R: Tensor,
    temperature_R1: float | Tensor,
    upstream: UpstreamGradients,
    saved: SavedStatistics,
) -> Tensor:
    """d loss / d tile of one block of rows.

    With g, e, h the upstream gradients by logprob, entropy and lse, the gradient by a final logit is
    `g * [j = target] + p_j * (h - g - e * (log p_j + entropy))`; `chain_` takes it through temperature, cap
    and scale.
    """
    logits_RV, capped_RV = head.logits(tile_RV, temperature_R1)
    logprobs_RV = logits_RV.sub_(saved.row_max[rows_R, None]).sub_(saved.log_sum[rows_R, None]).clamp_(min=LOWEST)
    grad_RV = logprobs_RV.exp()
    g_R1, h_R1 = upstream.of_rows("logprob", rows_R), upstream.of_rows("lse", rows_R)
    rest_RV: Tensor = h_R1
    if upstream.entropy is not None:
        surprise_RV = logprobs_RV.add_(saved.entropy[rows_R, None])
        rest_RV = h_R1 - surprise_RV.mul_(upstream.of_rows("entropy", rows_R))
        rest_target_R1 = rest_RV.gather(-1, targets_R[:, None])
    else:
        rest_target_R1 = h_R1
    # g * (1 - p) of the target as one number: g - g * p would round twice where p is close to 1
    grad_target_R1 = grad_RV.gather(-1, targets_R[:, None]) * rest_target_R1
    grad_target_R1 -= g_R1 * saved.logprob[rows_R, None].expm1()
    grad_RV *= rest_RV - g_R1
    grad_RV.scatter_(-1, targets_R[:, None], grad_target_R1)
    return head.chain_(grad_RV, capped_RV, temperature_R1)


def _of_rows(temperature: float | Tensor, rows_R: Tensor) -> float | Tensor:
    return temperature[rows_R, None] if isinstance(temperature, Tensor) else temperature
