"""The registry: every kernel the harness checks. A new kernel is one more `Kernel` in a file of `entries/`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from tests.gpu_evidence import entries
from tests.gpu_evidence.registry import Kernel


def _entries() -> Iterator[Kernel]:
    for module in sorted(pkgutil.iter_modules(entries.__path__), key=lambda module: module.name):
        yield from importlib.import_module(f"{entries.__name__}.{module.name}").KERNELS


KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in _entries()}


def cases_of(mode: str) -> list[tuple[str, str]]:
    """(kernel, case) pairs that run in a mode."""
    return [
        (kernel.name, case)
        for kernel in KERNELS.values()
        if mode in kernel.modes
        for case in (kernel.budget if mode == "aot" else kernel.cases)
    ]
