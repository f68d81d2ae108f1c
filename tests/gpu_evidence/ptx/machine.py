"""The machine: all lanes of a chunk of CTAs in lockstep, the lowest program counter first.

Divergent branches meet again by that order. It is one legal interleaving of the warps, not all of them: races are
found by the check of shared memory, not by trying other orders.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tests.gpu_evidence.ptx.arithmetic import Arithmetic
from tests.gpu_evidence.ptx.async_copies import AsyncCopies
from tests.gpu_evidence.ptx.bit_ops import BitOps
from tests.gpu_evidence.ptx.checks import Buffer, SharedRaces
from tests.gpu_evidence.ptx.counters import Counters
from tests.gpu_evidence.ptx.memory import view_of
from tests.gpu_evidence.ptx.parser import Instruction, Module
from tests.gpu_evidence.ptx.tensor_core import TensorCore
from tests.gpu_evidence.ptx.types import Array
from tests.gpu_evidence.ptx.warp import Warp

Grid = tuple[int, int, int]
_CHUNK_LANES = 32768
_FILL = 0xCD  # what shared memory holds before anything is written


class Machine(Arithmetic, BitOps, TensorCore, AsyncCopies, Warp):
    """Runs one module; `counters` and `race_reports` tell what happened."""

    def __init__(
        self, module: Module, block: Grid, *, dynamic_shared: int = 0, buffers: list[Buffer], check_races: bool = True
    ) -> None:
        self.module, self.block = module, block
        constants = [Buffer(a.ctypes.data, a.nbytes, name) for name, a in module.constants.items()]
        self.buffers = sorted([*buffers, *constants], key=lambda buffer: buffer.base)
        self.views = [view_of(buffer) for buffer in self.buffers]
        self.shared_bytes = -(-(module.shared_bytes + dynamic_shared) // 16) * 16
        self.counters = Counters(self.buffers)
        self.race_reports: list[str] = []
        self._check_races = check_races
        # one CTA at a time where a lock is spun on, which lockstep would never free
        spins = any(i.opcode == "atom" and "cas" in i.modifiers for i in module.instructions)
        self._ctas_at_once = 1 if spins else max(1, _CHUNK_LANES // math.prod(block))
        self._handlers: dict[str, Callable[[tuple[str, ...], tuple[str, ...]], None]] = {
            i.opcode: getattr(self, f"op_{i.opcode}")
            for i in module.instructions
            if i.opcode not in ("bra", "ret", "exit")
        }

    def run(self, grid: Grid, parameter_block: bytes) -> None:
        np_state = np.seterr(all="ignore")
        try:
            self.grid, self.parameter_block = grid, parameter_block
            for first in range(0, math.prod(grid), self._ctas_at_once):
                self._start(np.arange(first, min(math.prod(grid), first + self._ctas_at_once)))
                self._run_chunk()
        finally:
            np.seterr(**np_state)

    def _start(self, ctas: Array) -> None:
        threads = math.prod(self.block)
        padded = -(-threads // 32) * 32
        self.num_ctas, self.num_lanes = len(ctas), len(ctas) * padded
        self.thread, cta = np.tile(np.arange(padded), len(ctas)), np.repeat(ctas, padded)
        x, y, _ = self.grid
        self.cta = (cta % x, cta // x % y, cta // (x * y))
        self.warp = np.arange(self.num_lanes) // 32
        self.shared_base = np.repeat(np.arange(len(ctas)) * self.shared_bytes, padded).astype(np.int64)
        self.shared_memory = np.full(max(1, len(ctas) * self.shared_bytes), _FILL, np.uint8)
        self.epoch = np.zeros(self.num_lanes, np.int64)
        self.races = SharedRaces(len(self.shared_memory)) if self._check_races else None
        self.registers, self.committed, self.pending = {}, [], []
        self._real = self.thread < threads  # the last warp of a block may be short

    def _run_chunk(self) -> None:
        end = len(self.module.instructions)
        counters = np.where(self._real, 0, end)
        together: int | None = 0 if self._real.all() else None  # the common counter while no lane has strayed
        while True:
            if together is None:
                pc = int(counters.min())
                if pc >= end:
                    break
                self.active, self.alive = counters == pc, counters < end
                if self.active.all():
                    self.active, together = None, pc
            else:
                pc, self.active, self.alive = together, None, None
            if pc >= end:
                break
            together, counters = self._step(pc, together, counters, end)
        if self.races is not None:
            self.race_reports += self.races.found

    def _step(self, pc: int, together: int | None, counters: Array, end: int) -> tuple[int | None, Array]:
        """Executes one instruction; returns the next counters."""
        instruction = self.module.instructions[pc]
        self.counter, self.current = pc, instruction
        taken = self._taken(instruction)
        warps = self.num_lanes // 32 if self.active is None else int(self.active.reshape(-1, 32).any(1).sum())
        self.counters.executed(instruction, warps)
        if instruction.opcode == "bra":
            return self._jump(taken, self.module.labels[instruction.operands[-1]], pc, together, counters)
        if instruction.opcode in ("ret", "exit"):
            return self._jump(taken, end, pc, together, counters)
        self.mask = taken
        if taken is None or taken.any():
            self._handlers[instruction.opcode](instruction.modifiers, instruction.operands)
        return self._jump(None, pc + 1, pc, together, counters)

    def _taken(self, instruction: Instruction) -> Array | None:
        """Lanes at the instruction whose predicate holds; None: all."""
        if instruction.predicate is None:
            return self.active
        holds = self.predicate(("!" if instruction.negated else "") + instruction.predicate)
        taken = holds if self.active is None else holds & self.active
        return None if taken.all() else taken

    def _jump(
        self, taken: Array | None, target: int, pc: int, together: int | None, counters: Array
    ) -> tuple[int | None, Array]:
        """`taken` lanes go to `target`, the other active ones to the next instruction."""
        if together is not None:
            if taken is None:
                return target, counters
            if not taken.any():
                return pc + 1, counters
            return None, np.where(taken, target, pc + 1)
        goes = self.active if taken is None else taken
        assert self.active is not None
        assert goes is not None
        return None, np.where(goes, target, np.where(self.active, pc + 1, counters))
