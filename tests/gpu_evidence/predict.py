"""Bounds of a launch's time from its counters and the published limits of the chip: predicted, not measured.

The lower bound is the resource that alone needs longest; the upper bound adds all of them, as if nothing overlapped.
Both carry a launch overhead. Neither knows clocks, cache misses or latency: good for finding what binds a kernel and
for noticing that a change moved more, never as evidence for a speed-up of a few per cent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tests.gpu_evidence.ptx.counters import SECTOR

LABEL = "predicted, not measured"
LAUNCH_SECONDS = 7e-6


@dataclass(frozen=True)
class Chip:
    """Per second, from the vendor's data sheets; `memory` with the share that streaming kernels reach."""

    name: str
    multiprocessors: int
    clock: float
    memory: float
    cache: float  # L2
    tensor_flops: float  # bf16, dense
    special_per_clock: int = 16  # ex2, lg2, rcp, ... of a multiprocessor
    issues_per_clock: int = 4  # warp instructions


CHIPS = {
    "sm_80": Chip("A100 80GB SXM", 108, 1.41e9, 2.04e12 * 0.92, 4.0e12, 312e12),
    "sm_90": Chip("H100 SXM", 132, 1.755e9, 3.35e12 * 0.92, 5.5e12, 989e12),
}
_SPECIAL = ("ex2", "lg2", "rcp", "sqrt", "rsqrt", "tanh", "sin", "cos", "div")


@dataclass(frozen=True)
class Bounds:
    """Seconds; `parts` says what each resource alone would need."""

    chip: str
    parts: dict[str, float]

    @property
    def lower(self) -> float:
        return LAUNCH_SECONDS + max(self.parts.values())

    @property
    def upper(self) -> float:
        return LAUNCH_SECONDS + sum(self.parts.values())

    @property
    def bound_by(self) -> str:
        return max(self.parts, key=lambda name: self.parts[name])

    def as_json(self) -> dict[str, Any]:
        return {
            "label": LABEL, "chip": self.chip, "lower_us": self.lower * 1e6, "upper_us": self.upper * 1e6,
            "bound_by": self.bound_by, "parts_us": {name: 1e6 * s for name, s in self.parts.items()},
        }  # fmt: skip


def predict(summary: dict[str, Any], arch: str, *, scale: float = 1.0, shared_tensors: tuple[str, ...] = ()) -> Bounds:
    """Bounds of a launch whose emulated counters are `summary` (`machine.counters.summary()`).

    Args:
        summary: counters of the emulated grid.
        arch: one of CHIPS.
        scale: how many times the emulated grid the real one is.
        shared_tensors: read by every block (weights), so that a larger grid reads no more of them.
    """
    chip = CHIPS[arch]
    memory = 0.0
    for key, sectors in summary["unique_sectors"].items():
        memory += SECTOR * sectors * (1.0 if key.split(":")[0] in shared_tensors else scale)
    instructions = summary["instructions"]
    clocks = chip.multiprocessors * chip.clock
    special = sum(count for name, count in instructions.items() if name in _SPECIAL)
    parts = {
        "memory": memory / chip.memory,
        "L2": SECTOR * sum(summary["sectors"].values()) * scale / chip.cache,
        "issue": sum(instructions.values()) * scale / (chip.issues_per_clock * clocks),
        "special functions": special * 32 * scale / (chip.special_per_clock * clocks),
        "shared memory": sum(summary["wavefronts"].values()) * scale / clocks,
        "tensor core": tensor_flops(instructions) * scale / chip.tensor_flops,
    }
    return Bounds(chip.name, parts)


def tensor_flops(instructions: dict[str, int]) -> float:
    """Of the counted warp instructions; a wgmma is counted once for each of its four warps."""
    total = 0.0
    for name, count in instructions.items():
        if match := re.search(r"m(\d+)n(\d+)k(\d+)", name):
            m, n, k = map(int, match.groups())
            total += 2.0 * m * n * k * count / (4 if name.startswith("wgmma") else 1)
    return total
