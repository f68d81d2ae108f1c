"""Executes the PTX that nvcc makes of csrc/cuda on the CPU, with NumPy: all threads of a launch in lockstep.

Knows the instructions those kernels use and refuses every other by name. Threads wait at barriers as on a GPU; among
those that do not wait, the ones at the lowest place run first, which joins diverged branches again. Checked on the way:
every global access against the given buffers and its alignment, every shared access against the block's memory, and
races: two warps that touch one word, one of them writing, without a barrier between; or two blocks that do.
"""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Lanes = npt.NDArray[Any]
UNSIGNED = {1: np.dtype(bool), 8: np.dtype("u1"), 16: np.dtype("u2"), 32: np.dtype("u4"), 64: np.dtype("u8")}
WARP = 32


class PtxError(Exception):
    """What a GPU would have got wrong, or an instruction that is not known here."""


class Race(NamedTuple):
    line: str  # the later of the two accesses
    space: str  # "shared" or the number of the buffer


class Instruction(NamedTuple):
    predicate: str | None
    negated: bool
    op: str
    parts: tuple[str, ...]  # what follows the op, cut at the dots
    args: tuple[str, ...]
    line: str


class Kernel:
    """One entry of a PTX text, parsed."""

    def __init__(self, ptx: str, name: str) -> None:
        ptx = re.sub(r"//[^\n]*", "", ptx)
        found = re.search(rf"\.entry\s+{re.escape(name)}\s*\(([^)]*)\)[^{{]*\{{", ptx)
        if found is None:
            raise PtxError(f"no kernel {name} in the PTX")
        body = ptx[found.end() : self._end(ptx, found.end())]
        self.parameters = self._parameters(found[1])
        self.shared, self.shared_bytes = self._shared(body)
        declared = re.findall(r"\.reg\s+\.(?:pred|[bfsu](\d+))\s+(%[a-z]+)", body)
        self.widths = {
            prefix: int(width or 1) for width, prefix in declared
        }  # of registers, by the start of their name
        self.instructions: list[Instruction] = []
        self.labels: dict[str, int] = {}
        for statement in re.split(r";|(?<=:)\s", re.sub(r"(\$\w+:)", r";\1 ", body)):
            self._add(" ".join(statement.split()).strip("{} "))

    @staticmethod
    def _end(ptx: str, begin: int) -> int:
        depth, at = 1, begin
        while depth:
            depth += {"{": 1, "}": -1}.get(ptx[at], 0)
            at += 1
        return at - 1

    @staticmethod
    def _parameters(text: str) -> dict[str, tuple[int, str]]:
        """name -> (position, type)"""
        words = [re.sub(r"\.ptr|\.align \d+", "", p).split() for p in text.split(",") if p.strip()]
        return {w[-1]: (i, w[1].lstrip(".")) for i, w in enumerate(words)}

    @staticmethod
    def _shared(body: str) -> tuple[dict[str, int], int]:
        places, end = {}, 0
        for align, name, size in re.findall(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\]", body):
            end = -(-end // int(align)) * int(align)
            places[name], end = end, end + int(size)
        return places, end

    def _add(self, statement: str) -> None:
        if not statement or statement.startswith("."):
            return
        if statement.endswith(":"):
            self.labels[statement[:-1]] = len(self.instructions)
            return
        found = re.fullmatch(r"(?:@(!?)(%\w+) )?([a-z]\w*)((?:\.\w+|::\w+)*)(?: (.*))?", statement)
        if found is None:
            raise PtxError(f"cannot parse: {statement}")
        args = re.findall(r"\{[^}]*\}?|\[[^\]]*\]|[^,\s|]+", found[5] or "")
        parts = tuple(found[4].split(".")[1:])
        self.instructions.append(Instruction(found[2], bool(found[1]), found[3], parts, tuple(args), statement))


@functools.cache
def parsed(ptx: str, name: str) -> Kernel:
    return Kernel(ptx, name)


class Shadow:
    """Who touched each word of some memory last, and how many barriers ago."""

    NOBODY, MANY = -1, -2  # MANY: several warps of a block since its last barrier

    def __init__(self, size: int) -> None:
        words = size // 4 + 2
        self.writer, self.reader = np.full(words, self.NOBODY), np.full(words, self.NOBODY)
        self.written, self.read = np.full(words, -1), np.full(words, -1)  # barriers before that

    def touch(self, words: Lanes, who: Lanes, block: Lanes, epoch: Lanes, warps: int, *, writes: bool) -> bool:
        """Notes the access; whether it races."""

        def others(owner: Lanes, when: Lanes) -> Lanes:
            strange_block = (owner >= 0) & (owner // warps != block)
            return (owner != self.NOBODY) & (owner != who) & ((when == epoch) | strange_block)

        races = others(self.writer[words], self.written[words])
        if writes:
            races |= others(self.reader[words], self.read[words])
            self.writer[words], self.written[words] = who, epoch
            races |= self.writer[words] != who  # several warps at once
        else:
            shared = others(self.reader[words], self.read[words])
            self.reader[words] = np.where(shared, self.MANY, who)
            self.read[words] = epoch
            self.reader[words[self.reader[words] != np.where(shared, self.MANY, who)]] = self.MANY
        return bool(races.any())


class Machine:
    """All blocks of one launch."""

    def __init__(
        self,
        kernel: Kernel,
        grid: int,
        block: int,
        values: Sequence[float],
        buffers: Sequence[tuple[int, int]],
        races: list[Race],
    ) -> None:
        assert block % WARP == 0
        self.kernel, self.values, self.grid, self.block = kernel, values, grid, block
        self.lanes = grid * block
        self.thread = np.tile(np.arange(block), grid)
        self.cta = np.repeat(np.arange(grid), block)
        self.warp = np.arange(self.lanes) // WARP
        self.epoch = np.zeros(self.lanes, np.int64)
        self.registers: dict[str, Lanes] = {}
        self.mask: Lanes | None = None
        self.now = kernel.instructions[0]
        self.shared = np.full(grid * self.shared_stride, 0xCD, np.uint8)  # not zero: a GPU's is not either
        self.buffers = [(base, size, _view(base, size)) for base, size in sorted(buffers)]
        self.shadows = {"shared": Shadow(self.shared.size)} | {
            str(i): Shadow(size) for i, (_, size, _) in enumerate(self.buffers)
        }
        self.races = races

    @property
    def shared_stride(self) -> int:
        return -(-self.kernel.shared_bytes // 16) * 16

    # ---- control

    def run(self) -> None:
        end = len(self.kernel.instructions)
        place, waits = np.zeros(self.lanes, np.int64), np.zeros(self.lanes, bool)
        while True:
            at = int(np.where(waits, end + 1, place).min())
            if at >= end:
                if (waits & (place < end)).any():
                    raise PtxError("threads wait at a barrier that others never reach")
                return
            active = (place == at) & ~waits
            instruction = self.now = self.kernel.instructions[at]
            chosen = active
            if instruction.predicate is not None:
                chosen = active & (self.read(instruction.predicate, 1) ^ instruction.negated)
            if instruction.op == "bra":
                place = np.where(chosen, self.kernel.labels[instruction.args[0]], np.where(active, at + 1, place))
                continue
            place = np.where(active, at + 1, place)
            if instruction.op in ("ret", "exit"):
                place = np.where(chosen, end, place)
                waits = self._released(waits, place, end)
            elif instruction.op == "bar" and instruction.parts[0] == "sync":
                self.epoch += chosen
                waits = self._released(waits | chosen, place, end)
            elif chosen.any():
                self.mask = None if chosen.all() else chosen
                self._execute(instruction)

    def _released(self, waits: Lanes, place: Lanes, end: int) -> Lanes:
        """The waits of blocks in which somebody is still on the way."""
        complete = (waits | (place >= end)).reshape(self.grid, self.block).all(axis=1)
        return waits & ~np.repeat(complete, self.block)

    def _execute(self, i: Instruction) -> None:
        run = getattr(self, f"op_{i.op}", None)
        if run is None:
            raise PtxError(f"unknown instruction: {i.line}")
        run(i)

    # ---- operands

    def read(self, name: str, width: int) -> Lanes:
        if name.startswith("%"):
            value = self.registers.get(name)
            if value is None:
                value = self._special(name)
            return value if value.dtype.itemsize * 8 == width or width == 1 else value.astype(UNSIGNED[width])
        if name[:2] in ("0f", "0d"):
            bits = int(name[2:], 16)
        elif name in self.kernel.shared:
            bits = self.kernel.shared[name]
        else:
            bits = int(name, 0) & ((1 << width) - 1)
        return np.full(self.lanes, bits, UNSIGNED[width])

    def _special(self, name: str) -> Lanes:
        known = {"%tid.x": self.thread, "%ctaid.x": self.cta}
        sizes = {"%ntid.x": self.block, "%nctaid.x": self.grid}
        if name in sizes:
            return np.full(self.lanes, sizes[name], np.uint32)
        if name not in known:
            raise PtxError(f"read before it was written: {name} in {self.now.line}")
        return known[name].astype(np.uint32)

    def typed(self, name: str, kind: str) -> Lanes:
        """An operand as numbers of a PTX type."""
        if kind == "pred":
            value = self.read(name.lstrip("!"), 1)
            return ~value if name.startswith("!") else value
        return self.read(name, width_of(kind)).view(dtype_of(kind))

    def write(self, name: str, value: Lanes) -> None:
        if name == "_":
            return
        value = value if value.dtype == bool else value.view(UNSIGNED[value.dtype.itemsize * 8])
        width = self.kernel.widths[name.rstrip("0123456789")]
        if width > 1 and value.dtype.itemsize * 8 != width:
            value = value.astype(UNSIGNED[width])
        if self.mask is not None:
            old = self.registers.get(name)
            # lanes that never wrote it hold a value that shows
            old = np.full(self.lanes, 0xA5 if width > 1 else 0, UNSIGNED[width]) if old is None else old
            value = np.where(self.mask, value, old)
        self.registers[name] = value

    # ---- memory

    def _place(self, operand: str) -> Lanes:
        base, offset = re.fullmatch(r"\[([%\w$]+)(?:\+(-?\d+))?\]", operand).groups()  # type: ignore[union-attr]
        wide = self.read(base, 64 if base.startswith("%rd") else 32)
        return wide.astype(np.int64) + int(offset or 0)

    def access(self, space: str, operand: str, size: int, data: Lanes | None) -> Lanes:
        """[lanes, size] bytes loaded, or `data` stored by the active lanes."""
        on = np.arange(self.lanes) if self.mask is None else np.flatnonzero(self.mask)
        at = self._place(operand)[on]
        if (at % size).any():
            raise PtxError(f"misaligned access of {size} bytes: {self.now.line}")
        if space == "shared":
            if (at < 0).any() or (at + size > self.kernel.shared_bytes).any():
                raise PtxError(f"outside of shared memory: {self.now.line}")
            return self._touch("shared", self.shared, at + self.cta[on] * self.shared_stride, on, size, data)
        loaded, done = np.zeros((self.lanes, size), np.uint8), np.zeros(len(on), bool)
        for number, (base, length, view) in enumerate(self.buffers):
            here = (at >= base) & (at + size <= base + length)
            if here.any():
                part = self._touch(str(number), view, at[here] - base, on[here], size, data)
                loaded[on[here]] = part[on[here]]
                done |= here
        if not done.all():
            raise PtxError(f"outside of every buffer ({int((~done).sum())} threads): {self.now.line}")
        return loaded

    def _touch(self, space: str, memory: Lanes, at: Lanes, on: Lanes, size: int, data: Lanes | None) -> Lanes:
        for word in range(max(size // 4, 1)):
            shadow, warps = self.shadows[space], self.block // WARP
            touched = shadow.touch(
                at // 4 + word, self.warp[on], self.cta[on], self.epoch[on], warps, writes=data is not None
            )
            if touched and len(self.races) < 20:
                self.races.append(Race(self.now.line, space))
        loaded = np.zeros((self.lanes, size), np.uint8)
        index = at[:, None] + np.arange(size)
        if data is None:
            loaded[on] = memory[index]
        else:
            memory[index] = data[on]
        return loaded

    def op_ld(self, i: Instruction) -> None:
        kind, targets = i.parts[-1], i.args[0].strip("{}").replace(" ", "").split(",")
        if "param" in i.parts:
            position, declared = self.kernel.parameters[i.args[1].strip("[]")]
            self.write(
                targets[0], np.full(self.lanes, packed(self.values[position], declared), UNSIGNED[width_of(kind)])
            )
            return
        each = width_of(kind) // 8
        data = self.access(_space(i), i.args[1], each * len(targets), None)
        for k, target in enumerate(targets):
            own = np.ascontiguousarray(data[:, k * each : (k + 1) * each])
            self.write(target, own.view(UNSIGNED[each * 8])[:, 0])

    def op_st(self, i: Instruction) -> None:
        sources = i.args[1].strip("{}").replace(" ", "").split(",")
        columns = [np.ascontiguousarray(self.read(s, width_of(i.parts[-1])))[:, None].view(np.uint8) for s in sources]
        data = np.concatenate(columns, axis=1)
        self.access(_space(i), i.args[0], data.shape[1], data)

    # ---- warps

    def op_shfl(self, i: Instruction) -> None:
        source, by, clamp, members = (self.read(a, 32) for a in i.args[-4:])  # before them the results: value | inside
        on = slice(None) if self.mask is None else self.mask
        if i.parts != ("sync", "bfly", "b32") or (clamp[on] != WARP - 1).any() or (members[on] != 0xFFFFFFFF).any():
            raise PtxError(f"unknown shuffle: {i.line}")
        self._require_whole_warps(i)
        self.write(i.args[0], source[np.arange(self.lanes) ^ by.astype(np.int64) % WARP])

    def op_vote(self, i: Instruction) -> None:
        self._require_whole_warps(i)
        votes = self.typed(i.args[1], "pred").reshape(-1, WARP)
        if i.parts == ("sync", "any", "pred"):
            found: Lanes = votes.any(axis=1)
        elif i.parts == ("sync", "ballot", "b32"):
            found = (votes << np.arange(WARP, dtype=np.uint64)).sum(axis=1).astype(np.uint32)
        else:
            raise PtxError(f"unknown vote: {i.line}")
        self.write(i.args[0], np.repeat(found, WARP))

    def _require_whole_warps(self, i: Instruction) -> None:
        if self.mask is not None and (self.mask.reshape(-1, WARP).any(1) & ~self.mask.reshape(-1, WARP).all(1)).any():
            raise PtxError(f"a part of a warp is missing: {i.line}")

    # ---- arithmetic

    def op_mov(self, i: Instruction) -> None:
        kind = i.parts[-1]
        if i.args[0].startswith("{"):  # a 64-bit number as its halves
            halves = np.ascontiguousarray(self.read(i.args[1], 64)).view(np.uint32).reshape(-1, 2)
            for k, target in enumerate(i.args[0].strip("{}").replace(" ", "").split(",")):
                self.write(target, np.ascontiguousarray(halves[:, k]))
        elif i.args[1].startswith("{"):
            low, high = (self.read(s, 32).astype(np.uint64) for s in i.args[1].strip("{}").replace(" ", "").split(","))
            self.write(i.args[0], low | (high << np.uint64(32)))
        elif kind == "pred" and not i.args[1].startswith("%"):
            self.write(i.args[0], np.full(self.lanes, i.args[1] not in ("0", "false")))
        else:
            self.write(i.args[0], self.typed(i.args[1], kind))

    def op_cvta(self, i: Instruction) -> None:
        self.write(i.args[0], self.read(i.args[1], 64))

    def op_setp(self, i: Instruction) -> None:
        comparison, kind = i.parts[0], i.parts[-1]
        a, b = self.typed(i.args[1], kind), self.typed(i.args[2], kind)
        if comparison == "nan":
            found: Lanes = np.isnan(a) | np.isnan(b)
        elif comparison == "ne" and kind[0] == "f":
            found = (a != b) & ~np.isnan(a) & ~np.isnan(b)
        elif kind[0] == "f" and comparison.endswith("u"):
            found = COMPARE[comparison[:-1]](a, b) | np.isnan(a) | np.isnan(b)
        else:
            found = COMPARE[comparison](a, b)
        if len(i.args) > 3:
            found = LOGIC[i.parts[1]](found, self.typed(i.args[3], "pred"))
        self.write(i.args[0], found)

    def op_selp(self, i: Instruction) -> None:
        kind = i.parts[-1]
        self.write(
            i.args[0], np.where(self.typed(i.args[3], "pred"), self.typed(i.args[1], kind), self.typed(i.args[2], kind))
        )

    def op_cvt(self, i: Instruction) -> None:
        to, source = i.parts[-2:]
        value = self.typed(i.args[1], source)
        if to[0] == "f" or source[0] != "f":
            self.write(i.args[0], value.astype(dtype_of(to)))
            return
        if "rzi" not in i.parts:
            raise PtxError(f"unknown conversion: {i.line}")
        limits = np.iinfo(dtype_of(to))
        inside = np.clip(np.trunc(np.nan_to_num(value)), float(limits.min), float(limits.max))
        self.write(i.args[0], inside.astype(dtype_of(to)))

    def op_mul(self, i: Instruction) -> None:
        self._multiply(i, None)

    def op_mad(self, i: Instruction) -> None:
        self._multiply(i, i.args[3])

    def _multiply(self, i: Instruction, addend: str | None) -> None:
        kind = i.parts[-1]
        if i.parts[0] == "wide":
            wide = f"{kind[0]}{2 * width_of(kind)}"
            product: Lanes = self.typed(i.args[1], kind).astype(dtype_of(wide)) * self.typed(i.args[2], kind)
            kind = wide
        elif i.parts[0] in ("lo", "rn"):
            product = self.typed(i.args[1], kind) * self.typed(i.args[2], kind)
        else:
            raise PtxError(f"unknown product: {i.line}")
        self.write(
            i.args[0], (product if addend is None else product + self.typed(addend, kind)).astype(dtype_of(kind))
        )

    def _shift(self, i: Instruction, shift: Callable[[Lanes, Lanes], Lanes]) -> None:
        width = width_of(i.parts[-1])
        value, by = self.typed(i.args[1], i.parts[-1]), self.read(i.args[2], 32)
        moved = shift(value, np.minimum(by, width - 1).astype(value.dtype))
        gone = np.where(value < 0, value.dtype.type(-1) if i.parts[-1][0] == "s" else 0, 0).astype(value.dtype)
        self.write(i.args[0], np.where(by < width, moved, gone))

    def op_shl(self, i: Instruction) -> None:
        self._shift(i, np.left_shift)

    def op_shr(self, i: Instruction) -> None:
        self._shift(i, np.right_shift)

    def op_bfi(self, i: Instruction) -> None:
        kind = i.parts[-1]
        field, into = self.typed(i.args[1], kind), self.typed(i.args[2], kind)
        place, length = (self.read(a, 32).astype(into.dtype) for a in i.args[3:5])
        ones = ((into.dtype.type(1) << length) - into.dtype.type(1)) << place
        self.write(i.args[0], (into & ~ones) | ((field << place) & ones))

    def op_clz(self, i: Instruction) -> None:
        width = width_of(i.parts[-1])
        bits = [width - int(v).bit_length() for v in self.typed(i.args[1], i.parts[-1])]
        self.write(i.args[0], np.array(bits, np.uint32))

    def op_popc(self, i: Instruction) -> None:
        self.write(i.args[0], np.bitwise_count(self.typed(i.args[1], i.parts[-1])).astype(np.uint32))


def _plain(function: Callable[..., Lanes]) -> Callable[[Machine, Instruction], None]:
    """An instruction that applies a function to its operands, all of one type."""

    def op(machine: Machine, i: Instruction) -> None:
        kind = i.parts[-1]
        if kind[0] == "f" and i.op in ("add", "sub", "div", "sqrt", "rcp") and "rn" not in i.parts:
            raise PtxError(f"not rounded to nearest: {i.line}")  # ftz and approx would change results
        result = function(*(machine.typed(a, kind) for a in i.args[1:]))
        machine.write(i.args[0], result.astype(dtype_of(kind), copy=False))

    return op


def _quotient(a: Lanes, b: Lanes) -> Lanes:
    if a.dtype.kind == "f":
        return a / b
    safe = np.where(b == 0, 1, b)
    return (np.abs(a) // np.abs(safe) * np.sign(a) * np.sign(safe)).astype(a.dtype)


PLAIN: dict[str, Callable[..., Lanes]] = {
    "add": np.add,
    "sub": np.subtract,
    "div": _quotient,
    "rem": lambda a, b: np.fmod(a, np.where(b == 0, 1, b)),
    "min": np.fmin,
    "max": np.fmax,
    "neg": np.negative,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "rcp": lambda a: 1 / a,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
}
for _name, _function in PLAIN.items():
    setattr(Machine, f"op_{_name}", _plain(_function))

COMPARE: dict[str, Callable[[Lanes, Lanes], Lanes]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
LOGIC = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


@functools.cache
def width_of(kind: str) -> int:
    return 1 if kind == "pred" else int(kind[1:])


@functools.cache
def dtype_of(kind: str) -> np.dtype[Any]:
    if kind == "pred":
        return np.dtype(bool)
    return np.dtype({"b": "u", "u": "u", "s": "i", "f": "f"}[kind[0]] + str(int(kind[1:]) // 8))


def packed(value: float, kind: str) -> int:
    """A parameter's bits."""
    if kind[0] == "f":
        return int.from_bytes(struct.pack("<d" if kind == "f64" else "<f", value), "little")
    return int(value) & ((1 << width_of(kind)) - 1)


def _space(i: Instruction) -> str:
    space = i.parts[0]
    if space not in ("shared", "global"):
        raise PtxError(f"unknown memory: {i.line}")
    return space


def _view(base: int, size: int) -> Lanes:
    import ctypes

    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(base))


def run_ptx(
    ptx: str,
    kernel: str,
    grid: int,
    block: int,
    values: Sequence[float],
    buffers: Sequence[tuple[int, int]],
    races: list[Race],
) -> None:
    """Runs a launch on memory at host addresses: (address, bytes) of everything it may touch. Adds to `races`.

    Raises:
        PtxError: an access out of bounds or misaligned, a barrier that not all reach, or an unknown instruction.
    """
    with np.errstate(all="ignore"):
        Machine(parsed(ptx, kernel), grid, block, values, buffers, races).run()
