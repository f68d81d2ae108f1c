"""Row kernels in C++ (`csrc/head`), for float32 and bfloat16 tiles on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlsft_kernels._head.head import Head
from rlsft_kernels._head.rows import FoldState, RowGradients

DTYPES = ("float32", "bfloat16")


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Sums of many tiles run in float64: they are [N] numbers beside [N, V] logits."""
    return torch.float64


def fold_(
    head: Head, tile_RC: Tensor, columns: slice, targets_R: Tensor, temperature: float | Tensor, state: FoldState
) -> None:
    """See `RowKernels.fold_`."""
    from rlsft_kernels import _C

    _C.head_fold_rows(
        _bits(tile_RC),
        columns.start,
        targets_R.numpy(),
        *_transform(head, columns, temperature),
        *(_numpy(x) for x in (state.row_max, state.sum_exp, state.target_logit, state.sum_exp_shifted)),
        *(_numpy(x) for x in (state.sum_exp_sq, state.sum_logit, state.first_largest)),
        torch.get_num_threads(),
    )


def gradient_(
    head: Head, tile_RC: Tensor, columns: slice, gradients: RowGradients, order: Tensor | None, out: Tensor
) -> None:
    """See `RowKernels.gradient_`."""
    from rlsft_kernels import _C

    g = gradients
    _C.head_gradient_rows(
        _bits(tile_RC),
        columns.start,
        *_transform(head, columns, g.temperature),
        g.targets.numpy(),
        *(_numpy(x) for x in (g.row_max, g.log_sum, g.logprob, g.entropy, g.by_logprob, g.by_entropy, g.by_lse)),
        _numpy(order),
        _bits(out),
        torch.get_num_threads(),
    )


def _bits(tile_RC: Tensor) -> np.ndarray[Any, Any]:
    """NumPy has no bfloat16: its bits cross as uint16."""
    return (tile_RC.view(torch.uint16) if tile_RC.dtype == torch.bfloat16 else tile_RC).numpy()


def _transform(head: Head, columns: slice, temperature: float | Tensor) -> tuple[Any, ...]:
    per_row = isinstance(temperature, Tensor)
    return (
        _numpy(head.bias_of(columns)),
        head.logit_scale,
        head.softcap or 0.0,
        1.0 if per_row else temperature,
        _numpy(temperature) if isinstance(temperature, Tensor) else None,
    )


def _numpy(x: Tensor | None) -> np.ndarray[Any, Any] | None:
    return None if x is None else x.contiguous().numpy()
