"""linear_cross_entropy in row tiles with its gradient computed in the forward: what backend="reference" runs.

Each tile of logits is folded into the loss and overwritten with its own gradient while it is at hand, so that
loss and gradients take three GEMMs where a recomputing backward takes four; two with a frozen weight, one
without gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlsft_kernels._head import (
    Head,
    HeadGradients,
    entropy_of,
    is_first_largest,
    labelled_rows,
    row_statistics,
    statistics_dtype,
)


class SummedLoss(NamedTuple):
    """Sums over the labelled rows and the gradients of `nll`; a gradient that was not asked for is empty."""

    nll: Tensor  # 0-d
    sums: Tensor  # [3]: labelled rows, correct rows, entropy
    grad_hidden: Tensor  # [N, H]
    grad_weight: Tensor  # [V, H] in the statistics dtype: scaled before it is rounded
    grad_bias: Tensor  # [V] in the statistics dtype


def linear_cross_entropy_fwd(
    head: Head,
    hidden_NH: Tensor,
    targets_N: Tensor,
    ignore_index: int,
    tile_bytes: int,
    needs: tuple[bool, bool, bool],  # gradients by hidden, weight, bias
) -> SummedLoss:
    """Loss, statistics and gradients, ignored rows left out before the first GEMM."""
    gradients = HeadGradients(head, hidden_NH, needs)
    rows_L = labelled_rows(targets_N, ignore_index, head.weight.shape[0])
    folded: list[Tensor] = []
    for rows_C, hidden_CH, tile_CV in head.tiles(hidden_NH, rows_L, tile_bytes):
        targets_C = targets_N[rows_C]
        parts = head.blocks(len(rows_C))
        folded += [_fold_block(head, tile_CV[part], targets_C[part], any(needs)) for part in parts]
        if any(needs):
            gradients.add(rows_C, hidden_CH, tile_CV)
    wide = statistics_dtype(hidden_NH.dtype)
    nll_correct_entropy = torch.cat(folded, dim=1) if folded else hidden_NH.new_zeros(3, 0, dtype=wide)
    nll, num_correct, entropy = nll_correct_entropy.sum(dim=1)
    num_rows = torch.full_like(nll, len(rows_L))
    return SummedLoss(nll.clone(), torch.stack((num_rows, num_correct, entropy)), *gradients.as_tensors())


def _fold_block(head: Head, tile_RV: Tensor, targets_R: Tensor, with_gradient: bool) -> Tensor:
    """[3, R] of nll, correct and entropy; with a gradient the tile then holds d nll / d tile."""
    logits_RV, capped_RV = head.logits(tile_RV, 1.0)
    statistics = row_statistics(logits_RV, targets_R)
    correct_R = is_first_largest(statistics, targets_R)
    entropy_R = entropy_of(statistics)
    if with_gradient:
        grad_RV = statistics.exp.mul_((-statistics.log_sum[:, None]).exp_())
        # p - 1 of the target as one number, from its log-probability
        grad_RV.scatter_(-1, targets_R[:, None], statistics.logprob[:, None].expm1())
        tile_RV.copy_(head.chain_(grad_RV, capped_RV, 1.0))
    return torch.stack((-statistics.logprob, correct_R.to(entropy_R.dtype), entropy_R))
