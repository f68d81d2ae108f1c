"""linear_logprob in tiles with a hand-written backward, for every backend.

Equal to `linear_logprob_reference` without ever holding logits of more than one tile, or than the memory budget keeps.
The backward computes the tiles again, overwrites them with the gradient and multiplies: four products in all, three
with a frozen weight, and one less for the share of the logits that was kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlsft_kernels._head.gradients import HeadGradients, Needs, scatter_rows
from rlsft_kernels._head.head import Head, labelled_tokens, spread_rows, statistics_dtype
from rlsft_kernels._head.passes import gradients_by_columns, keep_logits, live_rows, row_gradients, statistics_of
from rlsft_kernels._head.rows import STATISTICS, RowKernels

SAVED = ("logprob", "entropy", "row_max", "log_sum")


@dataclass(frozen=True)
class UpstreamGradients:
    """Gradients of the loss by the differentiable outputs, each [N] or None."""

    logprob: Tensor | None
    entropy: Tensor | None
    lse: Tensor | None

    def of(self, rows_L: Tensor | None, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The three on some rows, in the statistics dtype."""
        given = (self.logprob, self.entropy, self.lse)
        picked = [x if x is None or rows_L is None else x[rows_L] for x in given]
        return tuple(None if x is None else x.to(dtype) for x in picked)  # type: ignore[return-value]


def linear_logprob_fwd(
    head: Head,
    kernels: RowKernels,
    hiddens: tuple[Tensor, ...],  # each [N, H_k]
    targets_N: Tensor,
    temperature: float | Tensor,  # or [N]
    wanted: frozenset[str],
    ignore_index: int,
    tile_bytes: int,
    kept_buffer: Tensor,
) -> dict[str, Tensor]:
    """The wanted STATISTICS as [N] tensors, zero on ignored rows; the others as empty tensors. Fills the buffer."""
    tokens, rows_L = labelled_tokens(hiddens, targets_N, temperature, ignore_index, head.num_columns)
    kept = keep_logits(head, kept_buffer, len(tokens), tile_bytes)
    kept_buffer[0 if kept is None else kept.num_rows * kept.num_columns :] = 0  # an op's result is the same each time
    values = statistics_of(head, kernels, tokens, wanted, tile_bytes, kept)
    labelled_N = targets_N != ignore_index
    wide = statistics_dtype(head.dtype)
    empty = {name: labelled_N.new_empty(0, dtype=torch.bool if name == "is_top1" else wide) for name in STATISTICS}
    return empty | {name: spread_rows(x_L, rows_L, labelled_N) for name, x_L in values.items()}


def linear_logprob_bwd(
    head: Head,
    kernels: RowKernels,
    hiddens: tuple[Tensor, ...],
    targets_N: Tensor,
    temperature: float | Tensor,
    upstream: UpstreamGradients,
    saved: dict[str, Tensor],  # SAVED, [N] each; the entropy is read only under a gradient by it
    ignore_index: int,
    tile_bytes: int,
    needs: Needs,
    kept_buffer: Tensor,
) -> HeadGradients:
    """Gradients by hidden states ([N, H_k]), weights and bias."""
    tokens, rows_L = labelled_tokens(hiddens, targets_N, temperature, ignore_index, head.num_columns)
    wide = statistics_dtype(head.dtype)
    by_logprob_L, by_entropy_L, by_lse_L = upstream.of(rows_L, wide)
    if rows_L is None:
        labelled_N = targets_N != ignore_index
        by_logprob_L, by_entropy_L, by_lse_L = (
            None if x is None else torch.where(labelled_N, x, 0) for x in (by_logprob_L, by_entropy_L, by_lse_L)
        )
    values = {name: x if rows_L is None else x[rows_L] for name, x in saved.items() if len(x) == len(targets_N)}
    gradients = row_gradients(tokens.targets, tokens.temperature, values, by_logprob_L, by_entropy_L, by_lse_L)
    live_A = live_rows(by_logprob_L, by_entropy_L, by_lse_L)
    found = gradients_by_columns(
        head, kernels, tokens, gradients, live_A, needs, tile_bytes,
        weight_dtype=head.dtype, kept=keep_logits(head, kept_buffer, len(tokens), tile_bytes),
    )  # fmt: skip
    return HeadGradients(
        tuple(scatter_rows(x, origin_of(rows_L, live_A), len(targets_N)) for x in found.hiddens),
        found.weights,
        found.bias,
    )


def origin_of(rows_L: Tensor | None, live_A: Tensor | None) -> Tensor | None:
    """Which rows of the input the live ones are; None for all of them, in order."""
    if live_A is None:
        return rows_L
    return live_A if rows_L is None else rows_L[live_A]
