"""`cp.async`: the data reach shared memory only at the wait, so that a missing wait shows as wrong numbers."""

from __future__ import annotations

import numpy as np

from tests.gpu_evidence.ptx.arithmetic import Modifiers, Operands
from tests.gpu_evidence.ptx.memory import Memory
from tests.gpu_evidence.ptx.types import Array, EmulatorError

Copy = tuple[Array, Array, Array]  # shared addresses, bytes, lanes


class AsyncCopies(Memory):
    """Copies are read from global memory at issue, grouped by commit, and written at the wait."""

    committed: list[list[Copy]]
    pending: list[Copy]

    def op_cp(self, modifiers: Modifiers, operands: Operands) -> None:
        if "commit_group" in modifiers:
            self.committed.append(self.pending)
            self.pending = []
        elif "wait_group" in modifiers:
            self._land(int(operands[0], 0))
        elif "wait_all" in modifiers:
            self.committed.append(self.pending)
            self.pending = []
            self._land(0)
        else:
            self._issue(operands)

    def _land(self, allowed: int) -> None:
        while len(self.committed) > allowed:
            for addresses, data, lanes in self.committed.pop(0):
                self.store_shared(addresses, data, lanes)

    def _issue(self, operands: Operands) -> None:
        target, source = self.address(operands[0], shared=True), self.address(operands[1])
        size = int(operands[2], 0)
        if size not in (4, 8, 16):
            raise EmulatorError(f"cp.async of {size} bytes: {self.current.line}")
        has_source_size = len(operands) > 3 and not operands[3].startswith("%rd")
        filled = self.lanes(operands[3], "b32").astype(np.int64) if has_source_size else np.full(self.num_lanes, size)
        on = np.ones(self.num_lanes, bool) if self.mask is None else self.mask
        if not on.any():
            return
        reads = on & (filled > 0)
        data = self.load_global(source, size, reads)
        data = np.where(np.arange(size) < filled[:, None], data, 0).astype(np.uint8)
        self.counters.global_access("async copy", source, reads)
        self.counters.shared_access("async copy", target, size, on)
        self.pending.append((target.copy(), data, on.copy()))
