"""Every opcode and modifier the emulator models. Anything else raises when the module is loaded.

A modifier that is skipped in silence gives wrong numbers in silence: a rounding mode, a carry, a NaN rule.
"""

from __future__ import annotations

import re

from tests.gpu_evidence.ptx.types import EmulatorError, is_type

_SPACES = "global shared"
_ORDER = "volatile weak relaxed acquire release acq_rel gpu sys cta"
_CACHE = "nc ca cg cs cv wb wt lu L1::evict_first L1::evict_last L1::no_allocate L1::evict_normal L1::evict_unchanged"
_L2 = "L2::evict_first L2::evict_last L2::evict_normal L2::cache_hint L2::64B L2::128B L2::256B"
_COMPARE = "lt le gt ge eq ne lo ls hi hs ltu leu gtu geu equ neu num nan"
_SHAPES_MMA = "m16n8k8 m16n8k16 m16n8k4"

ALLOWED: dict[str, str] = {
    "mov": "",
    "cvta": "to global shared param const",
    "add": "rn ftz sat",
    "sub": "rn ftz sat",
    "mul": "lo hi wide rn ftz sat",
    "mad": "lo wide rn ftz",
    "fma": "rn ftz sat",
    "neg": "ftz",
    "abs": "ftz",
    "min": "NaN ftz",
    "max": "NaN ftz",
    "rem": "",
    "div": "rn full approx ftz",
    "rcp": "rn approx ftz",
    "sqrt": "rn approx ftz",
    "rsqrt": "approx ftz",
    "ex2": "approx ftz",
    "lg2": "approx ftz",
    "sin": "approx ftz",
    "cos": "approx ftz",
    "tanh": "approx",
    "copysign": "",
    "testp": "nan infinite finite number notanumber",
    "and": "",
    "or": "",
    "xor": "",
    "not": "",
    "shl": "",
    "shr": "",
    "shf": "l r clamp wrap",
    "bfe": "",
    "bfi": "",
    "popc": "",
    "clz": "",
    "lop3": "",
    "prmt": "",
    "setp": f"{_COMPARE} and or xor ftz",
    "selp": "",
    "cvt": "rn rna rz rni rzi rmi rpi ftz sat relu",
    "ld": f"{_SPACES} param {_ORDER} {_CACHE} {_L2} v2 v4 v8",
    "st": f"{_SPACES} {_ORDER} {_CACHE} {_L2} v2 v4 v8",
    "atom": f"{_SPACES} {_ORDER} {_L2} add min max and or xor exch cas noftz",
    "red": f"{_SPACES} {_ORDER} {_L2} add min max and or xor noftz",
    "bar": "sync warp",
    "barrier": "sync aligned",
    "membar": "gl cta sys",
    "fence": "proxy async shared sc acq_rel acquire release gpu sys cta",
    "griddepcontrol": "launch_dependents wait",
    "prefetch": f"{_SPACES} L1 L2 {_L2}",
    "nanosleep": "",
    "setmaxnreg": "inc dec sync aligned",
    "createpolicy": f"fractional range {_L2}",
    "activemask": "",
    "elect": "sync",
    "shfl": "sync bfly down up idx",
    "vote": "sync any all ballot",
    "redux": "sync add min max and or xor",
    "cp": f"async {_SPACES} ca cg commit_group wait_group wait_all {_L2}",
    "ldmatrix": "sync aligned m8n8 x1 x2 x4 trans shared",
    "stmatrix": "sync aligned m8n8 x1 x2 x4 trans shared",
    "mma": f"sync aligned row col {_SHAPES_MMA}",
    "wgmma": "sync aligned mma_async fence commit_group wait_group",
    "bra": "uni",
    "ret": "uni",
    "exit": "",
}
_ALLOWED = {opcode: frozenset(names.split()) for opcode, names in ALLOWED.items()}
_WGMMA_SHAPE = re.compile(r"m64n\d+k\d+")


def require_modelled(opcode: str, modifiers: tuple[str, ...], line: str) -> None:
    """Raises EmulatorError for what the emulator would have to guess."""
    if opcode not in _ALLOWED:
        raise EmulatorError(f"opcode {opcode!r} is not modelled: {line}")
    for modifier in modifiers:
        shape = opcode == "wgmma" and _WGMMA_SHAPE.fullmatch(modifier)
        if not (is_type(modifier) or shape or modifier in _ALLOWED[opcode]):
            raise EmulatorError(f"modifier .{modifier} of {opcode!r} is not modelled: {line}")
    _require_modelled_together(opcode, modifiers, line)


_MOST_TYPES = {"cvt": 2, "mma": 4, "wgmma": 3}
# what is modelled of two numbers in one register
_PACKED = ("add", "sub", "mul", "fma", "neg", "abs", "min", "max", "cvt", "setp")


def _is_mixed(opcode: str, types: list[str]) -> bool:
    """Blackwell's float32 sums with half-precision inputs."""
    return opcode in ("add", "sub", "fma") and types in (["f32", "bf16"], ["f32", "f16"])


def _require_modelled_together(opcode: str, modifiers: tuple[str, ...], line: str) -> None:
    """Modifiers that are modelled for some types only."""
    types = [name for name in modifiers if is_type(name)]
    if len(types) > _MOST_TYPES.get(opcode, 1) and not _is_mixed(opcode, types):
        raise EmulatorError(f"{opcode} of {' and '.join(types)} is not modelled: {line}")
    packed = [name for name in types if name.endswith("x2")]
    if packed and (opcode not in _PACKED or packed[0][0] in "su" or (opcode == "setp" and packed[0] == "f32x2")):
        raise EmulatorError(f"{opcode} of {packed[0]} is not modelled: {line}")
    if opcode == "cvt" and packed and (types[0] != packed[0] or len(packed) > 1 or packed[0] == "f32x2"):
        raise EmulatorError(f"cvt to {types[0]} from {types[-1]} is not modelled: {line}")
    integer = bool(types) and types[-1][0] in "su"
    if "sat" in modifiers and opcode in ("add", "sub", "mul", "fma") and (integer or types[-1] != "f32"):
        raise EmulatorError(f"saturation of {types[-1]} is not modelled: {line}")
    if opcode == "cvt":
        if "rz" in modifiers and types[0] != "bf16":
            raise EmulatorError(f"cvt.rz to {types[0]} is not modelled: {line}")
        if "rna" in modifiers and "tf32" not in types:
            raise EmulatorError(f"cvt.rna to {types[0]} is not modelled: {line}")
        if "relu" in modifiers and not types[0].endswith("x2"):
            raise EmulatorError(f"cvt.relu to {types[0]} is not modelled: {line}")
        if "tf32" in types and "rna" not in modifiers:
            raise EmulatorError(f"cvt to tf32 is modelled with .rna only: {line}")
    if opcode == "mma" and types[0] != "f32":
        raise EmulatorError(f"mma that accumulates in {types[0]} is not modelled: {line}")
    if opcode == "wgmma" and "mma_async" in modifiers and types[0] != "f32":
        raise EmulatorError(f"wgmma that accumulates in {types[0]} is not modelled: {line}")
