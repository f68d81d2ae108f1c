"""PTX types as NumPy types, and bfloat16 as the upper half of a float32."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

UINT = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
INT = {8: np.int8, 16: np.int16, 32: np.int32, 64: np.int64}
FLOAT = {16: np.float16, 32: np.float32, 64: np.float64}

Array = np.ndarray[Any, Any]

_TYPE = re.compile(r"(b|u|s|f)(8|16|32|64)(x2)?|bf16(x2)?|pred|tf32|b128")


class EmulatorError(Exception):
    """The kernel did something wrong, or something the emulator does not model."""


def is_type(modifier: str) -> bool:
    return _TYPE.fullmatch(modifier) is not None


def types_of(modifiers: tuple[str, ...]) -> list[str]:
    return [modifier for modifier in modifiers if is_type(modifier)]


def bits(type_name: str) -> int:
    """Width; 1 for a predicate."""
    if type_name == "pred":
        return 1
    packed = 2 if type_name.endswith("x2") else 1
    return int(re.sub(r"\D", "", type_name.removesuffix("x2").replace("tf32", "32"))) * packed


def is_floating(type_name: str) -> bool:
    return type_name[0] == "f" or type_name.startswith("bf")


def integer_type(type_name: str) -> Any:
    return (INT if type_name[0] == "s" else UINT)[bits(type_name)]


def from_bf16(halves: Array) -> Array:
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_bf16(values: Array) -> Array:
    """Rounded to nearest, ties to even; every NaN becomes 0x7FFF as on the hardware."""
    as_bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    is_odd = (as_bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((as_bits + np.uint32(0x7FFF) + is_odd) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded)


def from_half(halves: Array, type_name: str) -> Array:
    return from_bf16(halves) if type_name.startswith("bf16") else halves.view(np.float16).astype(np.float32)


def to_half(values: Array, type_name: str) -> Array:
    if type_name.startswith("bf16"):
        return to_bf16(values)
    return np.asarray(values).astype(np.float16).view(np.uint16)
