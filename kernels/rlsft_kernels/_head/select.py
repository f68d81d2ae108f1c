"""Which row kernels a backend means."""

from __future__ import annotations

from typing import cast

from rlsft_kernels._backend import Supported
from rlsft_kernels._head.rows import RowKernels

SUPPORTED: Supported = {
    "triton": {"cuda": ("float32", "bfloat16", "float16")},
    "native": {"cpu": ("float32", "bfloat16")},
}


def row_kernels(backend: str) -> RowKernels:
    """The module with the functions of `RowKernels`; triton and the compiled core are imported only when chosen."""
    if backend == "triton":
        from rlsft_kernels._head import triton_rows

        return cast(RowKernels, triton_rows)
    if backend == "native":
        from rlsft_kernels._head import native_rows

        return cast(RowKernels, native_rows)
    from rlsft_kernels._head import torch_rows

    return cast(RowKernels, torch_rows)
