"""Moves, logic, shifts and byte permutations of registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.gpu_evidence.ptx.arithmetic import Modifiers, Operands
from tests.gpu_evidence.ptx.parser import split_operands
from tests.gpu_evidence.ptx.registers import Registers
from tests.gpu_evidence.ptx.types import UINT, bits, types_of


class BitOps(Registers):
    """Instructions that see bits, not numbers."""

    def op_mov(self, modifiers: Modifiers, operands: Operands) -> None:
        type_name = types_of(modifiers)[-1]
        width = bits(type_name)
        if operands[0].startswith("{"):
            self._unpack(operands, width)
        elif operands[1].startswith("{"):
            self._pack(operands, width)
        elif type_name == "pred":
            self.put(operands[0], self.predicate(operands[1]))
        else:
            self.put(operands[0], self.raw(operands[1], width))

    def _unpack(self, operands: Operands, width: int) -> None:
        parts = split_operands(operands[0][1:-1])
        each = width // len(parts)
        value = np.asarray(self.raw(operands[1], width))
        for index, part in enumerate(parts):
            piece = (value >> UINT[width](index * each)) & UINT[width]((1 << each) - 1)
            self.put(part, piece.astype(UINT[each]))

    def _pack(self, operands: Operands, width: int) -> None:
        parts = split_operands(operands[1][1:-1])
        each = width // len(parts)
        value = np.zeros(self.num_lanes, UINT[width])
        for index, part in enumerate(parts):
            value |= np.asarray(self.raw(part, each)).astype(UINT[width]) << UINT[width](index * each)
        self.put(operands[0], value)

    def op_cvta(self, modifiers: Modifiers, operands: Operands) -> None:
        self.put(operands[0], self.raw(operands[1], 64))

    def _logic(self, modifiers: Modifiers, operands: Operands, function: Callable[..., Any]) -> None:
        type_name = types_of(modifiers)[-1]
        if type_name == "pred":
            sources = [self.predicate(x) for x in operands[1:]]
        else:
            sources = [np.asarray(self.raw(x, bits(type_name))) for x in operands[1:]]
        self.put(operands[0], function(*sources))

    def op_and(self, modifiers: Modifiers, operands: Operands) -> None:
        self._logic(modifiers, operands, lambda x, y: x & y)

    def op_or(self, modifiers: Modifiers, operands: Operands) -> None:
        self._logic(modifiers, operands, lambda x, y: x | y)

    def op_xor(self, modifiers: Modifiers, operands: Operands) -> None:
        self._logic(modifiers, operands, lambda x, y: x ^ y)

    def op_not(self, modifiers: Modifiers, operands: Operands) -> None:
        self._logic(modifiers, operands, lambda x: ~x)

    def op_shl(self, modifiers: Modifiers, operands: Operands) -> None:
        width = bits(types_of(modifiers)[-1])
        value, count = np.asarray(self.raw(operands[1], width)), np.asarray(self.raw(operands[2], 32))
        shifted = value << np.minimum(count, width - 1).astype(UINT[width])
        self.put(operands[0], np.where(count < width, shifted, UINT[width](0)))

    def op_shr(self, modifiers: Modifiers, operands: Operands) -> None:
        type_name = types_of(modifiers)[-1]
        width = bits(type_name)
        value, count = np.asarray(self.value(operands[1], type_name)), np.asarray(self.raw(operands[2], 32))
        shifted = value >> np.minimum(count, width - 1).astype(value.dtype)
        is_signed = type_name[0] == "s"
        self.put(operands[0], shifted if is_signed else np.where(count < width, shifted, value.dtype.type(0)))

    def op_shf(self, modifiers: Modifiers, operands: Operands) -> None:
        low, high, count = (np.asarray(self.raw(x, 32)).astype(np.uint64) for x in operands[1:4])
        both = (high << np.uint64(32)) | low
        count = np.minimum(count, np.uint64(32)) if "clamp" in modifiers else count & np.uint64(31)
        shifted = (both << count) >> np.uint64(32) if "l" in modifiers else both >> count
        self.put(operands[0], shifted.astype(np.uint32))

    def op_bfe(self, modifiers: Modifiers, operands: Operands) -> None:
        type_name = types_of(modifiers)[-1]
        width = bits(type_name)
        unsigned = UINT[width]
        value = np.asarray(self.raw(operands[1], width))
        first, count = (np.asarray(self.raw(x, 32)).astype(unsigned) & unsigned(255) for x in operands[2:4])
        field = np.where(first < width, value >> np.minimum(first, unsigned(width - 1)), unsigned(0))
        low_bits = (unsigned(1) << np.minimum(count, unsigned(width - 1))) - unsigned(1)
        field = np.where(count >= width, field, field & low_bits)
        if type_name[0] == "s":
            sign = unsigned(1) << np.clip(count.astype(np.int64) - 1, 0, width - 1).astype(unsigned)
            field = np.where((count > 0) & (count < width), (field ^ sign) - sign, field)
        self.put(operands[0], field.astype(unsigned))

    def op_bfi(self, modifiers: Modifiers, operands: Operands) -> None:
        width = bits(types_of(modifiers)[-1])
        field, base = (np.asarray(self.raw(x, width)) for x in operands[1:3])
        first, count = (np.asarray(self.raw(x, 32)).astype(UINT[width]) for x in operands[3:5])
        window = ((UINT[width](1) << count) - UINT[width](1)) << first
        self.put(operands[0], (base & ~window) | ((field << first) & window))

    def op_popc(self, modifiers: Modifiers, operands: Operands) -> None:
        value = np.ascontiguousarray(self.lanes(operands[1], types_of(modifiers)[-1]))
        self.put(
            operands[0], np.unpackbits(value.view(np.uint8).reshape(self.num_lanes, -1), 1).sum(1).astype(np.uint32)
        )

    def op_clz(self, modifiers: Modifiers, operands: Operands) -> None:
        width = bits(types_of(modifiers)[-1])
        value = np.ascontiguousarray(self.lanes(operands[1], f"b{width}"))
        ordered = value.view(np.uint8).reshape(self.num_lanes, -1)[:, ::-1]
        as_bits = np.unpackbits(np.ascontiguousarray(ordered), axis=1)
        zeros = np.where(as_bits.any(1), as_bits.argmax(1), width)
        self.put(operands[0], zeros.astype(np.uint32))

    def op_lop3(self, modifiers: Modifiers, operands: Operands) -> None:
        x, y, z = (np.asarray(self.raw(operand, 32)) for operand in operands[1:4])
        table, result = int(operands[4], 0), np.zeros(self.num_lanes, np.uint32)
        for k in range(8):
            if table >> k & 1:
                result |= (x if k & 4 else ~x) & (y if k & 2 else ~y) & (z if k & 1 else ~z)
        self.put(operands[0], result)

    def op_prmt(self, modifiers: Modifiers, operands: Operands) -> None:
        x, y, selector = (self.lanes(operand, "b32").astype(np.uint64) for operand in operands[1:4])
        both, result = x | (y << np.uint64(32)), np.zeros(self.num_lanes, np.uint32)
        for k in range(4):
            pick = (selector >> np.uint64(4 * k)) & np.uint64(15)
            byte = (both >> (np.uint64(8) * (pick & np.uint64(7)))) & np.uint64(255)
            sign = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
            byte = np.where(pick & np.uint64(8), sign, byte)
            result |= (byte << np.uint64(8 * k)).astype(np.uint32)
        self.put(operands[0], result)
