"""Passes over the tiles of a head: statistics, gradients by recomputing, and both at once.

No pass holds logits of more than one tile, except those that the caller's memory budget keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from rlsft_kernels._head.gradients import ColumnGradients, HeadGradients, Needs, RowGradientSums
from rlsft_kernels._head.head import Head, Tokens, statistics_dtype
from rlsft_kernels._head.rows import FoldState, RowGradients, RowKernels, finish_fold, start_fold
from rlsft_kernels._head.tiling import Tiling, rows_of, tiles_of
from rlsft_kernels._head.token_rule import TokenRule
from rlsft_kernels._head.workspace import workspace

# (rows of the pass, their statistics) -> gradients of the loss by logprob and by entropy (None: zero), [R] each
Coefficients = Callable[[slice, dict[str, Tensor]], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class KeptLogits:
    """Logits of the first columns, which the backward need not compute again; one block of columns after the other."""

    buffer: Tensor  # flat, at least num_rows * num_columns
    num_rows: int
    num_columns: int

    def block(self, columns: slice) -> Tensor | None:
        """All rows of some columns, [L, C]; None when they were not kept."""
        if columns.stop > self.num_columns:
            return None
        first, last = columns.start * self.num_rows, columns.stop * self.num_rows
        return self.buffer[first:last].view(self.num_rows, columns.stop - columns.start)


def fold_tiling(head: Head, num_rows: int, tile_bytes: int) -> Tiling:
    """The tiles of `fold_logits`; kept logits lie in these blocks of columns."""
    return tiles_of(num_rows, head.num_columns, head.dtype, head.weights[0].device, tile_bytes, "fold")


def keep_logits(head: Head, buffer: Tensor, num_rows: int, tile_bytes: int) -> KeptLogits | None:
    """The leading blocks of columns that fit into a buffer; None when not even one does."""
    tiling = fold_tiling(head, num_rows, tile_bytes)
    fits = len(buffer) // max(1, num_rows)
    columns = head.num_columns if fits >= head.num_columns else fits - fits % tiling.columns
    return KeptLogits(buffer, num_rows, columns) if columns and num_rows else None


def fold_logits(
    head: Head,
    kernels: RowKernels,
    tokens: Tokens,
    wanted: frozenset[str],
    tile_bytes: int,
    kept: KeptLogits | None = None,
) -> FoldState:
    """The sums behind the statistics of every row: one product, kept where there is room."""
    weight = head.weights[0]
    state = start_fold(len(tokens), wanted, device=weight.device, dtype=kernels.state_dtype(head.dtype))
    tiling = fold_tiling(head, len(tokens), tile_bytes)
    buffer = workspace(weight, tiling.rows * tiling.columns)
    for columns in tiling.column_blocks() if len(tokens) else ():
        block_LC = None if kept is None else kept.block(columns)
        for rows in tiling.row_blocks():
            tile_RC = _view(buffer, rows, columns) if block_LC is None else block_LC[rows]
            head.product_(tile_RC, tokens.hiddens_of(rows), columns)
            kernels.fold_(head, tile_RC, columns, tokens.targets[rows], tokens.temperature_of(rows), state.of(rows))
    return state


def statistics_of(
    head: Head,
    kernels: RowKernels,
    tokens: Tokens,
    wanted: frozenset[str],
    tile_bytes: int,
    kept: KeptLogits | None = None,
) -> dict[str, Tensor]:
    """The asked-for statistics of every row, [L] each."""
    state = fold_logits(head, kernels, tokens, wanted, tile_bytes, kept)
    return finish_fold(state, tokens.targets, head.num_columns, wanted, statistics_dtype(head.dtype))


def gradients_by_columns(
    head: Head,
    kernels: RowKernels,
    tokens: Tokens,
    gradients: RowGradients,
    live_A: Tensor | None,
    needs: Needs,
    tile_bytes: int,
    *,
    weight_dtype: torch.dtype,
    kept: KeptLogits | None = None,
) -> HeadGradients:
    """Gradients by hidden states, weights and bias, computing the logits again where they were not kept.

    Args:
        head: weights and transform.
        kernels: what works on the rows.
        tokens: the rows of the forward, [L].
        gradients: their statistics and the gradients of the outputs, [L].
        live_A: the rows that have a gradient, None for all: the others would add exact zeros.
        needs: what is asked for.
        tile_bytes: memory of the tile.
        weight_dtype: of the weight gradients.
        kept: logits that the forward kept.

    Returns:
        Hidden gradients of the live rows, in their order; weight and bias gradients.
    """
    live = tokens if live_A is None else tokens.select(live_A)
    live_gradients = gradients if live_A is None else gradients.of(live_A)
    out = ColumnGradients(head, kernels, len(live), needs, weight_dtype)
    device = head.weights[0].device
    tiling = tiles_of(len(live), head.num_columns, head.dtype, device, tile_bytes, "gradient")
    buffer = workspace(head.weights[0], tiling.rows * tiling.columns)
    for columns, block_LC in _column_blocks(head, len(tokens), tiling, kept, tile_bytes) if len(live) else ():
        out.begin(columns, one_tile=tiling.rows >= len(live))
        for rows in tiling.row_blocks():
            tile_RC, hiddens = _view(buffer, rows, columns), live.hiddens_of(rows)
            if block_LC is None:
                head.product_(tile_RC, hiddens, columns)
                kernels.gradient_(head, tile_RC, columns, live_gradients.of(rows), None, tile_RC)
            elif live_A is None:
                kernels.gradient_(head, block_LC[rows], columns, live_gradients.of(rows), None, tile_RC)
            else:
                kernels.gradient_(head, block_LC, columns, gradients, live_A[rows], tile_RC)
            out.add(rows, columns, hiddens, tile_RC)
        out.end(columns)
    return out.finished(is_empty=len(live) == 0)


def gradients_in_forward(
    head: Head,
    kernels: RowKernels,
    tokens: Tokens,
    wanted: frozenset[str],
    coefficients: Coefficients,
    needs: Needs,
    tile_bytes: int,
    *,
    weight_dtype: torch.dtype,
    rule: TokenRule | None = None,
) -> tuple[dict[str, Tensor], HeadGradients]:
    """Statistics and gradients of a loss whose gradient by a row's outputs depends on that row alone: three products.

    Each tile of whole rows is folded, its rows get their coefficients, and it is overwritten with its own gradient
    while it is at hand. Rows without a coefficient are left out of the two products that follow. Kernels that know the
    loss by its `rule` do all of it in one launch, for all rows.
    """
    out = RowGradientSums(head, kernels, len(tokens), needs, weight_dtype)
    tiling = rows_of(len(tokens), head.num_columns, head.dtype, tile_bytes)
    all_columns = slice(0, head.num_columns)
    buffer = workspace(head.weights[0], tiling.rows * head.num_columns)
    wide, device = statistics_dtype(head.dtype), head.weights[0].device
    found: list[dict[str, Tensor]] = []
    for rows in tiling.row_blocks() if len(tokens) else ():
        tile_RV, hiddens = _view(buffer, rows, all_columns), tokens.hiddens_of(rows)
        head.product_(tile_RV, hiddens, all_columns)
        fused = None
        if rule is not None:
            fused = kernels.loss_(head, tile_RV, tokens.targets[rows], tokens.temperature_of(rows), rule.of(rows))
        if fused is not None:
            found.append(fused)
            out.add(torch.arange(rows.start, rows.stop, device=device), hiddens, tile_RV)
            continue
        state = start_fold(len(tile_RV), wanted, device=device, dtype=kernels.state_dtype(head.dtype))
        targets_R, temperature = tokens.targets[rows], tokens.temperature_of(rows)
        kernels.fold_(head, tile_RV, all_columns, targets_R, temperature, state)
        values = finish_fold(state, targets_R, head.num_columns, wanted, wide)
        found.append(values)
        by_logprob_R, by_entropy_R = coefficients(rows, values)
        gradients = row_gradients(targets_R, temperature, values, by_logprob_R, by_entropy_R, None)
        order_A = compacting_order(live_rows(by_logprob_R, by_entropy_R))
        if order_A is not None and len(order_A) == 0:
            continue
        grad_AV = tile_RV if order_A is None else tile_RV[: len(order_A)]
        kernels.gradient_(head, tile_RV, all_columns, gradients, order_A, grad_AV)
        picked = torch.arange(len(tile_RV), device=device) if order_A is None else order_A
        out.add(picked + rows.start, hiddens if order_A is None else tuple(x[order_A] for x in hiddens), grad_AV)
    if not found:
        return statistics_of(head, kernels, tokens, wanted, tile_bytes), out.finished()
    return {name: torch.cat([values[name] for values in found]) for name in found[0]}, out.finished()


def row_gradients(
    targets_L: Tensor,
    temperature: float | Tensor,
    values: dict[str, Tensor],
    by_logprob_L: Tensor | None,
    by_entropy_L: Tensor | None,
    by_lse_L: Tensor | None,
) -> RowGradients:
    """Statistics of a pass together with the gradients by its outputs."""
    return RowGradients(
        targets_L, temperature, values["row_max"], values["log_sum"], values["logprob"], values.get("entropy"),
        by_logprob_L, by_entropy_L, by_lse_L,
    )  # fmt: skip


def live_rows(*gradients: Tensor | None) -> Tensor | None:
    """Rows on which some gradient is not zero; None for all of them. On a GPU all count: to ask would mean to wait."""
    given = [x for x in gradients if x is not None]
    if not given or given[0].device.type != "cpu":
        return None
    live_L = given[0] != 0
    for x in given[1:]:
        live_L |= x != 0
    rows_A = live_L.nonzero()[:, 0]
    return None if len(rows_A) == len(live_L) else rows_A


def compacting_order(live_A: Tensor | None) -> Tensor | None:
    """The live rows in an order in which a tile can be compacted in place: the last ones fill the gaps of the first.

    Row i of the compacted tile comes from row i itself, or from a row behind the compacted part.
    """
    if live_A is None:
        return None
    num_live = len(live_A)
    order_A = torch.arange(num_live, device=live_A.device)
    inside = live_A < num_live
    gap_A = torch.ones(num_live, dtype=torch.bool, device=live_A.device)
    gap_A[live_A[inside]] = False
    order_A[gap_A] = live_A[~inside]
    return order_A


def _column_blocks(
    head: Head, num_rows: int, tiling: Tiling, kept: KeptLogits | None, tile_bytes: int
) -> Iterator[tuple[slice, Tensor | None]]:
    """The kept blocks first, as they lie in memory, then the other columns in the tiles of this pass."""
    start = 0
    if kept is not None:
        folded = fold_tiling(head, num_rows, tile_bytes)
        for columns in folded.column_blocks():
            block_LC = kept.block(columns)
            if block_LC is None:
                break
            start = columns.stop
            yield columns, block_LC
    for columns in tiling.column_blocks(start):
        yield columns, None


def _view(buffer: Tensor, rows: slice, columns: slice) -> Tensor:
    num_rows, num_columns = rows.stop - rows.start, columns.stop - columns.start
    return buffer[: num_rows * num_columns].view(num_rows, num_columns)
