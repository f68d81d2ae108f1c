"""PTX text as a list of instructions with the layout of its parameters and shared memory."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.gpu_evidence.ptx.modifiers import require_modelled
from tests.gpu_evidence.ptx.types import UINT, Array, EmulatorError, bits

_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\((.*?)\)([^{;]*)\{", re.S)
_PARAM = re.compile(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)[^,]*?\s([\w$]+)(?:\[(\d+)\])?\s*(?:,|$)")
_SHARED = re.compile(r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)\s*(\[(\d*)\])?")
_CONSTANT = re.compile(
    r"\.(?:global|const)\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?\s*=\s*(\{[^}]*\}|[^;]+);"
)
_INSTRUCTION = re.compile(r"(?:@(!?)(%[\w]+)\s+)?([\w.:]+)\s*(.*)$", re.S)


@dataclass(frozen=True)
class Instruction:
    predicate: str | None
    negated: bool
    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]
    line: str


@dataclass(frozen=True)
class Parameter:
    name: str
    offset: int
    size: int


def split_operands(text: str) -> list[str]:
    """Splits at commas outside brackets."""
    found, depth, current = [], 0, ""
    for character in text:
        depth += (character in "{[(") - (character in "}])")
        if character == "," and depth == 0:
            found.append(current.strip())
            current = ""
        else:
            current += character
    return [*found, current.strip()] if current.strip() else found


class Module:
    """One kernel: `instructions`, `labels`, `parameters`, offsets of `shared` arrays, `constants`."""

    def __init__(self, ptx: str, entry: str | None = None) -> None:
        text = re.sub(r"/\*.*?\*/", "", re.sub(r"//[^\n]*", "", ptx), flags=re.S)
        found = next((match for match in _ENTRY.finditer(text) if entry in (None, match[1])), None)
        if found is None:
            raise EmulatorError(f"no kernel named {entry!r} in this PTX")
        self.name = found[1]
        self.parameters = _parameters(found[2])
        self.parameter_bytes = max((p.offset + p.size for p in self.parameters), default=0)
        body, head = text[found.end() : _closing_brace(text, found.end())], text[: _ENTRY.search(text).start()]  # type: ignore[union-attr]
        if re.search(r"\.local\s", body):
            raise EmulatorError(f"{self.name}: local memory is not modelled")
        self.shared, self.shared_bytes = _shared_arrays(head + body)
        self.constants = _constants(head)
        self.instructions, self.labels = _instructions(body)

    def pack(self, values: list[int | float | None]) -> bytes:
        """The parameter block a launch hands over."""
        if len(values) != len(self.parameters):
            raise EmulatorError(f"{self.name} takes {len(self.parameters)} parameters, got {len(values)}")
        block = bytearray(self.parameter_bytes)
        for parameter, value in zip(self.parameters, values, strict=True):
            block[parameter.offset : parameter.offset + parameter.size] = _parameter_bytes(value, parameter.size)
        return bytes(block)


def _parameter_bytes(value: int | float | None, size: int) -> bytes:
    if value is None:
        return bytes(size)
    if isinstance(value, float):
        return struct.pack({2: "<e", 4: "<f", 8: "<d"}[size], value)
    return int(value).to_bytes(size, "little", signed=int(value) < 0)


def _closing_brace(text: str, start: int) -> int:
    depth, end = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return end - 1


def _parameters(text: str) -> list[Parameter]:
    found, offset = [], 0
    for match in _PARAM.finditer(text.strip()):
        size = bits(match[2]) // 8 * int(match[4] or 1)
        alignment = int(match[1] or bits(match[2]) // 8)
        offset = -(-offset // alignment) * alignment
        found.append(Parameter(match[3], offset, size))
        offset += size
    return found


def _shared_arrays(text: str) -> tuple[dict[str, int], int]:
    """(offset of each array, bytes); an extern array without a length starts behind the others."""
    offsets, end = {}, 0
    for match in _SHARED.finditer(text):
        alignment = int(match[1] or 4)
        end = -(-end // alignment) * alignment
        offsets[match[3]] = end
        length = int(match[5]) if match[5] else 0 if match[4] else 1
        end += length * bits(match[2]) // 8
    return offsets, end


def _constants(head: str) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for match in _CONSTANT.finditer(head):
        numbers = [int(x, 0) for x in re.findall(r"-?(?:0x[0-9a-fA-F]+|\d+)", match[4])]
        dtype: Any = UINT[bits(match[1])]
        found[match[2]] = np.array([x & ((1 << bits(match[1])) - 1) for x in numbers], dtype)
    return found


def _instructions(body: str) -> tuple[list[Instruction], dict[str, int]]:
    body = re.sub(r"(?m)(?<![\w])\.(reg|shared|file|pragma|section)\s[^;\n]*(;|\n)", "\n", body)
    body = re.sub(r"(?m)^\s*\.loc\b[^\n]*", "", body)
    body = re.sub(r"([\w$%]+):(?!:)", r"\1:;", body)
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in _statements(body):
        if line.endswith(":"):
            labels[line[:-1].strip()] = len(instructions)
        else:
            instructions.append(_instruction(line))
    return instructions, labels


def _statements(body: str) -> list[str]:
    """Text between semicolons; the braces around inline assembly only open a scope and are dropped."""
    found, current = [], ""
    for character in body:
        if character == ";":
            found.append(current.strip())
            current = ""
        elif character not in "{}" or current.strip():
            current += character
    return [statement for statement in found if statement]


def _instruction(line: str) -> Instruction:
    match = _INSTRUCTION.match(line)
    if match is None:
        raise EmulatorError(f"cannot parse: {line}")
    opcode, *modifiers = match[3].replace("shared::cta", "shared").replace("::cta", "").split(".")
    operands = tuple(split_operands(" ".join(match[4].split())))
    require_modelled(opcode, tuple(modifiers), line)
    return Instruction(match[2], bool(match[1]), opcode, tuple(modifiers), operands, line)
