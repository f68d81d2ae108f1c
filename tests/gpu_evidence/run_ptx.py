"""Executes launches through their compiled PTX on CPU tensors: results land where a GPU would have put them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from tests.gpu_evidence.capture import Launch, capture
from tests.gpu_evidence.ptx.checks import Buffer
from tests.gpu_evidence.ptx.machine import Machine
from tests.gpu_evidence.ptx.parser import Module

Mutation = Callable[[str], str]
_modules: dict[str, Module] = {}


@dataclass(frozen=True)
class Execution:
    """A launch and the machine that ran it, with its counters and race reports."""

    launch: Launch
    machine: Machine


def buffer_of_tensor(tensor: Tensor, name: str) -> Buffer:
    """What the view covers, not its storage: reads beside a view are found although the memory exists."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return Buffer(tensor.data_ptr(), reach * tensor.element_size() if tensor.numel() else 0, name)


def _bind(launch: Launch) -> tuple[list[int | float | None], list[Buffer]]:
    """Values of the runtime parameters, and the memory they reach."""
    values: list[int | float | None] = []
    buffers: dict[tuple[int, int], Buffer] = {}
    for (name, kind), argument in zip(launch.signature.items(), launch.arguments, strict=True):
        if kind == "constexpr":
            continue
        if isinstance(argument, Tensor):
            buffer = buffer_of_tensor(argument, name)
            if buffer.size:
                buffers.setdefault((buffer.base, buffer.size), buffer)
            values.append(buffer.base)
        else:
            values.append(float(argument) if kind.startswith(("fp", "f")) else int(argument))
    return values, list(buffers.values())


def execute(launch: Launch, *, check_races: bool = True, mutation: Mutation | None = None) -> Execution:
    """Runs one captured launch; `mutation` edits its PTX first."""
    metadata = launch.metadata
    if mutation is not None:
        module = Module(mutation(launch.text("ptx")))
    else:
        module = _modules.setdefault(metadata.hash, None) or Module(launch.text("ptx"))  # type: ignore[arg-type]
        _modules[metadata.hash] = module
    values, buffers = _bind(launch)
    kept = []
    for size in (metadata.global_scratch_size, metadata.profile_scratch_size):
        scratch = np.zeros(size * int(np.prod(launch.grid)), np.uint8)
        kept.append(scratch)
        if scratch.size:
            buffers.append(Buffer(scratch.ctypes.data, scratch.nbytes, "scratch"))
        values.append(scratch.ctypes.data if scratch.size else 0)
    block = (launch.threads, 1, 1)
    machine = Machine(module, block, dynamic_shared=metadata.shared, buffers=buffers, check_races=check_races)
    machine.run(launch.grid, module.pack(values))
    return Execution(launch, machine)


@contextlib.contextmanager
def ptx_on_cpu(arch: str, **options: Any) -> Iterator[list[Execution]]:
    """`with ptx_on_cpu("sm_80") as executions: wrapper(cpu_tensors)`; options as for `execute`."""
    executions: list[Execution] = []
    with capture(arch, lambda launch: executions.append(execute(launch, **options))):
        yield executions
