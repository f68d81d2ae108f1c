"""Losses whose gradient by a row's outputs depends on that row alone, with their gradient made in the forward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlsft_kernels._head.gradients import HeadGradients, Needs, scatter_rows
from rlsft_kernels._head.head import Head, Tokens
from rlsft_kernels._head.passes import (
    Coefficients,
    gradients_by_columns,
    gradients_in_forward,
    live_rows,
    row_gradients,
    statistics_of,
)
from rlsft_kernels._head.rows import RowKernels
from rlsft_kernels._head.token_rule import TokenRule


@dataclass(frozen=True)
class LossPlan:
    """How a loss goes over its tiles; chosen from shapes alone, so that the dtype of the results is known before."""

    by_columns: bool
    weight_dtype: torch.dtype


def plan_loss(num_rows: int, weight: Tensor, *, needs_weight: bool, tile_bytes: int, backend: str) -> LossPlan:
    """Tiles of whole rows take three products, tiles of all rows and some columns four.

    In bfloat16 on a CPU the four are faster. A product of a few hundred whole rows by the weight runs at half the speed
    of one with all rows, and the weight gradient of each tile has to be added to a float32 sum; by columns every block
    of the gradient is finished at once and nothing of the size of the weight is held in float32 (docs/LOG.md).
    """
    num_columns = weight.shape[0]
    dtype = weight.dtype
    one_tile = num_rows * num_columns * dtype.itemsize <= tile_bytes
    if backend == "native" and dtype == torch.bfloat16 and needs_weight and not one_tile:
        return LossPlan(True, dtype)
    # float16 waits for the factor of a GradScaler in float32, where small gradients do not vanish
    narrow = dtype not in (torch.bfloat16, torch.float16) or (one_tile and dtype == torch.bfloat16)
    return LossPlan(False, dtype if narrow else torch.float32)


def loss_in_forward(
    head: Head,
    kernels: RowKernels,
    tokens: Tokens,
    wanted: frozenset[str],
    coefficients: Coefficients,
    needs: Needs,
    tile_bytes: int,
    plan: LossPlan,
    rule: TokenRule | None = None,
) -> tuple[dict[str, Tensor], HeadGradients]:
    """The wanted statistics and the gradients, all rows in the order of `tokens`; one product where none is needed."""
    if not needs:
        values = statistics_of(head, kernels, tokens, wanted, tile_bytes)
        return values, HeadGradients((None,) * len(head.weights), (None,) * len(head.weights), None)
    if not plan.by_columns:
        return gradients_in_forward(
            head,
            kernels,
            tokens,
            wanted,
            coefficients,
            needs,
            tile_bytes,
            weight_dtype=plan.weight_dtype,
            rule=rule,
        )
    values = statistics_of(head, kernels, tokens, wanted, tile_bytes)
    by_logprob_L, by_entropy_L = coefficients(slice(0, len(tokens)), values)
    gradients = row_gradients(tokens.targets, tokens.temperature, values, by_logprob_L, by_entropy_L, None)
    live_A = live_rows(by_logprob_L, by_entropy_L)
    found = gradients_by_columns(
        head, kernels, tokens, gradients, live_A, needs, tile_bytes, weight_dtype=plan.weight_dtype
    )
    hiddens = tuple(scatter_rows(x, live_A, len(tokens)) for x in found.hiddens)
    return values, HeadGradients(hiddens, found.weights, found.bias)
