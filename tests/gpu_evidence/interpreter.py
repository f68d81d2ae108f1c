"""Triton's interpreter with what it gets wrong for bfloat16 repaired. Import before anything imports Triton.

It keeps bfloat16 as 16-bit integers, so that `tl.dot` and all arithmetic work on bit patterns, truncates where the
compiled code rounds to nearest, and its libdevice functions return None. Shows the numbers of the source; shows
nothing about races, alignment or the compiled code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import triton.language as tl
import triton.runtime.interpreter as triton_interpreter
from triton.language.extra import libdevice

from tests.gpu_evidence.ptx.types import from_bf16, to_bf16

Handle = triton_interpreter.TensorHandle


def _is_bf16(handle: Any) -> bool:
    return isinstance(handle, Handle) and handle.dtype.scalar == tl.bfloat16


def _widened(handle: Any) -> Any:
    return Handle(from_bf16(handle.data), tl.float32) if _is_bf16(handle) else handle


def _narrowed(handle: Any) -> Any:
    return Handle(to_bf16(handle.data), tl.bfloat16)


def repair() -> None:
    """Patches the interpreter of this process; calling it twice does no harm."""
    builder = triton_interpreter.InterpreterBuilder
    if getattr(builder, "repaired_for_bfloat16", False):
        return
    builder.repaired_for_bfloat16 = True
    builder.cast_impl = _cast(builder.cast_impl)
    builder.create_fp_to_fp = _cast_rounded(builder.create_fp_to_fp)
    # the lambdas of the class look these up at each call
    builder.unary_op = _in_float32(builder.unary_op, operands=1)
    builder.binary_op = _in_float32(builder.binary_op, operands=2)
    builder.ternary_op = _in_float32(builder.ternary_op, operands=3)
    builder.create_dot = _dot_in_float32(builder.create_dot)
    for operations in (triton_interpreter.ReduceOps, triton_interpreter.ScanOps):
        operations.apply_impl = _reduced_in_float32(operations.apply_impl)
    for name, function in _LIBDEVICE.items():
        setattr(libdevice, name, _elementwise(function))


def _cast(original: Callable[..., Any]) -> Callable[..., Any]:
    def cast(self: Any, source: Any, to: Any) -> Any:
        if _is_bf16(source):
            wide = _widened(source)
            return Handle(wide.data, tl.float32) if to.scalar == tl.float32 else original(self, wide, to)
        if to.scalar == tl.bfloat16 and source.dtype.scalar != tl.bfloat16:
            return _narrowed(Handle(source.data.astype(np.float32), tl.float32))
        return original(self, source, to)

    return cast


def _cast_rounded(original: Callable[..., Any]) -> Callable[..., Any]:
    def cast(self: Any, source: Any, to: Any, rounding: Any) -> Any:
        to_nearest = rounding is None or str(rounding).endswith("RTNE")
        if to_nearest and to.scalar == tl.bfloat16 and source.dtype.scalar == tl.float32:
            return _narrowed(source)
        return original(self, source, to, rounding)

    return cast


def _in_float32(original: Callable[..., Any], operands: int) -> Callable[..., Any]:
    """The operation on bfloat16 handles, done in float32 and rounded once, as the compiled code does."""

    def operate(self: Any, *arguments: Any) -> Any:
        values, rest = arguments[:operands], arguments[operands:]
        narrow = [_is_bf16(value) for value in values]
        if not any(narrow):
            return original(self, *values, *rest)
        result = original(self, *(_widened(value) for value in values), *rest)
        is_number = result.data.dtype == np.float32
        return _narrowed(result) if is_number else Handle(result.data, tl.int1)

    return operate


def _dot_in_float32(original: Callable[..., Any]) -> Callable[..., Any]:
    def dot(self: Any, a: Any, b: Any, *rest: Any, **options: Any) -> Any:
        return original(self, _widened(a), _widened(b), *rest, **options)

    return dot


def _reduced_in_float32(original: Callable[..., Any]) -> Callable[..., Any]:
    """tl.sum and tl.cumsum add in float32 and round once; the order inside the compiled code is another."""

    def reduce(self: Any, inputs: Any) -> Any:
        is_narrow = [_is_bf16(x.handle) for x in inputs]
        if not any(is_narrow):
            return original(self, inputs)
        results = original(self, tuple(_as_tensor(_widened(x.handle), tl.float32) for x in inputs))
        listed = list(results) if isinstance(results, (list, tuple)) else [results]
        narrowed = [
            _as_tensor(_narrowed(x.handle), tl.bfloat16) if narrow else x
            for x, narrow in zip(listed, [*is_narrow, *[False] * len(listed)], strict=False)
        ]
        return narrowed if isinstance(results, (list, tuple)) else narrowed[0]

    return reduce


def _as_tensor(handle: Any, dtype: Any) -> Any:
    shape = list(handle.data.shape)
    is_scalar = shape in ([], [1]) and handle.data.size == 1
    return tl.core.tensor(handle, dtype if is_scalar else tl.block_type(dtype, shape))


def _elementwise(function: Callable[[Any], Any]) -> Callable[..., Any]:
    def apply(x: Any, *_: Any, **__: Any) -> Any:
        return tl.core.tensor(Handle(function(x.handle.data).astype(x.handle.data.dtype), x.handle.dtype), x.type)

    return apply


_LIBDEVICE: dict[str, Callable[[Any], Any]] = {
    "log1p": np.log1p, "expm1": np.expm1, "tanh": np.tanh, "rsqrt": lambda x: 1 / np.sqrt(x),
    "exp": np.exp, "log": np.log, "exp2": np.exp2, "log2": np.log2, "fast_tanh": np.tanh, "fast_expf": np.exp,
}  # fmt: skip
