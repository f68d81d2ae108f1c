"""Registers of every lane at once: operands read and written under the current mask."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tests.gpu_evidence.ptx.parser import Instruction, Module
from tests.gpu_evidence.ptx.types import FLOAT, INT, UINT, Array, EmulatorError, bits, from_bf16

_ADDRESS = re.compile(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\w+))?\s*\]")
_POISON = 0xDEADBEEFDEADBEEF  # what a register holds that was never written


class Registers:
    """State of a chunk of CTAs; a register is one array over all their lanes."""

    module: Module
    block: tuple[int, int, int]
    grid: tuple[int, int, int]
    num_lanes: int
    thread: Array  # [lanes] index in its CTA
    cta: tuple[Array, Array, Array]
    registers: dict[str, Array]
    mask: Array | None  # lanes that execute the current instruction; None: all
    active: Array | None  # lanes at the current instruction, whatever its predicate says
    current: Instruction
    counter: int  # of the program

    def raw(self, operand: str, width: int) -> Any:
        """Bits of a register, an address or a literal, as unsigned integers."""
        if operand[0] == "%":
            value = self.registers.get(operand)
            value = self._special(operand, width) if value is None else value
            if value.dtype == bool or width == 1:
                return value
            return value if value.dtype.itemsize * 8 == width else value.astype(UINT[width])
        if operand[:2] in ("0f", "0F"):
            return np.uint32(int(operand[2:], 16))
        if operand[:2] in ("0d", "0D"):
            return np.uint64(int(operand[2:], 16))
        if operand in self.module.shared:
            return UINT[width](self.module.shared[operand])
        if operand in self.module.constants:
            return UINT[width](self.module.constants[operand].ctypes.data)
        if operand == "_":
            return UINT[width](0)
        return UINT[width](int(operand.rstrip("U"), 0) & ((1 << width) - 1))

    def _special(self, operand: str, width: int) -> Array:
        name = operand[1:]
        axis = "xyz".find(name[-1])
        x, y, _ = self.block
        if name.startswith("tid."):
            value: Any = (self.thread % x, self.thread // x % y, self.thread // (x * y))[axis]
        elif name.startswith("ctaid."):
            value = self.cta[axis]
        elif name.startswith("ntid."):
            value = np.full(self.num_lanes, self.block[axis])
        elif name.startswith("nctaid."):
            value = np.full(self.num_lanes, self.grid[axis])
        elif name in ("laneid", "warpid"):
            value = self.thread % 32 if name == "laneid" else self.thread // 32
        elif name in ("clock", "clock64", "globaltimer", "cluster_ctarank", "cluster_ctaid.x"):
            value = np.zeros(self.num_lanes)
        elif "." in name or not re.fullmatch(r"[a-z_]+\w*\d+|\w*", name):
            raise EmulatorError(f"special register {operand} is not modelled: {self.current.line}")
        elif width == 1:
            return np.zeros(self.num_lanes, bool)
        else:
            return np.full(self.num_lanes, _POISON & ((1 << width) - 1), UINT[width])
        return value.astype(np.uint32)

    def value(self, operand: str, type_name: str) -> Any:
        """The operand read as `type_name`; bfloat16 as float32."""
        width = bits(type_name)
        raw = np.asarray(self.raw(operand, width))
        if type_name == "pred":
            return raw
        if type_name == "bf16":
            return from_bf16(raw)
        kinds = FLOAT if type_name[0] == "f" else INT if type_name[0] == "s" else UINT
        return raw.view(kinds[width]) if raw.ndim else np.frombuffer(raw.tobytes(), kinds[width])[0]

    def lanes(self, operand: str, type_name: str) -> Array:
        return np.broadcast_to(np.asarray(self.value(operand, type_name)), (self.num_lanes,))

    def predicate(self, operand: str) -> Array:
        """With `!` for its opposite; literals 0 and 1 are allowed."""
        name = operand.lstrip("!")
        held = self.registers.get(name)
        if held is None:
            held = np.full(self.num_lanes, name[0] != "%" and int(name, 0) != 0)
        return ~held if operand[0] == "!" else held

    def put(self, destination: str, value: Any) -> None:
        """Writes the lanes of the mask."""
        if destination == "_":
            return
        array = np.asarray(value)
        if array.dtype != bool:
            array = array.view(UINT[array.dtype.itemsize * 8])
        if array.ndim == 0:
            array = np.full(self.num_lanes, array)
        if self.mask is not None:
            old = self.registers.get(destination)
            if old is None or old.dtype != array.dtype:
                old = np.zeros(self.num_lanes, array.dtype)
            array = np.where(self.mask, array, old)
        self.registers[destination] = array

    def address(self, operand: str, *, shared: bool = False) -> Array:
        """[lanes] int64 of `[register + offset]`; shared addresses may live in 32-bit registers."""
        match = _ADDRESS.fullmatch(operand)
        if match is None:
            raise EmulatorError(f"address {operand}: {self.current.line}")
        base = np.asarray(self.raw(match[1], 32 if shared and "%rd" not in operand else 64)).astype(np.int64)
        return np.broadcast_to(base + int(match[2] or "0", 0), (self.num_lanes,))
