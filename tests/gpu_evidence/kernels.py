"""The registry: every kernel the harness checks. A new kernel is one more entry in a file of `entries/`."""

from __future__ import annotations

from tests.gpu_evidence.entries import sample
from tests.gpu_evidence.registry import Kernel

KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in (*sample.KERNELS,)}


def cases_of(mode: str) -> list[tuple[str, str]]:
    """(kernel, case) pairs that run in a mode."""
    return [
        (kernel.name, case)
        for kernel in KERNELS.values()
        if mode in kernel.modes
        for case in (kernel.budget if mode == "aot" else kernel.cases)
    ]
