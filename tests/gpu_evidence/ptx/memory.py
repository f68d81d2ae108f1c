"""Loads, stores and atomics on global and shared memory, every one checked and counted."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.gpu_evidence.ptx.arithmetic import Modifiers, Operands
from tests.gpu_evidence.ptx.checks import Buffer, SharedRaces, buffer_of
from tests.gpu_evidence.ptx.counters import Counters
from tests.gpu_evidence.ptx.parser import split_operands
from tests.gpu_evidence.ptx.registers import Registers
from tests.gpu_evidence.ptx.types import FLOAT, INT, UINT, Array, EmulatorError, bits, types_of


def view_of(buffer: Buffer) -> Array:
    return np.ctypeslib.as_array((ctypes.c_uint8 * max(buffer.size, 1)).from_address(buffer.base))


class Memory(Registers):
    """Global pointers are host pointers; each CTA has its own piece of `shared_memory`."""

    buffers: list[Buffer]
    views: list[Array]
    counters: Counters
    shared_memory: Array
    shared_bytes: int  # of one CTA
    shared_base: Array  # [lanes] start of the lane's CTA
    warp: Array  # [lanes] unique over the chunk
    epoch: Array  # [lanes] barriers passed
    races: SharedRaces | None

    # ---- global
    def _owner(self, addresses: Array, size: int, what: str) -> int:
        try:
            return buffer_of(self.buffers, addresses, size, what)
        except EmulatorError as error:
            raise EmulatorError(f"{error}, in {self.module.name} at: {self.current.line}") from None

    def _pieces(self, addresses: Array, size: int, what: str) -> list[tuple[Array, Array, Array]]:
        """(lanes, bytes of the buffer, [lanes, size] positions in it), one for each buffer touched."""
        owner = self._owner(addresses, size, what)
        span = np.arange(size)
        if owner >= 0:
            offsets = addresses - self.buffers[owner].base
            return [(np.arange(addresses.size), self.views[owner], offsets[:, None] + span)]
        pieces, left = [], np.ones(addresses.size, bool)
        for buffer, view in zip(self.buffers, self.views, strict=True):
            lanes = np.flatnonzero(left & buffer.holds(addresses, size))
            left[lanes] = False
            pieces.append((lanes, view, (addresses[lanes] - buffer.base)[:, None] + span))
        return pieces

    def load_global(self, addresses: Array, size: int, mask: Array | None) -> Array:
        """[lanes, size] bytes."""
        found = np.zeros((self.num_lanes, size), np.uint8)
        on = slice(None) if mask is None else np.flatnonzero(mask)
        active = addresses[on]
        if active.size:
            read = np.empty((active.size, size), np.uint8)
            for lanes, view, positions in self._pieces(active, size, "load"):
                read[lanes] = view[positions]
            found[on] = read
        return found

    def store_global(self, addresses: Array, data: Array, mask: Array | None) -> None:
        on = slice(None) if mask is None else np.flatnonzero(mask)
        active, kept = addresses[on], data[on]
        if active.size:
            for lanes, view, positions in self._pieces(active, data.shape[1], "store"):
                view[positions] = kept[lanes]

    # ---- shared
    def shared_positions(self, addresses: Array, size: int, mask: Array | None) -> Array:
        fits = (addresses >= 0) & (addresses + size <= self.shared_bytes) & (addresses % min(size, 16) == 0)
        if not (fits if mask is None else fits[mask]).all():
            what = f"shared access of {size} bytes outside the {self.shared_bytes} of the block, or misaligned"
            raise EmulatorError(f"{what}, in {self.module.name} at: {self.current.line}")
        return addresses + self.shared_base

    def load_shared(self, addresses: Array, size: int, mask: Array | None) -> Array:
        positions = self.shared_positions(addresses, size, mask)
        self.note_shared(positions, size, mask, None)
        kept = positions if mask is None else np.where(mask, positions, 0)
        return self.shared_memory[kept[:, None] + np.arange(size)]

    def store_shared(self, addresses: Array, data: Array, mask: Array | None) -> None:
        size = data.shape[1]
        positions = self.shared_positions(addresses, size, mask)
        self.note_shared(positions, size, mask, data)
        on = slice(None) if mask is None else mask
        self.shared_memory[positions[on][:, None] + np.arange(size)] = data[on]

    def note_shared(self, positions: Array, size: int, mask: Array | None, data: Array | None) -> None:
        if self.races is not None:
            on = slice(None) if mask is None else mask
            written = None if data is None else data[on]
            self.races.access(positions[on], size, self.warp[on], self.epoch[on], self.current.line, written)

    # ---- instructions
    def op_ld(self, modifiers: Modifiers, operands: Operands) -> None:
        size, count = bits(types_of(modifiers)[-1]) // 8, _vector(modifiers)
        destinations = split_operands(operands[0].strip("{} "))
        if "param" in modifiers:
            return self._load_parameter(destinations, operands[1], size)
        is_shared = "shared" in modifiers
        addresses = self.address(operands[1], shared=is_shared)
        if is_shared:
            self.counters.shared_access("load", addresses, size * count, self.mask)
            data = self.load_shared(addresses, size * count, self.mask)
        else:
            self.counters.global_access("load", addresses, self.mask)
            data = self.load_global(addresses, size * count, self.mask)
        words = np.ascontiguousarray(data).view(UINT[size * 8])
        for k, destination in enumerate(destinations):
            self.put(destination, _fit(words[:, k], destination))
        return None

    def _load_parameter(self, destinations: list[str], operand: str, size: int) -> None:
        match = re.match(r"\[\s*([\w$]+)\s*(?:\+\s*(\d+))?\s*\]", operand)
        assert match is not None, operand
        start = next(p.offset for p in self.module.parameters if p.name == match[1]) + int(match[2] or 0)
        for k, destination in enumerate(destinations):
            piece = self.parameter_block[start + k * size : start + (k + 1) * size]
            self.put(destination, np.frombuffer(piece, UINT[size * 8])[0])

    parameter_block: bytes

    def op_st(self, modifiers: Modifiers, operands: Operands) -> None:
        width, count = bits(types_of(modifiers)[-1]), _vector(modifiers)
        sources = split_operands(operands[1].strip("{} "))
        columns = [np.broadcast_to(np.asarray(self.raw(x, width)), (self.num_lanes,)) for x in sources]
        data = np.ascontiguousarray(np.stack(columns, 1)).view(np.uint8).reshape(self.num_lanes, width // 8 * count)
        is_shared = "shared" in modifiers
        addresses = self.address(operands[0], shared=is_shared)
        if is_shared:
            self.counters.shared_access("store", addresses, data.shape[1], self.mask)
            self.store_shared(addresses, data, self.mask)
        else:
            self.counters.global_access("store", addresses, self.mask)
            self.store_global(addresses, data, self.mask)

    def op_atom(self, modifiers: Modifiers, operands: Operands) -> None:
        self.put(operands[0], self._atomic(modifiers, operands[1:]))

    def op_red(self, modifiers: Modifiers, operands: Operands) -> None:
        self._atomic(modifiers, operands)

    def _atomic(self, modifiers: Modifiers, operands: Operands) -> Array:
        """Lane after lane: one of the orders that hardware may take."""
        type_name = types_of(modifiers)[-1]
        width = bits(type_name)
        dtype: Any = (FLOAT if type_name[0] == "f" else INT if type_name[0] == "s" else UINT)[width]
        is_shared = "shared" in modifiers
        addresses = self.address(operands[0], shared=is_shared)
        sources = [self.lanes(x, type_name) for x in operands[1:]]
        load, store = (self.load_shared, self.store_shared) if is_shared else (self.load_global, self.store_global)
        if not is_shared:
            self.counters.global_access("atomic", addresses, self.mask)
        update = next(_ATOMIC[name] for name in modifiers if name in _ATOMIC)
        old_bits = np.zeros(self.num_lanes, UINT[width])
        lanes = range(self.num_lanes) if self.mask is None else np.flatnonzero(self.mask)
        for lane in lanes:
            only = np.zeros(self.num_lanes, bool)
            only[lane] = True
            raw = np.ascontiguousarray(load(addresses, width // 8, only)[lane])
            old_bits[lane] = raw.view(UINT[width])[0]
            new = np.asarray(update(raw.view(dtype)[0], *(x[lane] for x in sources)), dtype)
            data = np.zeros((self.num_lanes, width // 8), np.uint8)
            data[lane] = np.frombuffer(new.tobytes(), np.uint8)
            store(addresses, data, only)
        return old_bits


_ATOMIC: dict[str, Callable[..., Any]] = {
    "add": lambda old, x: old + x, "min": min, "max": max, "exch": lambda old, x: x,
    "and": lambda old, x: old & x, "or": lambda old, x: old | x, "xor": lambda old, x: old ^ x,
    "cas": lambda old, expected, new: new if old == expected else old,
}  # fmt: skip


def _vector(modifiers: Modifiers) -> int:
    return next((int(m[1:]) for m in modifiers if m in ("v2", "v4", "v8")), 1)


def _fit(value: Array, destination: str) -> Array:
    """An 8- or 16-bit load into a wider register fills it with zeros."""
    if destination.startswith("%rs"):
        return value.astype(np.uint16)
    is_word = re.match(r"%[rf]\d", destination) is not None
    return value.astype(np.uint32) if is_word and value.dtype.itemsize < 4 else value
