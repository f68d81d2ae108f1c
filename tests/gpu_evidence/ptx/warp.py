"""Instructions by which lanes meet: barriers, shuffles, votes. Fences and hints do nothing here."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.gpu_evidence.ptx.arithmetic import Modifiers, Operands
from tests.gpu_evidence.ptx.memory import Memory
from tests.gpu_evidence.ptx.types import Array, EmulatorError, types_of


class Warp(Memory):
    """`alive` are the lanes that have not left the kernel."""

    alive: Array | None

    def op_bar(self, modifiers: Modifiers, operands: Operands) -> None:
        if "warp" in modifiers:
            return
        if len(operands) < 2:  # with a count of threads it is for a part of the block
            self._require_whole_blocks()
        self.epoch = self.epoch + (1 if self.mask is None else self.mask.astype(np.int64))

    op_barrier = op_bar

    def _require_whole_blocks(self) -> None:
        if self.mask is None:
            return
        at_barrier = self.mask.reshape(self.num_ctas, -1)
        missing = (~at_barrier & self._still_running().reshape(self.num_ctas, -1)).any(1) & at_barrier.any(1)
        if missing.any():
            raise EmulatorError(f"a barrier that not all threads of the block reach, in {self.module.name}")

    num_ctas: int

    def _still_running(self) -> Array:
        return np.ones(self.num_lanes, bool) if self.alive is None else self.alive

    def _nothing(self, modifiers: Modifiers, operands: Operands) -> None:
        """Orders or hints that change no value under this machine's order of execution."""

    op_membar = op_fence = op_griddepcontrol = op_prefetch = op_nanosleep = op_setmaxnreg = _nothing

    def op_createpolicy(self, modifiers: Modifiers, operands: Operands) -> None:
        self.put(operands[0], np.uint64(0))

    def op_activemask(self, modifiers: Modifiers, operands: Operands) -> None:
        self.put(operands[0], self._ballot(np.ones(self.num_lanes, bool)))

    def op_elect(self, modifiers: Modifiers, operands: Operands) -> None:
        self.put(operands[0].split("|")[-1], self.thread % 32 == 0)

    def _ballot(self, holds: Array) -> Array:
        kept = holds if self.mask is None else holds & self.mask
        weights = np.arange(32, dtype=np.uint64)
        words = (kept.reshape(-1, 32).astype(np.uint64) << weights).sum(1).astype(np.uint32)
        return np.repeat(words, 32)

    def op_shfl(self, modifiers: Modifiers, operands: Operands) -> None:
        value = self.lanes(operands[1], "b32")
        offset, control = (self.lanes(x, "b32").astype(np.int64) for x in operands[2:4])
        lane = self.thread % 32
        first = np.arange(self.num_lanes) - lane
        segment, clamp = (control >> 8) & 31, control & 31
        highest, lowest = (lane & segment) | (clamp & ~segment), lane & segment
        kind = next(m for m in modifiers if m in ("bfly", "down", "up", "idx"))
        source = {
            "bfly": lane ^ offset, "down": lane + offset, "up": lane - offset,
            "idx": lowest | (offset & ~segment),
        }[kind]  # fmt: skip
        valid = source >= highest if kind == "up" else source <= highest
        source = np.where(valid, source, lane)
        self._require_active(first + source)
        destinations = operands[0].split("|")
        self.put(destinations[0], value[first + source])
        if len(destinations) > 1:
            self.put(destinations[1], valid)

    def _require_active(self, sources: Array) -> None:
        """What a lane outside the shuffle holds is undefined."""
        if self.mask is not None and not self.mask[sources[self.mask]].all():
            raise EmulatorError(f"shuffle from a lane that is not there, in {self.module.name}: {self.current.line}")

    def op_vote(self, modifiers: Modifiers, operands: Operands) -> None:
        holds = np.broadcast_to(self.predicate(operands[1]), (self.num_lanes,))
        if "ballot" in modifiers:
            return self.put(operands[0], self._ballot(holds))
        on = np.ones(self.num_lanes, bool) if self.mask is None else self.mask
        voted: Any = (holds & on).reshape(-1, 32)
        result = voted.any(1) if "any" in modifiers else (voted | ~on.reshape(-1, 32)).all(1)
        return self.put(operands[0], np.repeat(result, 32))

    def op_redux(self, modifiers: Modifiers, operands: Operands) -> None:
        if self.mask is not None and not (self.mask.reshape(-1, 32).all(1) == self.mask.reshape(-1, 32).any(1)).all():
            raise EmulatorError(f"redux over a part of a warp is not modelled: {self.current.line}")
        value = self.lanes(operands[1], types_of(modifiers)[-1]).reshape(-1, 32)
        functions = {
            "add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or,
            "xor": np.bitwise_xor,
        }  # fmt: skip
        function = next(functions[m] for m in modifiers if m in functions)
        self.put(operands[0], np.repeat(function.reduce(value, axis=1).astype(value.dtype), 32))
