"""Where gradients of hidden states, weights and bias are collected, tile by tile."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlsft_kernels._head.head import Head, statistics_dtype
from rlsft_kernels._head.rows import RowKernels


@dataclass(frozen=True)
class Needs:
    """Which gradients are wanted; what is not costs no product."""

    hiddens: tuple[bool, ...]
    weights: tuple[bool, ...]
    bias: bool

    def __bool__(self) -> bool:
        return any(self.hiddens) or any(self.weights) or self.bias


class _HiddenSums:
    """Gradients by the hidden states, [L, H_k] each, added up over blocks of columns in the statistics dtype."""

    def __init__(self, head: Head, num_rows: int, needs: Needs) -> None:
        self._weights, self._dtype = head.weights, head.dtype
        wide = statistics_dtype(head.dtype)
        self.sums = tuple(
            weight.new_zeros(num_rows, weight.shape[1], dtype=wide) if need else None
            for weight, need in zip(head.weights, needs.hiddens, strict=True)
        )

    def add(self, rows: slice, columns: slice, grad_tile_RC: Tensor) -> None:
        for sum_LH, weight_VH in zip(self.sums, self._weights, strict=True):
            if sum_LH is None:
                continue
            if sum_LH.dtype == grad_tile_RC.dtype:
                sum_LH[rows].addmm_(grad_tile_RC, weight_VH[columns])
            else:
                sum_LH[rows] += grad_tile_RC @ weight_VH[columns]

    def finished(self) -> tuple[Tensor | None, ...]:
        return tuple(None if x is None else x.to(self._dtype) for x in self.sums)


class ColumnGradients:
    """Of a pass whose outer loop is over columns: a block of the weight gradient is finished before the next begins."""

    def __init__(self, head: Head, kernels: RowKernels, num_rows: int, needs: Needs, weight_dtype: torch.dtype) -> None:
        self._kernels, self._wide = kernels, statistics_dtype(head.dtype)
        self._hiddens = _HiddenSums(head, num_rows, needs)
        self._weights = _weight_gradients(head, needs, weight_dtype)
        self._bias = head.weights[0].new_zeros(head.num_columns, dtype=self._wide) if needs.bias else None
        self._blocks: list[Tensor | None] = []

    def begin(self, columns: slice, *, one_tile: bool) -> None:
        """`one_tile`: a single tile holds all rows of these columns, so that its product is the gradient."""
        self._blocks = [
            None if weight is None else self._block_of(weight, columns, one_tile) for weight in self._weights
        ]
        self._first = True

    def _block_of(self, weight: Tensor, columns: slice, one_tile: bool) -> Tensor:
        block = weight[columns]
        # a product that adds into float32 is the faster one here too
        in_place = one_tile and (weight.dtype == self._wide or not self._kernels.accumulates(weight.dtype))
        return block if in_place else block.new_empty(block.shape, dtype=self._wide)

    def add(self, rows: slice, columns: slice, hiddens: tuple[Tensor, ...], grad_tile_RC: Tensor) -> None:
        """One tile of the gradient by `hidden @ weight.T + bias`."""
        self._hiddens.add(rows, columns, grad_tile_RC)
        for block, hidden_RH in zip(self._blocks, hiddens, strict=True):
            if block is not None:
                self._kernels.accumulate_(block, grad_tile_RC, hidden_RH, first=self._first)
        if self._bias is not None:
            self._bias[columns] += grad_tile_RC.sum(dim=0, dtype=self._wide)
        self._first = False

    def end(self, columns: slice) -> None:
        """No more rows for these columns."""
        for weight, block in zip(self._weights, self._blocks, strict=True):
            if weight is not None and block is not None and block.data_ptr() != weight[columns].data_ptr():
                weight[columns] = block

    def finished(self, *, is_empty: bool) -> HeadGradients:
        """What was asked for; `is_empty` when no tile came."""
        if is_empty:
            _zero(self._weights)
        return HeadGradients(self._hiddens.finished(), self._weights, self._bias)


class RowGradientSums:
    """Of a pass over blocks of whole rows: hidden gradients are final, the weight's is a sum over the blocks."""

    def __init__(self, head: Head, kernels: RowKernels, num_rows: int, needs: Needs, weight_dtype: torch.dtype) -> None:
        self._head, self._kernels = head, kernels
        self._hiddens = tuple(
            weight.new_zeros(num_rows, weight.shape[1]) if need else None
            for weight, need in zip(head.weights, needs.hiddens, strict=True)
        )
        self._weights = _weight_gradients(head, needs, weight_dtype)
        wide = statistics_dtype(head.dtype)
        self._bias = head.weights[0].new_zeros(head.num_columns, dtype=wide) if needs.bias else None
        self._first = True

    def add(self, rows_R: Tensor, hiddens: tuple[Tensor, ...], grad_tile_RV: Tensor) -> None:
        """One tile of the gradient by `hidden @ weight.T + bias`; row i of it belongs to row rows_R[i] of the pass."""
        for hidden_grad, weight_VH in zip(self._hiddens, self._head.weights, strict=True):
            if hidden_grad is not None:
                hidden_grad.index_copy_(0, rows_R, grad_tile_RV @ weight_VH)
        for weight_grad, hidden_RH in zip(self._weights, hiddens, strict=True):
            if weight_grad is not None:
                self._kernels.accumulate_(weight_grad, grad_tile_RV, hidden_RH, first=self._first)
        if self._bias is not None:
            self._bias += grad_tile_RV.sum(dim=0, dtype=self._bias.dtype)
        self._first = False

    def finished(self) -> HeadGradients:
        """What was asked for."""
        if self._first:
            _zero(self._weights)
        return HeadGradients(self._hiddens, self._weights, self._bias)


def _weight_gradients(head: Head, needs: Needs, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    """Not filled: the first tile assigns, so that no pass over the memory is spent on zeros."""
    return tuple(
        torch.empty_like(weight, dtype=dtype, memory_format=torch.contiguous_format) if need else None
        for weight, need in zip(head.weights, needs.weights, strict=True)
    )


def _zero(weights: tuple[Tensor | None, ...]) -> None:
    for weight in weights:
        if weight is not None:
            weight.zero_()


@dataclass(frozen=True)
class HeadGradients:
    """None where a gradient was not asked for."""

    hiddens: tuple[Tensor | None, ...]  # each [L, H_k], in the dtype of the hidden states
    weights: tuple[Tensor | None, ...]  # each [V, H_k]
    bias: Tensor | None  # [V] in the statistics dtype


def scatter_rows(x_LH: Tensor | None, rows_L: Tensor | None, num_rows: int) -> Tensor | None:
    """[N, H] with zeros where no row of L went; None stands for all rows in order."""
    if x_LH is None or rows_L is None:
        return x_LH
    return x_LH.new_zeros(num_rows, x_LH.shape[1]).index_copy_(0, rows_L, x_LH)
