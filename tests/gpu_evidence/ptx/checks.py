"""Checks of memory accesses: bounds and alignment of global memory, races between warps in shared memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.gpu_evidence.ptx.types import Array, EmulatorError

MAX_RACES = 20
_GRANULE = 2  # bytes watched as one


@dataclass(frozen=True)
class Buffer:
    """Memory a kernel may touch."""

    base: int
    size: int
    name: str

    def holds(self, addresses: Array, size: int) -> Array:
        return (addresses >= self.base) & (addresses + size <= self.base + self.size)


def buffer_of(buffers: list[Buffer], addresses: Array, size: int, what: str) -> int:
    """Index of the one buffer that holds all the accesses, -1 where several share them; raises for a stray one."""
    misaligned = addresses % size != 0
    if misaligned.any():
        raise EmulatorError(f"misaligned {size}-byte {what} ({int(misaligned.sum())} lanes)")
    low, high = int(addresses.min()), int(addresses.max()) + size
    for index, buffer in enumerate(buffers):
        if buffer.base <= low and high <= buffer.base + buffer.size:
            return index
    stray = np.ones(addresses.size, bool)
    for buffer in buffers:
        stray &= ~buffer.holds(addresses, size)
    if stray.any():
        first = int(addresses[stray][0])
        nearest = min(buffers, key=lambda b: min(abs(first - b.base), abs(first - b.base - b.size)), default=None)
        where = (
            f"{first - nearest.base:+d} bytes from the start of {nearest.name} ({nearest.size} B)" if nearest else ""
        )
        raise EmulatorError(f"out-of-bounds {what} of {int(stray.sum())} lanes, the first {where}")
    return -1


class SharedRaces:
    """Two warps touch the same bytes with no CTA barrier in between, and one of them writes."""

    def __init__(self, num_bytes: int) -> None:
        granules = num_bytes // _GRANULE
        self.found: list[str] = []
        self._writer, self._reader = np.full(granules, -1), np.full(granules, -1)
        self._other_reader = np.zeros(granules, bool)  # more than one warp has read since the last barrier
        self._written, self._read = np.zeros(granules, np.int64), np.zeros(granules, np.int64)

    def access(self, addresses: Array, size: int, warps: Array, epochs: Array, line: str, data: Array | None) -> None:
        """A write of `data [lanes, size]`, a read where there is none; `epochs` counts barriers each lane passed."""
        if not addresses.size:
            return
        for offset in range(max(size // _GRANULE, 1)):
            at = addresses // _GRANULE + offset
            races = (self._writer[at] >= 0) & (self._writer[at] != warps) & (self._written[at] == epochs)
            if data is not None:
                read_now = (self._reader[at] >= 0) & (self._read[at] == epochs)
                races |= read_now & ((self._reader[at] != warps) | self._other_reader[at])
                races |= self._collides(at, warps, data[:, offset * _GRANULE : (offset + 1) * _GRANULE])
            if races.any() and len(self.found) < MAX_RACES:
                self.found.append(f"{int(races.sum())} lanes: {line}")
            self._remember(at, warps, epochs, writes=data is not None)

    @staticmethod
    def _collides(at: Array, warps: Array, data: Array) -> Any:
        """Two warps that write different values to one place in this very instruction."""
        order = np.argsort(at, kind="stable")
        differs = (np.diff(data[order].astype(np.int16), axis=0) != 0).any(1)
        same = (np.diff(at[order]) == 0) & (np.diff(warps[order]) != 0) & differs
        collides = np.zeros(at.size, bool)
        collides[order[1:][same]] = True
        return collides

    def _remember(self, at: Array, warps: Array, epochs: Array, *, writes: bool) -> None:
        if writes:
            self._writer[at], self._written[at] = warps, epochs
            return
        again = (self._reader[at] >= 0) & (self._read[at] == epochs)
        others = again & ((self._reader[at] != warps) | self._other_reader[at])
        self._reader[at], self._read[at], self._other_reader[at] = warps, epochs, False
        self._other_reader[at[others | (self._reader[at] != warps)]] = True
