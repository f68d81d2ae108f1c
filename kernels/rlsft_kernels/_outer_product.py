"""The weight gradient of a language-model head, added up over tiles of rows in a wide dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def adds_in_float32(dtype: torch.dtype, *, native: bool) -> bool:
    """Whether a product of this dtype on the CPU adds into a float32 sum by itself, without a second pass over it."""
    if dtype != torch.bfloat16 or not native:
        return False
    from rlsft_kernels import _C

    return _C.outer_product_isa() == "amx"


def accumulate_weight_gradient(
    acc_VH: Tensor, grad_tile_CV: Tensor, hidden_CH: Tensor, *, first: bool, native: bool
) -> None:
    """`acc += grad_tile.T @ hidden`, or `acc = ...` for the first tile, whatever `acc` held.

    With AMX, bfloat16 products add into float32 without being rounded; elsewhere a half-precision product is rounded
    once a tile and added in a second pass. AMX takes subnormal numbers for zero.

    Args:
        acc_VH: the sum, [V, H] contiguous, in the dtype of the factors or float32.
        grad_tile_CV: gradient by a tile of logits, [C, V]; rows contiguous, any distance apart.
        hidden_CH: hidden states of these rows, [C, H], same dtype as the tile.
        first: assign instead of adding.
        native: use the compiled core, for bfloat16 on the CPU.
    """
    if acc_VH.dtype == grad_tile_CV.dtype:
        acc_VH.addmm_(grad_tile_CV.t(), hidden_CH, beta=0 if first else 1)
        return
    if adds_in_float32(grad_tile_CV.dtype, native=native):
        _accumulate_native(acc_VH, grad_tile_CV, hidden_CH, first)
        return
    product_VH = grad_tile_CV.t() @ hidden_CH
    if first:
        acc_VH.copy_(product_VH)
    elif native and product_VH.dtype == torch.bfloat16:
        _add_native(acc_VH, product_VH)
    else:
        acc_VH += product_VH


def _accumulate_native(acc_VH: Tensor, grad_tile_CV: Tensor, hidden_CH: Tensor, first: bool) -> None:
    from rlsft_kernels import _C

    _C.accumulate_outer(_bits(grad_tile_CV), _bits(hidden_CH), acc_VH.numpy(), first, torch.get_num_threads())


def _add_native(acc_VH: Tensor, product_VH: Tensor) -> None:
    from rlsft_kernels import _C

    _C.add_product(acc_VH.view(-1).numpy(), _bits(product_VH.view(-1)), torch.get_num_threads())


def _bits(x: Tensor) -> np.ndarray[Any, Any]:
    """NumPy has no bfloat16: its bits cross as uint16."""
    return x.view(torch.uint16).numpy()
