"""The sample kernels: they prove the harness, not the package."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.gpu_evidence.registry import Inputs, Kernel, Results
from tests.gpu_evidence.sample_kernels import linear_lse, masked_softmax


def _softmax_inputs(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16) -> Inputs:
    return {"x_RN": (2 * torch.randn(rows, columns)).to(dtype)}


def _softmax(x_RN: Tensor) -> Results:
    return {"probabilities": masked_softmax(x_RN)}


def _softmax_reference(x_RN: Tensor) -> Results:
    wide = x_RN if x_RN.dtype == torch.float64 else x_RN.float()
    return {"probabilities": torch.softmax(wide, 1)}


def _lse_inputs(rows: int, vocabulary: int, width: int, **tile: Any) -> Inputs:
    return {"a_MK": torch.randn(rows, width).bfloat16(), "w_VK": torch.randn(vocabulary, width).bfloat16(), **tile}


def _lse(a_MK: Tensor, w_VK: Tensor, **tile: Any) -> Results:
    return {"lse": linear_lse(a_MK, w_VK, **tile)}


def _lse_reference(a_MK: Tensor, w_VK: Tensor, **tile: Any) -> Results:
    wide = torch.float64 if a_MK.dtype == torch.float64 else torch.float32
    return {"lse": torch.logsumexp(a_MK.to(wide) @ w_VK.to(wide).T, 1)}


KERNELS = (
    Kernel(
        "sample_softmax", _softmax, _softmax_reference,
        cases={
            "aligned": lambda: _softmax_inputs(3, 1024),
            "tail": lambda: _softmax_inputs(3, 703),
            "float32": lambda: _softmax_inputs(2, 1000, torch.float32),
            "one column": lambda: _softmax_inputs(2, 1),
            "empty": lambda: _softmax_inputs(0, 64),
        },
        budget={"bf16": lambda: _softmax_inputs(4, 1024)},
    ),
    Kernel(
        "sample_lse", _lse, _lse_reference,
        cases={
            "aligned": lambda: _lse_inputs(64, 128, 64),
            "tail": lambda: _lse_inputs(70, 140, 72),
            "odd width": lambda: _lse_inputs(5, 33, 35),
            "empty": lambda: _lse_inputs(0, 64, 32),
        },
        budget={"bf16": lambda: _lse_inputs(128, 512, 128)},
        tensor_core=True,
    ),
)  # fmt: skip
