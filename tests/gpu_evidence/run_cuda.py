"""Runs `extern "C"` CUDA C++ kernels through the PTX of nvcc on CPU tensors. nvcc is needed, a GPU is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from tests.gpu_evidence.ptx.checks import Buffer
from tests.gpu_evidence.ptx.machine import Grid, Machine
from tests.gpu_evidence.ptx.parser import Module
from tests.gpu_evidence.run_ptx import Mutation, buffer_of_tensor

Argument = Tensor | int | float | None


def find_nvcc() -> str | None:
    """Path of nvcc, or None: tests skip then with the reason."""
    return shutil.which("nvcc") or shutil.which("nvcc", path=os.path.join(os.environ.get("CUDA_HOME", ""), "bin"))


def compile_ptx(source: Path, arch: str, options: Sequence[str] = ()) -> str:
    """PTX of a .cu file for `arch` (sm_80, sm_90, sm_120)."""
    nvcc = find_nvcc()
    if nvcc is None:
        raise RuntimeError("nvcc was not found: put it on PATH or set CUDA_HOME")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "kernel.ptx"
        command = [nvcc, "-std=c++17", "-O3", f"-arch={arch}", *options, "-ptx", str(source), "-o", str(out)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return out.read_text()


def run(
    ptx: str,
    kernel: str,
    grid: Grid,
    block: Grid,
    arguments: Sequence[Argument],
    *,
    dynamic_shared: int = 0,
    check_races: bool = True,
    mutation: Mutation | None = None,
) -> Machine:
    """Launches `kernel`; results land in the tensors, and `machine.race_reports` must be empty.

    Floats cross in the width of the parameter. Raises EmulatorError for stray, misaligned or unmodelled accesses.
    """
    module = Module(ptx if mutation is None else mutation(ptx), kernel)
    if len(arguments) != len(module.parameters):
        names = ", ".join(parameter.name for parameter in module.parameters)
        raise ValueError(f"{kernel} takes {len(module.parameters)} arguments ({names}), got {len(arguments)}")
    values: list[int | float | None] = []
    buffers: list[Buffer] = []
    for parameter, argument in zip(module.parameters, arguments, strict=True):
        if isinstance(argument, Tensor):
            buffers.append(buffer_of_tensor(argument, parameter.name))
            values.append(argument.data_ptr())
        else:
            values.append(argument)
    machine = Machine(
        module, block, dynamic_shared=dynamic_shared, buffers=[b for b in buffers if b.size], check_races=check_races
    )
    machine.run(grid, module.pack(values))
    return machine
