"""linear_cross_entropy in tiles with its gradient made in the forward, for every backend.

Each tile of logits is folded into the loss and overwritten with its own gradient while it is at hand, so that loss and
gradients take three products where a recomputing backward takes four; two with a frozen weight, one without gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlsft_kernels._head.gradients import HeadGradients, Needs, scatter_rows
from rlsft_kernels._head.head import Head, labelled_tokens, statistics_dtype
from rlsft_kernels._head.loss import LossPlan, loss_in_forward
from rlsft_kernels._head.rows import RowKernels
from rlsft_kernels._head.token_rule import TokenRule

_WANTED = frozenset(("logprob", "entropy", "is_top1", "row_max", "log_sum"))


class SummedLoss(NamedTuple):
    """Sums over the labelled rows, and the gradients of `total`."""

    total: Tensor  # 0-d
    sums: Tensor  # [4]: labelled rows, correct rows, entropy, negative log-likelihood
    gradients: HeadGradients


def linear_cross_entropy_fwd(
    head: Head,
    kernels: RowKernels,
    hiddens: tuple[Tensor, ...],  # each [N, H_k]
    targets_N: Tensor,
    token_weights_N: Tensor | None,
    kind: str,
    ignore_index: int,
    tile_bytes: int,
    needs: Needs,
    plan: LossPlan,
) -> SummedLoss:
    """Loss, statistics and gradients; on a CPU ignored rows are left out before the first product."""
    tokens, rows_L = labelled_tokens(hiddens, targets_N, 1.0, ignore_index, head.num_columns)
    wide = statistics_dtype(head.dtype)
    weights_L = _weights(token_weights_N, targets_N, ignore_index, rows_L, wide)

    def coefficients(rows: slice, values: dict[str, Tensor]) -> tuple[Tensor, None]:
        return -weights_L[rows] * _trust(values["logprob"], kind), None

    rule = TokenRule(kind, weights_L)
    values, found = loss_in_forward(head, kernels, tokens, _WANTED, coefficients, needs, tile_bytes, plan, rule)
    logprob_L = values["logprob"]
    total = -_sum(weights_L != 0, weights_L * _trust(logprob_L, kind) * logprob_L)
    counted_L = torch.ones_like(weights_L, dtype=torch.bool) if rows_L is not None else targets_N != ignore_index
    sums = torch.stack(
        (
            counted_L.sum().to(wide),
            _sum(counted_L, values["is_top1"].to(wide)),
            _sum(counted_L, values["entropy"]),
            -_sum(counted_L, logprob_L),
        )
    )
    hidden_grads = tuple(scatter_rows(x, rows_L, len(targets_N)) for x in found.hiddens)
    return SummedLoss(total, sums, HeadGradients(hidden_grads, found.weights, found.bias))


def _trust(logprob_L: Tensor, kind: str) -> Tensor | float:
    """DFT's factor, a constant: the probability of the target."""
    return logprob_L.exp() if kind == "dft" else 1.0


def _weights(
    token_weights_N: Tensor | None, targets_N: Tensor, ignore_index: int, rows_L: Tensor | None, wide: torch.dtype
) -> Tensor:
    weights_N = targets_N.new_ones(len(targets_N), dtype=wide) if token_weights_N is None else token_weights_N.to(wide)
    if rows_L is not None:
        return weights_N[rows_L]
    return torch.where(targets_N != ignore_index, weights_N, 0)


def _sum(counted_L: Tensor, x_L: Tensor) -> Tensor:
    return torch.where(counted_L, x_L, 0).sum()
