"""What is done with the rows of a tile of logits, whoever does it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor

from rlsft_kernels._head.head import Head
from rlsft_kernels._head.token_rule import TokenRule

STATISTICS = ("logprob", "entropy", "lse", "log_sum_sq_probs", "mean_logit", "is_top1", "row_max", "log_sum")


@dataclass(frozen=True)
class FoldState:
    """Running statistics of rows, each [R]; None for what nobody asked for. m is the largest final logit so far."""

    row_max: Tensor  # m
    sum_exp: Tensor  # sum of e^(z - m)
    target_logit: Tensor
    sum_exp_shifted: Tensor | None  # sum of e^(z - m) * (z - m): the entropy's
    sum_exp_sq: Tensor | None
    sum_logit: Tensor | None
    first_largest: Tensor | None  # int64: the first column whose logit is m

    def of(self, rows: slice) -> FoldState:
        """Views of some rows."""
        values = (getattr(self, field.name) for field in fields(self))
        return FoldState(*(None if x is None else x[rows] for x in values))  # type: ignore[arg-type]


def start_fold(num_rows: int, wanted: frozenset[str], *, device: torch.device, dtype: torch.dtype) -> FoldState:
    """Rows that have seen no logit yet."""

    def fresh(value: float, *names: str) -> Tensor | None:
        asked = not names or any(name in wanted for name in names)
        return torch.full((num_rows,), value, device=device, dtype=dtype) if asked else None

    first = torch.full((num_rows,), -1, device=device) if "is_top1" in wanted else None
    row_max, sum_exp, target_logit = fresh(-torch.inf), fresh(0.0), fresh(0.0)
    assert row_max is not None
    assert sum_exp is not None
    assert target_logit is not None
    return FoldState(
        row_max, sum_exp, target_logit, fresh(0.0, "entropy"), fresh(0.0, "log_sum_sq_probs"),
        fresh(0.0, "mean_logit"), first,
    )  # fmt: skip


def finish_fold(
    state: FoldState, targets_L: Tensor, num_columns: int, wanted: frozenset[str], dtype: torch.dtype
) -> dict[str, Tensor]:
    """The asked-for STATISTICS, [L] each; a row of only -inf gives NaN, as log_softmax does."""
    log_sum_L = torch.where(state.sum_exp == 0, torch.nan, state.sum_exp.log())
    values: dict[str, Tensor] = {
        "row_max": state.row_max,
        "log_sum": log_sum_L,
        # shifted by the maximum first: a probability close to 1 keeps its digits
        "logprob": (state.target_logit - state.row_max) - log_sum_L,
        "lse": state.row_max + log_sum_L,
    }
    if state.sum_exp_shifted is not None:
        values["entropy"] = log_sum_L - state.sum_exp_shifted / state.sum_exp
    if state.sum_exp_sq is not None:
        values["log_sum_sq_probs"] = state.sum_exp_sq.log() - 2 * log_sum_L
    if state.sum_logit is not None:
        values["mean_logit"] = state.sum_logit / num_columns
    found = {name: x.to(dtype) for name, x in values.items() if name in wanted}
    if state.first_largest is not None:
        found["is_top1"] = state.first_largest == targets_L
    return found


@dataclass(frozen=True)
class RowGradients:
    """Statistics of rows and the gradients of a loss by their outputs, each [R]; a gradient that is None is zero."""

    targets: Tensor
    temperature: float | Tensor
    row_max: Tensor
    log_sum: Tensor
    logprob: Tensor
    entropy: Tensor | None
    by_logprob: Tensor | None
    by_entropy: Tensor | None
    by_lse: Tensor | None

    def of(self, rows: slice | Tensor) -> RowGradients:
        """Some rows."""
        values = (getattr(self, field.name) for field in fields(self))
        return RowGradients(*(x[rows] if isinstance(x, Tensor) else x for x in values))


class RowKernels(Protocol):
    """Folds tiles and turns them into gradients; `torch_rows`, `native_rows` and `triton_rows` have these functions."""

    @staticmethod
    def state_dtype(dtype: torch.dtype) -> torch.dtype:
        """Of the sums of a FoldState, for tiles of this dtype."""

    @staticmethod
    def fold_(
        head: Head, tile_RC: Tensor, columns: slice, targets_R: Tensor, temperature: float | Tensor, state: FoldState
    ) -> None:
        """Adds the columns of a tile to the statistics of its rows; columns come in ascending order."""

    @staticmethod
    def gradient_(
        head: Head, tile_RC: Tensor, columns: slice, gradients: RowGradients, order: Tensor | None, out: Tensor
    ) -> None:
        """out[i] = gradient by `hidden @ weight.T + bias` of tile row order[i] (i without an order).

        `out` may be the tile, if every order[i] is i or at least len(out).
        """

    @staticmethod
    def loss_(
        head: Head, tile_RV: Tensor, targets_R: Tensor, temperature: float | Tensor, rule: TokenRule
    ) -> dict[str, Tensor] | None:
        """Statistics of whole rows, and the tile overwritten with the gradient of the rule; None: not in one launch."""

    @staticmethod
    def accumulate_(total_VH: Tensor, grad_tile_RV: Tensor, hidden_RH: Tensor, *, first: bool) -> None:
        """`total += grad_tile.T @ hidden`, or `total = ...` for the first tile, whatever `total` held."""

    @staticmethod
    def accumulates(dtype: torch.dtype) -> bool:
        """Whether a product of this dtype adds into float32 by itself, without a second pass over the sum."""
