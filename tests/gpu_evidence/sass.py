"""What the assembler made of a kernel: registers, spills, shared memory, occupancy, load widths in loops.

Read from the cubin by the disassemblers in Triton's wheel; AMD's code states its own resources. Shows what the compiler
emitted; shows nothing about how fast it runs.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

from tests.gpu_evidence.archs import Arch, blocks_per_multiprocessor
from tests.gpu_evidence.capture import Launch

_TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*?);")
_TENSOR_CORE = ("HMMA", "HGMMA", "WGMMA", "UTCHMMA", "QGMMA", "UTCQMMA")
_NARROW = re.compile(r"\.(U|S)?(8|16)(\.|$)")


@dataclass(frozen=True)
class Instruction:
    address: int
    opcode: str
    operands: str

    @property
    def base(self) -> str:
        return self.opcode.split(".")[0]


def disassemble(cubin: Path) -> tuple[list[Instruction], dict[str, int]]:
    """Instructions and the addresses of labels."""
    text = _run("nvdisasm", "-c", str(cubin))
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    waiting: list[str] = []
    for line in text.splitlines():
        if label := re.match(r"^\s*(\.L_x_\w+):", line):
            waiting.append(label[1])
        elif match := _LINE.match(line):
            instruction = Instruction(int(match[1], 16), match[2], match[3])
            labels.update(dict.fromkeys(waiting, instruction.address))
            waiting = []
            instructions.append(instruction)
    return instructions, labels


def loops(instructions: list[Instruction], labels: dict[str, int]) -> list[list[Instruction]]:
    """Bodies of backward branches, without the branch to itself that ends every kernel."""
    index = {instruction.address: n for n, instruction in enumerate(instructions)}
    bodies = []
    for n, instruction in enumerate(instructions):
        if instruction.base != "BRA":
            continue
        match = re.search(r"(\.L_x_\w+)|0x([0-9a-f]+)", instruction.operands)
        target = None if match is None else labels.get(match[1]) if match[1] else int(match[2], 16)
        if target is not None and target < instruction.address and target in index:
            bodies.append(instructions[index[target] : n + 1])
    return bodies


def _run(tool: str, *arguments: str) -> str:
    return subprocess.run([str(_TOOLS / tool), *arguments], check=True, capture_output=True, text=True).stdout


def report(launch: Launch) -> dict[str, Any]:
    """The figures that the budget file keeps."""
    if not launch.arch.is_nvidia:
        return _amd_report(launch.text("amdgcn"))
    cubin = launch.compiled_file("cubin")
    return cubin_report(cubin, launch.arch, launch.threads, int(launch.metadata.shared), launch.name)


def cubin_report(cubin: Path, arch: Arch, threads: int, dynamic_shared: int, name: str) -> dict[str, Any]:
    """Also for what nvcc compiles: `name` is the kernel in the cubin."""
    resources = _run("cuobjdump", "--dump-resource-usage", str(cubin)).split(f"Function {name}:")[1].splitlines()[1]
    registers, stack, static = (int(re.search(rf"{key}:(\d+)", resources)[1]) for key in ("REG", "STACK", "SHARED"))  # type: ignore[index]
    instructions, labels = disassemble(cubin)
    shared = max(static, dynamic_shared)
    in_loops = {i.address: i for body in loops(instructions, labels) for i in body}.values()
    return {
        "registers": registers,
        "spills": sum(i.base in ("LDL", "STL") for i in instructions),
        "stack": stack,
        "shared": shared,
        "blocks_per_sm": blocks_per_multiprocessor(arch, registers, shared, threads),
        "narrow_loop_loads": sum(i.base == "LDG" and bool(_NARROW.search(i.opcode)) for i in in_loops),
        "tensor_core": any(i.base in _TENSOR_CORE for i in instructions),
    }


def _amd_report(assembly: str) -> dict[str, Any]:
    def stated(key: str) -> int:
        match = re.search(rf"\.{key}:\s*(\d+)", assembly)
        assert match is not None, f"{key} is not stated in the AMD assembly"
        return int(match[1])

    return {
        "registers": stated("vgpr_count"),
        "spills": stated("vgpr_spill_count") + stated("sgpr_spill_count"),
        "shared": stated("group_segment_fixed_size"),
        "tensor_core": "v_mfma" in assembly,
    }
