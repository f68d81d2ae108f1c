"""Where gradients of hidden states, weights and bias are collected, tile by tile."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlsft_kernels._head.head import Head, statistics_dtype


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

    def __init__(self, head: Head, num_rows: int, needs: Needs, weight_dtype: torch.dtype) -> None:
        self._hiddens = _HiddenSums(head, num_rows, needs)
        self.weights = tuple(
            torch.zeros_like(weight, dtype=weight_dtype, memory_format=torch.contiguous_format) if need else None
            for weight, need in zip(head.weights, needs.weights, strict=True)
        )
        wide = statistics_dtype(head.dtype)
        self.bias = head.weights[0].new_zeros(head.num_columns, dtype=wide) if needs.bias else None
        self._wide = wide
        self._block: list[Tensor | None] = []

    def begin(self, columns: slice, *, whole: bool) -> None:
        """`whole`: one tile holds all rows of these columns, so that its product is the gradient."""
        self._block = [
            None if weight is None or whole else weight.new_zeros(weight[columns].shape, dtype=self._wide)
            for weight in self.weights
        ]

    def add(self, rows: slice, columns: slice, hiddens: tuple[Tensor, ...], grad_tile_RC: Tensor) -> None:
        """One tile of the gradient by `hidden @ weight.T + bias`."""
        self._hiddens.add(rows, columns, grad_tile_RC)
        for weight, block, hidden_RH in zip(self.weights, self._block, hiddens, strict=True):
            if weight is None:
                continue
            if block is not None:
                _add_product(block, grad_tile_RC, hidden_RH)
            elif weight.dtype == grad_tile_RC.dtype:
                torch.mm(grad_tile_RC.t(), hidden_RH, out=weight[columns])
            else:
                weight[columns] = grad_tile_RC.t() @ hidden_RH
        if self.bias is not None:
            self.bias[columns] += grad_tile_RC.sum(dim=0, dtype=self._wide)

    def end(self, columns: slice) -> None:
        """No more rows for these columns."""
        for weight, block in zip(self.weights, self._block, strict=True):
            if weight is not None and block is not None:
                weight[columns] = block

    def finished(self) -> HeadGradients:
        """What was asked for."""
        return HeadGradients(self._hiddens.finished(), self.weights, self.bias)


class RowGradientSums:
    """Of a pass over blocks of whole rows: hidden gradients are final, the weight's is a sum over the blocks."""

    def __init__(self, head: Head, num_rows: int, needs: Needs, weight_dtype: torch.dtype) -> None:
        self._head = head
        self._hiddens = tuple(
            weight.new_zeros(num_rows, weight.shape[1]) if need else None
            for weight, need in zip(head.weights, needs.hiddens, strict=True)
        )
        self._weights = tuple(
            torch.zeros_like(weight, dtype=weight_dtype, memory_format=torch.contiguous_format) if need else None
            for weight, need in zip(head.weights, needs.weights, strict=True)
        )
        wide = statistics_dtype(head.dtype)
        self._bias = head.weights[0].new_zeros(head.num_columns, dtype=wide) if needs.bias else None

    def add(self, rows_R: Tensor, hiddens: tuple[Tensor, ...], grad_tile_RV: Tensor) -> None:
        """One tile of the gradient by `hidden @ weight.T + bias`; row i of it belongs to row rows_R[i] of the pass."""
        for hidden_grad, weight_VH in zip(self._hiddens, self._head.weights, strict=True):
            if hidden_grad is not None:
                hidden_grad.index_copy_(0, rows_R, grad_tile_RV @ weight_VH)
        for weight_grad, hidden_RH in zip(self._weights, hiddens, strict=True):
            if weight_grad is not None:
                _add_product(weight_grad, grad_tile_RV, hidden_RH)
        if self._bias is not None:
            self._bias += grad_tile_RV.sum(dim=0, dtype=self._bias.dtype)

    def finished(self) -> HeadGradients:
        """What was asked for."""
        return HeadGradients(self._hiddens, self._weights, self._bias)


@dataclass(frozen=True)
class HeadGradients:
    """None where a gradient was not asked for."""

    hiddens: tuple[Tensor | None, ...]  # each [L, H_k], in the dtype of the hidden states
    weights: tuple[Tensor | None, ...]  # each [V, H_k]
    bias: Tensor | None  # [V] in the statistics dtype

    def as_tensors(self, empty: Tensor) -> list[Tensor]:
        """hidden and weight of each product, then the bias; an op returns no None, so `empty` stands for it."""
        pairs = [x for pair in zip(self.hiddens, self.weights, strict=True) for x in pair]
        return [empty.new_empty(0) if x is None else x for x in (*pairs, self.bias)]


def scatter_rows(x_LH: Tensor | None, rows_L: Tensor | None, num_rows: int) -> Tensor | None:
    """[N, H] with zeros where no row of L went; None stands for all rows in order."""
    if x_LH is None or rows_L is None:
        return x_LH
    return x_LH.new_zeros(num_rows, x_LH.shape[1]).index_copy_(0, rows_L, x_LH)


def _add_product(total_VH: Tensor, grad_tile_RV: Tensor, hidden_RH: Tensor) -> None:
    if total_VH.dtype == grad_tile_RV.dtype:
        total_VH.addmm_(grad_tile_RV.t(), hidden_RH)
    else:  # a half-precision product, then a float32 sum: one rounding a tile instead of one a row
        total_VH += grad_tile_RV.t() @ hidden_RH
