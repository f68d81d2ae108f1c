"""Row kernels in C++ (`csrc/head`), for float32 and bfloat16 tiles on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlsft_kernels._head.head import Head
from rlsft_kernels._head.rows import FoldState, RowGradients
from rlsft_kernels._head.token_rule import TokenRule
from rlsft_kernels._outer_product import accumulate_weight_gradient, adds_in_float32

DTYPES = ("float32", "bfloat16")


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Sums of many tiles run in float64: they are [N] numbers beside [N, V] logits."""
    return torch.float64


def fold_(
    head: Head, tile_RC: Tensor, columns: slice, targets_R: Tensor, temperature: float | Tensor, state: FoldState
) -> None:
    """See `RowKernels.fold_`."""
    from rlsft_kernels import _C

    bias, scale, softcap, one_temperature, temperatures = _transform(head, columns, temperature)
    _C.head_fold_rows(
        _bits(tile_RC), columns.start, targets_R.numpy(), bias, scale, softcap, one_temperature, temperatures,
        state.row_max.numpy(), state.sum_exp.numpy(), state.target_logit.numpy(), _numpy(state.sum_exp_shifted),
        _numpy(state.sum_exp_sq), _numpy(state.sum_logit), _numpy(state.first_largest), torch.get_num_threads(),
    )  # fmt: skip


def gradient_(
    head: Head, tile_RC: Tensor, columns: slice, gradients: RowGradients, order: Tensor | None, out: Tensor
) -> None:
    """See `RowKernels.gradient_`."""
    from rlsft_kernels import _C

    g = gradients
    bias, scale, softcap, one_temperature, temperatures = _transform(head, columns, g.temperature)
    _C.head_gradient_rows(
        _bits(tile_RC), columns.start, bias, scale, softcap, one_temperature, temperatures, g.targets.numpy(),
        _dense(g.row_max), _dense(g.log_sum), _dense(g.logprob), _numpy(g.entropy), _numpy(g.by_logprob),
        _numpy(g.by_entropy), _numpy(g.by_lse), _numpy(order), _bits(out), torch.get_num_threads(),
    )  # fmt: skip


def loss_(
    head: Head, tile_RV: Tensor, targets_R: Tensor, temperature: float | Tensor, rule: TokenRule
) -> dict[str, Tensor] | None:
    """See `RowKernels.loss_`: in two passes here, so that rows without a gradient can be left out between them."""
    return None


def accumulate_(total_VH: Tensor, grad_tile_RV: Tensor, hidden_RH: Tensor, *, first: bool) -> None:
    """See `RowKernels.accumulate_`."""
    accumulate_weight_gradient(total_VH, grad_tile_RV, hidden_RH, first=first, native=True)


def accumulates(dtype: torch.dtype) -> bool:
    """See `RowKernels.accumulates`."""
    return adds_in_float32(dtype, native=True)


def _bits(tile_RC: Tensor) -> np.ndarray[Any, Any]:
    """NumPy has no bfloat16: its bits cross as uint16."""
    return (tile_RC.view(torch.uint16) if tile_RC.dtype == torch.bfloat16 else tile_RC).numpy()


def _transform(
    head: Head, columns: slice, temperature: float | Tensor
) -> tuple[np.ndarray[Any, Any] | None, float, float, float, np.ndarray[Any, Any] | None]:
    one, each = (1.0, _dense(temperature)) if isinstance(temperature, Tensor) else (temperature, None)
    return _numpy(head.bias_of(columns)), head.logit_scale, head.softcap or 0.0, one, each


def _dense(x: Tensor) -> np.ndarray[Any, Any]:
    return x.contiguous().numpy()


def _numpy(x: Tensor | None) -> np.ndarray[Any, Any] | None:
    return None if x is None else _dense(x)
