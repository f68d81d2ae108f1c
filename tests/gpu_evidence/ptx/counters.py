"""What a launch did: warp instructions, global sectors, distinct bytes, shared-memory wavefronts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from tests.gpu_evidence.ptx.checks import Buffer
from tests.gpu_evidence.ptx.parser import Instruction
from tests.gpu_evidence.ptx.types import Array

SECTOR = 32
_NAMED_BY_MODIFIERS = ("ld", "st", "cvt", "mma", "wgmma")
_KEPT = ("global", "shared", "param", "v2", "v4", "mma_async", "b128")


class Counters:
    """Keys of the global ones are "load", "store", "atomic" and "async copy"."""

    def __init__(self, buffers: list[Buffer]) -> None:
        self._buffers = buffers
        self._touched: dict[tuple[str, str], Array] = {}
        self.instructions: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()  # of a warp
        self.sectors: Counter[str] = Counter()
        self.wavefronts: Counter[str] = Counter()  # of shared memory, with bank conflicts
        self.ideal_wavefronts: Counter[str] = Counter()

    def executed(self, instruction: Instruction, warps: int) -> None:
        name = instruction.opcode
        if name in _NAMED_BY_MODIFIERS:
            kept = [m for m in instruction.modifiers if m in _KEPT or m.startswith(("m64", "m16n8"))]
            name = ".".join([name, *kept])
        self.instructions[name] += warps

    def global_access(self, kind: str, addresses: Array, mask: Array | None) -> None:
        sectors = (addresses // SECTOR).reshape(-1, 32)
        on = np.ones_like(sectors, bool) if mask is None else mask.reshape(-1, 32)
        ordered = np.sort(np.where(on, sectors, -1), 1)
        fresh = (np.diff(ordered, axis=1) != 0) & (ordered[:, 1:] >= 0)
        self.sectors[kind] += int(fresh.sum() + (ordered[:, 0] >= 0).sum())
        self.requests[kind] += int(on.any(1).sum())
        active = addresses if mask is None else addresses[mask]
        for buffer in self._buffers:
            inside = active[buffer.holds(active, 1)]
            if inside.size:
                touched = self._touched.setdefault((buffer.name, kind), np.zeros(buffer.size // SECTOR + 3, bool))
                touched[inside // SECTOR - buffer.base // SECTOR] = True

    def unique_sectors(self) -> dict[tuple[str, str], int]:
        """(buffer, kind) -> distinct sectors."""
        return {key: int(touched.sum()) for key, touched in self._touched.items()}

    def shared_access(self, kind: str, addresses: Array, size: int, mask: Array | None) -> None:
        """8-byte accesses go in two phases of a half warp, 16-byte ones in four."""
        phases = max(1, size // 4)
        on = np.ones(addresses.size, bool) if mask is None else mask
        grouped = addresses.reshape(-1, 32 // phases)
        words = (grouped[:, :, None] // 4 + np.arange(phases)).reshape(grouped.shape[0], -1)
        self.shared_words(kind, np.where(np.repeat(on.reshape(grouped.shape), phases, 1), words, -1))

    def shared_words(self, kind: str, words: Array) -> None:
        """`words [wavefronts, n]` of 4 bytes, -1 for none: the fullest of the 32 banks decides."""
        ordered = np.sort(words, 1)
        fresh = np.concatenate([ordered[:, :1] >= 0, (np.diff(ordered, axis=1) != 0) & (ordered[:, 1:] >= 0)], 1)
        rows, columns = np.nonzero(fresh)
        per_bank = np.zeros((len(words), 32), np.int32)
        np.add.at(per_bank, (rows, ordered[rows, columns] % 32), 1)
        deepest = per_bank.max(1)
        self.wavefronts[kind] += int(deepest.sum())
        self.ideal_wavefronts[kind] += int((deepest > 0).sum())

    def summary(self) -> dict[str, Any]:
        return {
            "instructions": dict(self.instructions), "requests": dict(self.requests), "sectors": dict(self.sectors),
            "wavefronts": dict(self.wavefronts), "ideal_wavefronts": dict(self.ideal_wavefronts),
            "unique_sectors": {f"{name}:{kind}": n for (name, kind), n in self.unique_sectors().items()},
        }  # fmt: skip
