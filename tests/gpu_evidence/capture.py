"""Runs the real Python wrapper on CPU tensors and compiles every launch as the GPU of an architecture would get it.

A stand-in driver takes the place of Triton's: the same binder, the same specialisation on alignment and values, the
same compiler; only the launch itself goes to `executor`, or nowhere. Shows that wrappers launch what they should and
that it compiles; shows nothing about time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.cache import get_cache_manager
from triton.runtime.driver import driver

from tests.gpu_evidence.archs import ARCHS, Arch

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Launch:
    """One launch: the compiled kernel and its arguments in the order of the kernel's parameters."""

    arch: Arch
    signature: dict[str, str]
    constants: dict[str, Any]
    metadata: Any
    grid: Grid
    arguments: tuple[Any, ...]

    @property
    def name(self) -> str:
        return str(self.metadata.name)

    @property
    def threads(self) -> int:
        return int(self.metadata.num_warps) * 32

    @property
    def label(self) -> str:
        """What tells this compilation from others of the kernel."""
        constants = " ".join(f"{name}={value}" for name, value in self.constants.items() if value is not None)
        pointers = sorted({t.lstrip("*") for t in self.signature.values() if t.startswith("*")})
        return f"{self.name}[{'/'.join(pointers)}] {constants} warps={self.metadata.num_warps}".replace("  ", " ")

    def compiled_file(self, extension: str) -> Path:
        found = get_cache_manager(self.metadata.hash).get_file(f"{self.name[:150]}.{extension}")
        assert found is not None, f"{self.name}.{extension} is not in Triton's cache"
        return Path(found)

    def text(self, extension: str) -> str:
        return self.compiled_file(extension).read_text()


class _Utils:
    def __init__(self, arch: Arch) -> None:
        self._arch = arch

    def load_binary(self, *_: Any) -> tuple[Any, ...]:
        return ("module", "function", 0, 0, 1024)

    def unload_module(self, module: Any) -> None:
        """Nothing was loaded."""

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {
            "max_shared_mem": self._arch.max_shared, "multiprocessor_count": 132, "max_num_regs": 65536,
            "warpSize": 32 if self._arch.is_nvidia else 64,
        }  # fmt: skip


class _Launcher:
    """Triton keeps it inside the compiled kernel, so it must ask for the driver that is active at the launch."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self._source, self._metadata = source, metadata

    def __call__(self, x: int, y: int, z: int, *rest: Any) -> None:
        arguments = rest[6:]  # stream, function, packed metadata, launch metadata, two hooks
        source = self._source
        names = list(source.signature)
        constants = {source.fn.arg_names[key[0]]: value for key, value in source.constants.items() if len(key) == 1}
        launch = Launch(
            driver.active.arch, {name: str(source.signature[name]) for name in names}, constants, self._metadata,
            (x, y, z), arguments,
        )  # fmt: skip
        driver.active.launched(launch)


class StandInDriver:
    """What Triton asks its driver for, answered for a GPU that is not there."""

    launcher_cls = _Launcher

    def __init__(self, arch: Arch, executor: Callable[[Launch], None] | None) -> None:
        self.arch, self._executor = arch, executor
        self.launches: list[Launch] = []
        self.utils = _Utils(arch)

    def launched(self, launch: Launch) -> None:
        self.launches.append(launch)
        if self._executor is not None:
            self._executor(launch)

    def get_current_device(self) -> int:
        return self.arch.device

    def set_current_device(self, device: int) -> None:
        """There is one."""

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return (
            GPUTarget("cuda", self.arch.capability, 32) if self.arch.is_nvidia else GPUTarget("hip", self.arch.name, 64)
        )

    def get_device_capability(self, device: int = 0) -> tuple[int, int]:
        return divmod(self.arch.capability, 10)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        return torch.cpu

    def get_benchmarker(self) -> Callable[..., list[float]]:
        def once(call: Callable[[], None], quantiles: list[float] | None = None, **_: Any) -> list[float]:
            call()
            return [1.0] * len(quantiles or [0.5])

        return once

    def get_empty_cache_for_benchmark(self) -> None:
        return None

    def clear_cache(self, cache: Any) -> None:
        """Nothing is cached."""

    def map_python_to_cpp_type(self, name: str) -> str:
        return name

    @staticmethod
    def is_active() -> bool:
        return True


@contextlib.contextmanager
def capture(arch: str, executor: Callable[[Launch], None] | None = None) -> Iterator[list[Launch]]:
    """`with capture("sm_90") as launches: wrapper(cpu_tensors)`."""
    previous = driver._active
    stand_in = StandInDriver(ARCHS[arch], executor)
    driver.set_active(stand_in)
    try:
        yield stand_in.launches
    finally:
        driver._active = previous
