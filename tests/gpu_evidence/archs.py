"""The GPUs that kernels are compiled for, with the limits NVIDIA publishes for each compute capability."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arch:
    """One target. The limits are those of a multiprocessor; a non-NVIDIA target has none."""

    name: str
    device: int  # id of its stand-in device: Triton caches compiled kernels by device, so each arch needs its own
    capability: int = 0
    warps: int = 0
    blocks: int = 0
    shared: int = 0
    max_shared: int = 65536  # of one block

    @property
    def is_nvidia(self) -> bool:
        return self.name.startswith("sm_")


ARCHS = {
    arch.name: arch
    for arch in (
        Arch("sm_80", 0, 80, warps=64, blocks=32, shared=167936, max_shared=166912),
        Arch("sm_90", 1, 90, warps=64, blocks=32, shared=233472, max_shared=232448),
        Arch("sm_100", 2, 100, warps=64, blocks=32, shared=233472, max_shared=232448),
        Arch("sm_120", 3, 120, warps=48, blocks=24, shared=102400, max_shared=101376),
        Arch("gfx942", 4),
    )
}
EMULATED = ("sm_80", "sm_90", "sm_120")  # tcgen05 of sm_100 is not modelled

_REGISTERS, _RESERVED = 65536, 1024


def blocks_per_multiprocessor(arch: Arch, registers: int, shared: int, threads: int) -> int:
    """How many blocks of this size one multiprocessor holds at once."""
    warps = -(-threads // 32)
    by_registers = _REGISTERS // (-(-registers * 32 // 256) * 256) // 4 * 4 // warps if registers else arch.blocks
    by_shared = arch.shared // (-(-(shared + _RESERVED) // 128) * 128)
    return min(arch.blocks, arch.warps // warps, by_registers, by_shared)
