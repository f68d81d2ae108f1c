"""ldmatrix, stmatrix, mma.sync and Hopper's wgmma. Products are summed in float32, in NumPy's order.

wgmma completes when it is issued: a missing `wgmma.wait_group` or proxy fence goes unseen.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tests.gpu_evidence.ptx.arithmetic import Modifiers, Operands
from tests.gpu_evidence.ptx.memory import Memory
from tests.gpu_evidence.ptx.parser import split_operands
from tests.gpu_evidence.ptx.types import Array, EmulatorError, from_bf16, from_half

_LANE = np.arange(32)
_ROW, _COLUMN = _LANE // 4, _LANE % 4  # of a lane in an 8x8 matrix, columns in pairs
_INPUTS = ("f32", "f16", "bf16", "tf32")
_TF32 = np.uint32(0xFFFFE000)


class TensorCore(Memory):
    """Whole warps (mma) and warp groups (wgmma) only."""

    # ---- 8x8 matrices between shared memory and registers
    def op_ldmatrix(self, modifiers: Modifiers, operands: Operands) -> None:
        destinations, addresses = split_operands(operands[0].strip("{} ")), self.address(operands[1], shared=True)
        for k, destination in enumerate(destinations):
            holder = self.thread % 32 // 8 == k
            rows = self._matrix_rows(addresses, k, holder, None)
            tile_W88 = self.shared_memory[rows[:, :, None] + np.arange(16)].view(np.uint16)
            matrix_W88 = tile_W88.transpose(0, 2, 1) if "trans" in modifiers else tile_W88
            low, high = (matrix_W88[:, _ROW, 2 * _COLUMN + e].astype(np.uint32) for e in (0, 1))
            self.put(destination, (low | (high << np.uint32(16))).reshape(-1))

    def op_stmatrix(self, modifiers: Modifiers, operands: Operands) -> None:
        sources, addresses = split_operands(operands[1].strip("{} ")), self.address(operands[0], shared=True)
        whole = np.ones(self.num_lanes // 32, bool) if self.mask is None else self.mask.reshape(-1, 32).all(1)
        for k, source in enumerate(sources):
            word = self.lanes(source, "b32").reshape(-1, 32)
            tile_W88 = np.zeros((len(word), 8, 8), np.uint16)
            tile_W88[:, _ROW, 2 * _COLUMN] = (word & np.uint32(0xFFFF)).astype(np.uint16)
            tile_W88[:, _ROW, 2 * _COLUMN + 1] = (word >> np.uint32(16)).astype(np.uint16)
            if "trans" in modifiers:
                tile_W88 = tile_W88.transpose(0, 2, 1)
            data = np.ascontiguousarray(tile_W88).view(np.uint8).reshape(len(word), 8, 16)
            holder = (self.thread % 32 // 8 == k) & np.repeat(whole, 32)
            rows = self._matrix_rows(addresses, k, holder, data)
            self.shared_memory[rows[whole][:, :, None] + np.arange(16)] = data[whole]

    def _matrix_rows(self, addresses: Array, k: int, holder: Array, data_W8B: Array | None) -> Array:
        """[warps, 8] positions of the rows of matrix k, which lanes 8k ... 8k + 7 give."""
        on = holder if self.mask is None else holder & self.mask
        positions = self.shared_positions(addresses, 16, on)
        data = None
        if data_W8B is not None:
            data = np.zeros((self.num_lanes, 16), np.uint8)
            data.reshape(-1, 32, 16)[:, 8 * k : 8 * k + 8] = data_W8B
        self.note_shared(positions, 16, on, data)
        rows = addresses.reshape(-1, 32)[:, 8 * k : 8 * k + 8]
        words = (rows[:, :, None] // 4 + np.arange(4)).reshape(len(rows), -1)
        self.counters.shared_words("ldmatrix" if data is None else "stmatrix", words)
        return positions.reshape(-1, 32)[:, 8 * k : 8 * k + 8]

    # ---- mma.sync
    def _halves(self, operands: list[str], kind: str) -> Array:
        """[warps, 32, 2n] float32."""
        words = np.stack([self.lanes(x, "b32").reshape(-1, 32) for x in operands], 2)
        return from_half(np.ascontiguousarray(words).view(np.uint16), kind)

    def _tf32(self, operands: list[str]) -> Array:
        return np.stack([(self.lanes(x, "b32") & _TF32).view(np.float32).reshape(-1, 32) for x in operands], 2)

    def op_mma(self, modifiers: Modifiers, operands: Operands) -> None:
        shape = next(m for m in modifiers if m.startswith("m16n8"))
        kind = [m for m in modifiers if m in _INPUTS][1]
        depth = int(shape.split("k")[1])
        result, left, right, added = (split_operands(x.strip("{} ")) for x in operands[:4])
        if kind in ("bf16", "f16"):
            product = self._mma_halves(left, right, kind, depth)
        elif kind == "tf32":
            product = self._mma_tf32(left, right, depth)
        else:
            raise EmulatorError(f"mma of {kind} is not modelled: {self.current.line}")
        for r, destination in enumerate(result):
            piece = product[:, _ROW + 8 * (r // 2), 2 * _COLUMN + r % 2].reshape(-1)
            self.put(destination, (np.asarray(self.value(added[r], "f32")) + piece).astype(np.float32))

    def _mma_halves(self, left: list[str], right: list[str], kind: str, depth: int) -> Array:
        x, y = self._halves(left, kind), self._halves(right, kind)
        left_W16K = np.zeros((len(x), 16, depth), np.float32)
        right_WK8 = np.zeros((len(x), depth, 8), np.float32)
        for e in range(2):
            for r in range(len(left)):
                left_W16K[:, _ROW + 8 * (r % 2), 2 * _COLUMN + 8 * (r // 2) + e] = x[:, _LANE, 2 * r + e]
            for r in range(len(right)):
                right_WK8[:, 2 * _COLUMN + 8 * r + e, _ROW] = y[:, _LANE, 2 * r + e]
        return np.matmul(left_W16K, right_WK8)

    def _mma_tf32(self, left: list[str], right: list[str], depth: int) -> Array:
        x, y = self._tf32(left), self._tf32(right)
        left_W16K = np.zeros((len(x), 16, depth), np.float32)
        right_WK8 = np.zeros((len(x), depth, 8), np.float32)
        for r in range(len(left)):
            left_W16K[:, _ROW + 8 * (r % 2), _COLUMN + 4 * (r // 2)] = x[:, _LANE, r]
        for r in range(len(right)):
            right_WK8[:, _COLUMN + 4 * r, _ROW] = y[:, _LANE, r]
        return np.matmul(left_W16K, right_WK8)

    # ---- wgmma: D[64, N] += A[64, K] B[K, N], A from registers or shared memory, B from shared memory
    def op_wgmma(self, modifiers: Modifiers, operands: Operands) -> None:
        if "mma_async" not in modifiers:
            return
        shape = next(m for m in modifiers if m.startswith("m64"))
        columns, depth = (int(x) for x in re.findall(r"[nk](\d+)", shape))
        kind = [m for m in modifiers if m in _INPUTS][1]
        keeps, *literals = operands[3:]
        flags = [int(x, 0) for x in literals]
        left_in_registers = operands[1].startswith("{")
        left_G64K, right_transposed = self._wgmma_left(operands[1], kind, depth, flags, left_in_registers)
        right_GNK = self._described(operands[2], columns, depth, kind, mn_major=right_transposed)
        product = np.matmul(left_G64K, right_GNK.transpose(0, 2, 1)) * np.float32(flags[0]) * np.float32(flags[1])
        self._wgmma_put(split_operands(operands[0].strip("{} ")), product, self.predicate(keeps))

    def _wgmma_left(
        self, operand: str, kind: str, depth: int, flags: list[int], in_registers: bool
    ) -> tuple[Array, bool]:
        """A, and whether B is MN-major."""
        if not in_registers:
            left_major, right_major = flags[2:4] if len(flags) > 3 else (0, 0)
            return self._described(operand, 64, depth, kind, mn_major=bool(left_major)), bool(right_major)
        if kind == "tf32":
            raise EmulatorError(f"wgmma with tf32 in registers is not modelled: {self.current.line}")
        registers = split_operands(operand.strip("{} "))
        x = self._halves(registers, kind).reshape(self.num_lanes // 128, 128, -1)
        thread = np.arange(128)
        left_G64K = np.zeros((len(x), 64, depth), np.float32)
        for r in range(len(registers)):
            row = 16 * (thread // 32) + thread % 32 // 4 + 8 * (r % 2)
            for e in range(2):
                left_G64K[:, row, 2 * (thread % 4) + 8 * (r // 2) + e] = x[:, thread, 2 * r + e]
        return left_G64K, bool(flags[2]) if len(flags) > 2 else False

    def _wgmma_put(self, destinations: list[str], product: Array, keeps: Array) -> None:
        thread = np.arange(128)
        for r, destination in enumerate(destinations):
            row = 16 * (thread // 32) + thread % 32 // 4 + 8 * (r // 2 % 2)
            column = 8 * (r // 4) + 2 * (thread % 4) + r % 2
            added = np.where(keeps, self.value(destination, "f32"), np.float32(0))
            self.put(destination, (added + product[:, row, column].reshape(-1)).astype(np.float32))

    def _described(self, operand: str, rows: int, depth: int, kind: str, *, mn_major: bool) -> Array:
        """[groups, rows, depth] float32 read through a matrix descriptor, one for each warp group."""
        descriptor = self.lanes(operand, "b64").reshape(-1, 128)[:, 0]
        base = self.shared_base.reshape(-1, 128)[:, 0]
        size = 4 if kind == "tf32" else 2
        offsets = _descriptor_offsets(descriptor, rows, depth, size, mn_major)
        if (offsets < 0).any() or (offsets + size > self.shared_bytes).any():
            raise EmulatorError(f"wgmma descriptor outside shared memory, in {self.module.name}")
        data = np.ascontiguousarray(self.shared_memory[(offsets + base[:, None, None])[..., None] + np.arange(size)])
        if kind == "bf16":
            return from_bf16(data.view(np.uint16)[..., 0])
        if kind == "f16":
            return data.view(np.float16)[..., 0].astype(np.float32)
        return (data.view(np.uint32)[..., 0] & _TF32).view(np.float32)


def _descriptor_offsets(descriptor: Array, rows: int, depth: int, size: int, mn_major: bool) -> Array:
    """[groups, rows, depth] byte offsets in shared memory, swizzled as the descriptor says."""

    def field(shift: int) -> int:
        return int(((descriptor[0] >> np.uint64(shift)) & np.uint64(0x3FFF)) << np.uint64(4))

    swizzle = int((descriptor[0] >> np.uint64(62)) & np.uint64(3))
    start = ((descriptor & np.uint64(0x3FFF)) << np.uint64(4)).astype(np.int64)
    leading, stride, atom = field(16), field(32), {0: 16, 1: 128, 2: 64, 3: 32}[swizzle]
    row, k = np.arange(rows)[:, None], np.arange(depth)[None, :]
    along: Any = row * size if mn_major else k * size
    across, eighths = (k % 8, k // 8) if mn_major else (row % 8, row // 8)
    offsets = start[:, None, None] + (along % atom + along // atom * leading + across * atom + eighths * stride)[None]
    mask = {0: 0, 1: 7, 2: 3, 3: 1}[swizzle]
    return offsets ^ (((offsets >> 7) & mask) << 4)
