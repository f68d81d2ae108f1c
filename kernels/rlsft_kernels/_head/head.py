"""What the logits of a head are, and the checks of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlsft_kernels._checks import require_float_tensor, require_head, require_number


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums and exponentials run in: float64 for float64 input, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Head:
    """`z = softcap * tanh(logit_scale * (sum of hiddens[k] @ weights[k].T + bias) / softcap) / temperature`.

    One weight is the output embedding; a second one, with its own hidden states, is the low-rank update of a LoRA
    adapter on it. The order bias, logit_scale, softcap, temperature is fixed.
    """

    weights: tuple[Tensor, ...]  # each [V, H_k]
    bias: Tensor | None = None  # [V]
    softcap: float | None = None
    logit_scale: float = 1.0

    @property
    def num_columns(self) -> int:
        """Size of the vocabulary."""
        return self.weights[0].shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, hidden states and tiles."""
        return self.weights[0].dtype

    def product_(self, tile_RC: Tensor, hiddens: tuple[Tensor, ...], columns: slice) -> None:
        """Fills a tile with `hidden @ weight.T`, before bias and scale."""
        torch.mm(hiddens[0], self.weights[0][columns].t(), out=tile_RC)
        for hidden_RH, weight_VH in zip(hiddens[1:], self.weights[1:], strict=True):
            tile_RC.addmm_(hidden_RH, weight_VH[columns].t())

    def bias_of(self, columns: slice) -> Tensor | None:
        """Bias of some columns in the statistics dtype."""
        return None if self.bias is None else self.bias[columns].to(statistics_dtype(self.dtype))


@dataclass(frozen=True)
class Tokens:
    """The rows that count, gathered."""

    hiddens: tuple[Tensor, ...]  # each [L, H_k]
    targets: Tensor  # [L] int64
    temperature: float | Tensor  # or [L] in the statistics dtype

    def __len__(self) -> int:
        return len(self.targets)

    def temperature_of(self, rows: slice | Tensor) -> float | Tensor:
        """One number, or those of some rows."""
        return self.temperature[rows] if isinstance(self.temperature, Tensor) else self.temperature

    def hiddens_of(self, rows: slice | Tensor) -> tuple[Tensor, ...]:
        """Hidden states of some rows; a slice copies nothing."""
        return tuple(hidden_LH[rows] for hidden_LH in self.hiddens)

    def select(self, rows: Tensor) -> Tokens:
        """Some of the rows, in that order."""
        return Tokens(self.hiddens_of(rows), self.targets[rows], self.temperature_of(rows))


def labelled_tokens(
    hiddens: tuple[Tensor, ...],
    targets_N: Tensor,
    temperature: float | Tensor,
    ignore_index: int,
    num_columns: int,
) -> tuple[Tokens, Tensor | None]:
    """The rows whose target counts, and which they are; None for all of them.

    On a GPU all rows stay, because to count them would mean to wait for it: ignored ones get hidden states of zero,
    whatever they held, and target 0.
    """
    if targets_N.device.type != "cpu":
        labelled_N = targets_N != ignore_index
        zeroed = tuple(torch.where(labelled_N[:, None], hidden, 0) for hidden in hiddens)
        return Tokens(zeroed, torch.where(labelled_N, targets_N, 0), temperature), None
    rows_L = labelled_rows(targets_N, ignore_index, num_columns)
    if len(rows_L) == len(targets_N):
        return Tokens(tuple(hidden.contiguous() for hidden in hiddens), targets_N.contiguous(), temperature), None
    spread = temperature[rows_L] if isinstance(temperature, Tensor) else temperature
    return Tokens(tuple(hidden.index_select(0, rows_L) for hidden in hiddens), targets_N[rows_L], spread), rows_L


def spread_rows(x_L: Tensor, rows_L: Tensor | None, labelled_N: Tensor) -> Tensor:
    """[N] from the rows that `labelled_tokens` took: zero (False) where a target does not count."""
    if rows_L is None:
        return torch.where(labelled_N, x_L, torch.zeros((), dtype=x_L.dtype, device=x_L.device))
    return x_L.new_zeros(len(labelled_N)).index_copy_(0, rows_L, x_L)


def labelled_rows(targets_N: Tensor, ignore_index: int, num_columns: int) -> Tensor:
    """Rows whose target counts; a target outside the vocabulary raises."""
    rows_L = (targets_N != ignore_index).nonzero()[:, 0]
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


def check_transform(softcap: float | None, logit_scale: float) -> None:
    """ValueError or TypeError unless both are usable numbers."""
    require_number("logit_scale", logit_scale)
    if softcap is not None:
        require_number("softcap", softcap, above=0)
