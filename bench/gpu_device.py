"""What the GPU suite asks of a device; the dry one answers on the CPU so that the suite itself can be tested there."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Run = Callable[[], Any]
MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Dense peaks of a chip by its maker's data sheet."""

    bf16_flops: float  # per second
    tf32_flops: float
    bytes_per_second: float


LIMITS = {
    "H200": Limits(989e12, 494e12, 4.8e12),
    "H100": Limits(989e12, 494e12, 3.35e12),
    "A100": Limits(312e12, 156e12, 2.0e12),
    "B200": Limits(2250e12, 1125e12, 8.0e12),
    "L40S": Limits(362e12, 183e12, 0.864e12),
    "RTX 4090": Limits(165e12, 82.6e12, 1.01e12),
}


class Device(Protocol):
    """Where the suite runs. A check that the device cannot make returns None."""

    kind: str
    name: str
    folder: str  # of its rows
    limits: Limits | None

    def times(self, run: Run, rounds: int) -> list[float]:
        """Milliseconds of each call, warm."""

    def peak_mib(self, run: Run) -> float | None:
        """Memory that a call adds at its peak."""

    def repeats(self, run: Run) -> bool | None:
        """Whether two calls give the same bits."""

    def captures(self, run: Run) -> bool | None:
        """Whether a CUDA graph captures the call and its replay gives the same numbers."""

    def never_waits(self, run: Run) -> bool | None:
        """Whether the call goes through without the host waiting for the device."""

    def release(self) -> None:
        """Gives memory back between two cases."""


class CudaDevice:
    """The first GPU."""

    kind = "cuda"

    def __init__(self) -> None:
        self.name = torch.cuda.get_device_name(0)
        self.folder = "-".join("".join(c if c.isalnum() else " " for c in self.name).lower().split())
        self.limits = next((limits for chip, limits in LIMITS.items() if chip in self.name), None)

    def times(self, run: Run, rounds: int) -> list[float]:
        """By events on the stream; the second-level cache is overwritten before each call."""
        flush = torch.empty(256 * MIB, dtype=torch.int8, device="cuda")
        for _ in range(3):
            run()
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
        for begin, end in pairs:
            flush.zero_()
            begin.record()
            run()
            end.record()
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) for begin, end in pairs]

    def peak_mib(self, run: Run) -> float | None:
        """By torch's allocator."""
        self.release()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = run()
        torch.cuda.synchronize()
        del result
        return round((torch.cuda.max_memory_allocated() - before) / MIB, 1)

    def repeats(self, run: Run) -> bool | None:
        """Two calls on the same inputs."""
        return same_bits(run(), run())

    def captures(self, run: Run) -> bool | None:
        """Warmed up on a side stream, captured, replayed into cleared results."""
        expected = {name: x.clone() for name, x in run().items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                captured = run()
        except RuntimeError as error:
            print(f"    not captured: {error}")
            return False
        for x in captured.values():
            x.zero_()
        graph.replay()
        torch.cuda.synchronize()
        return same_bits(captured, expected)

    def never_waits(self, run: Run) -> bool | None:
        """By torch's own detector."""
        run()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            run()
        except RuntimeError as error:
            print(f"    waits: {error}")
            return False
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return True

    def release(self) -> None:
        """The allocator's cache too."""
        gc.collect()
        torch.cuda.empty_cache()


class DryDevice:
    """The CPU in place of a GPU: times are real but of no interest, what needs CUDA is not answered."""

    kind, name, folder, limits = "cpu", "dry run on the CPU", "dry-run", None

    def times(self, run: Run, rounds: int) -> list[float]:
        """Three calls are enough to walk the path."""
        samples = []
        for _ in range(min(rounds, 3)):
            begin = time.perf_counter()
            run()
            samples.append((time.perf_counter() - begin) * 1e3)
        return samples

    def peak_mib(self, run: Run) -> float | None:
        """Not on this device."""
        return None

    def repeats(self, run: Run) -> bool | None:
        """Two calls on the same inputs."""
        return same_bits(run(), run())

    def captures(self, run: Run) -> bool | None:
        """Not on this device."""
        return None

    def never_waits(self, run: Run) -> bool | None:
        """Not on this device."""
        return None

    def release(self) -> None:
        """Nothing to give back."""


def same_bits(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether every tensor is equal, NaN included."""
    return left.keys() == right.keys() and all(
        torch.equal(torch.nan_to_num(left[name]), torch.nan_to_num(right[name])) for name in left
    )
