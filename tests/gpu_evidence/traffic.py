"""Bytes that a kernel's source asks for, counted under the interpreter: exact, and the same on every GPU.

`issued` is what the active lanes request, `unique` the distinct bytes behind it (memory traffic with a perfect cache),
`sectors` 32 times the 32-byte sectors that each load or store touches. One block-wide access counts once, so coalescing
inside a warp is the emulator's business; matrix products by torch are not seen.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from tests.gpu_evidence.interpreter import repair, triton_interpreter
from tests.gpu_evidence.ptx.types import Array

SECTOR = 32
_Builder = triton_interpreter.InterpreterBuilder


@dataclass
class Tally:
    """One tensor of one launch, loads or stores."""

    issued: int = 0
    sectors: int = 0
    accesses: int = 0
    _starts: list[Array] = field(default_factory=list)
    _size: int = 1

    def add(self, addresses: Array, size: int) -> None:
        self.issued += addresses.size * size
        self.sectors += np.unique(addresses // SECTOR).size * SECTOR
        self.accesses += 1
        self._size = size
        self._starts.append(np.unique(addresses))

    @property
    def unique(self) -> int:
        return int(np.unique(np.concatenate(self._starts)).size) * self._size


@dataclass
class LaunchTraffic:
    """What one launch moved: `tallies[tensor, kind]` with kind load, store or atomic, and FLOPs of `tl.dot`."""

    name: str
    spans: list[tuple[str, int, int]]  # tensor, first byte, bytes
    grid: tuple[int, ...] = ()
    tallies: dict[tuple[str, str], Tally] = field(default_factory=lambda: defaultdict(Tally))
    dot_flops: int = 0
    operations: Counter[str] = field(default_factory=Counter)

    def access(self, kind: str, pointers: Any, mask: Any, size: int) -> None:
        addresses, on = np.broadcast_arrays(np.asarray(pointers).astype(np.int64), mask)
        active = addresses[np.asarray(on, bool)]
        if active.size:
            self.tallies[self._owner(int(active.flat[0])), kind].add(active, size)

    def _owner(self, address: int) -> str:
        return next((name for name, first, size in self.spans if first <= address < first + size), "?")

    def total(self, what: str, kind: str | None = None, tensor: str | None = None) -> int:
        """Sum of `issued`, `unique` or `sectors` over the tallies that match."""
        return sum(
            getattr(tally, what)
            for (name, of_kind), tally in self.tallies.items()
            if kind in (None, of_kind) and tensor in (None, name)
        )

    def as_json(self) -> dict[str, Any]:
        tensors = {
            f"{name} {kind}": {"issued": t.issued, "unique": t.unique, "sectors": t.sectors}
            for (name, kind), t in self.tallies.items()
        }
        return {"kernel": self.name, "grid": list(self.grid), "tensors": tensors, "dot_flops": self.dot_flops}


@contextlib.contextmanager
def counted() -> Iterator[list[LaunchTraffic]]:
    """`with counted() as launches: wrapper(cpu_tensors)`, in a process of its own."""
    repair()
    launches: list[LaunchTraffic] = []
    current: list[LaunchTraffic] = []
    saved = {name: getattr(_Builder, name) for name in (*_ACCESSES, "create_dot", "binary_op", "unary_op")}
    original_call = triton_interpreter.GridExecutor.__call__
    for name, (kind, pointer, mask) in _ACCESSES.items():
        setattr(_Builder, name, _watched(saved[name], kind, pointer, mask, current))
    _Builder.create_dot = _counted_dot(saved["create_dot"], current)
    _Builder.binary_op = _counted_operation(saved["binary_op"], 2, current)
    _Builder.unary_op = _counted_operation(saved["unary_op"], 1, current)
    triton_interpreter.GridExecutor.__call__ = _counted_launch(original_call, current, launches)
    try:
        yield launches
    finally:
        triton_interpreter.GridExecutor.__call__ = original_call
        for name, function in saved.items():
            setattr(_Builder, name, function)


# builder method -> (kind, position of the pointers, position of the mask or None)
_ACCESSES: dict[str, tuple[str, int, int | None]] = {
    "create_masked_load": ("load", 0, 1),
    "create_masked_store": ("store", 0, 2),
    "create_atomic_rmw": ("atomic", 1, 3),
    "create_atomic_cas": ("atomic", 0, None),
}


def _watched(
    original: Callable[..., Any], kind: str, pointer: int, mask: int | None, current: list[LaunchTraffic]
) -> Callable[..., Any]:
    def access(self: Any, *arguments: Any, **options: Any) -> Any:
        pointers = arguments[pointer]
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        on = np.True_ if mask is None else arguments[mask].data
        if current:
            current[-1].access(kind, pointers.data, on, size)
        return original(self, *arguments, **options)

    return access


def _counted_dot(original: Callable[..., Any], current: list[LaunchTraffic]) -> Callable[..., Any]:
    def dot(self: Any, a: Any, b: Any, *rest: Any, **options: Any) -> Any:
        if current:
            current[-1].dot_flops += 2 * a.data.size * b.data.shape[-1]
        return original(self, a, b, *rest, **options)

    return dot


def _counted_operation(original: Callable[..., Any], operands: int, current: list[LaunchTraffic]) -> Callable[..., Any]:
    def operate(self: Any, *arguments: Any, **options: Any) -> Any:
        if current:
            function = arguments[operands] if len(arguments) > operands else options.get("op")
            size = max(handle.data.size for handle in arguments[:operands])
            current[-1].operations[getattr(function, "__name__", str(function))] += size
        return original(self, *arguments, **options)

    return operate


def _counted_launch(
    original: Callable[..., Any], current: list[LaunchTraffic], launches: list[LaunchTraffic]
) -> Callable[..., Any]:
    def launch(executor: Any, *arguments: Any, **options: Any) -> Any:
        named = [*zip(executor.arg_names, arguments, strict=False), *options.items()]
        tensors = [(name, triton_interpreter._unwrap_tensor(x)) for name, x in named if hasattr(x, "data_ptr")]
        spans = [(name, *_span(x)) for name, x in tensors]
        current.append(LaunchTraffic(executor.fn.__name__, spans))
        try:
            return original(executor, *arguments, **options)
        finally:
            done = current.pop()
            done.grid = tuple(triton_interpreter.interpreter_builder.grid_dim)
            launches.append(done)

    return launch


def _span(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()
