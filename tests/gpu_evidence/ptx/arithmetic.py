"""Arithmetic on registers, rounded as IEEE and PTX ask; special functions are NumPy's, not the hardware's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.gpu_evidence.ptx.registers import Registers
from tests.gpu_evidence.ptx.types import (
    FLOAT,
    INT,
    UINT,
    Array,
    EmulatorError,
    bits,
    from_half,
    integer_type,
    is_floating,
    to_bf16,
    to_half,
    types_of,
)  # fmt: skip

Modifiers = tuple[str, ...]
Operands = tuple[str, ...]
_TINY = np.float32(1.17549435e-38)


def fma(x: Any, y: Any, z: Any) -> Any:
    """Rounded once: float32 through float64, float64 through exact products and sums (Dekker 1971)."""
    if np.asarray(x).dtype != np.float64:
        return np.asarray(x, np.float64) * y + z
    product = x * y
    half_x, half_y = x * 134217729.0, y * 134217729.0
    high_x, high_y = half_x - (half_x - x), half_y - (half_y - y)
    low_x, low_y = x - high_x, y - high_y
    product_error = ((high_x * high_y - product) + high_x * low_y + low_x * high_y) + low_x * low_y
    total = product + z
    back = total - product
    total_error = (product - (total - back)) + (z - back)
    rest = total_error + product_error
    return np.where(np.isfinite(rest), total + rest, total)


class Arithmetic(Registers):
    """Instructions whose lanes do not meet."""

    def _flush(self, modifiers: Modifiers, value: Any) -> Any:
        if "ftz" in modifiers and value.dtype == np.float32:
            return np.where(np.abs(value) < _TINY, value * np.float32(0), value)
        return value

    def _compute(self, modifiers: Modifiers, operands: Operands, function: Callable[..., Any]) -> None:
        type_name, *narrow = types_of(modifiers)
        destination, sources = operands[0], operands[1:]
        if type_name in ("bf16x2", "f16x2"):
            return self.put(destination, self._two_halves(type_name, sources, function))
        if type_name == "f32x2":
            pairs = [np.ascontiguousarray(self.lanes(x, "b64")).view(np.float32).reshape(-1, 2) for x in sources]
            result = np.ascontiguousarray(np.asarray(function(*pairs)).astype(np.float32))
            return self.put(destination, result.view(np.uint64).reshape(-1))
        # all but the last input are narrow where two types are given: what is added to is float32
        kinds = [*(narrow or [type_name]) * (len(sources) - 1), type_name]
        values = [np.asarray(self.value(x, kind)) for x, kind in zip(sources, kinds, strict=True)]
        if narrow:
            values = [x.astype(np.float32) for x in values]
        if type_name == "bf16":
            return self.put(destination, to_bf16(np.asarray(function(*values))))
        if type_name == "f32":
            values = [self._flush(modifiers, x) for x in values]
        result = np.asarray(function(*values))
        result = result.astype(FLOAT[bits(type_name)] if type_name[0] == "f" else integer_type(type_name))
        result = self._flush(modifiers, result)
        if "sat" in modifiers:
            result = np.clip(np.nan_to_num(result), 0, 1).astype(result.dtype)
        self.put(destination, result)

    def _two_halves(self, type_name: str, sources: Operands, function: Callable[..., Any]) -> Array:
        words = [self.lanes(x, "b32") for x in sources]
        result = np.zeros(self.num_lanes, np.uint32)
        for shift in (np.uint32(0), np.uint32(16)):
            halves = [((word >> shift) & np.uint32(0xFFFF)).astype(np.uint16) for word in words]
            computed = function(*(from_half(half, type_name) for half in halves))
            result |= to_half(computed, type_name).astype(np.uint32) << shift
        return result

    # ---- add, multiply, divide
    def op_add(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, lambda x, y: x + y)

    def op_sub(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, lambda x, y: x - y)

    def op_neg(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, lambda x: -x)

    def op_abs(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, np.abs)

    def op_min(self, modifiers: Modifiers, operands: Operands) -> None:
        self._extreme(modifiers, operands, np.minimum, np.fmin)

    def op_max(self, modifiers: Modifiers, operands: Operands) -> None:
        self._extreme(modifiers, operands, np.maximum, np.fmax)

    def _extreme(self, modifiers: Modifiers, operands: Operands, with_nan: Any, without_nan: Any) -> None:
        skips_nan = is_floating(types_of(modifiers)[-1]) and "NaN" not in modifiers
        pick = without_nan if skips_nan else with_nan
        self._compute(modifiers, operands, lambda x, y, *rest: pick(pick(x, y), *rest) if rest else pick(x, y))

    def op_rem(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, lambda x, y: np.fmod(x, np.where(y == 0, 1, y)))

    def op_div(self, modifiers: Modifiers, operands: Operands) -> None:
        kind = types_of(modifiers)[-1][0]

        def divide(x: Any, y: Any) -> Any:
            if kind == "f":
                return x / y
            if kind == "s":
                return np.sign(x) * np.sign(y) * (np.abs(x) // np.maximum(np.abs(y), 1))
            return x // np.maximum(y, 1)

        self._compute(modifiers, operands, divide)

    def _widened(self, type_name: str, operands: Operands) -> list[Array]:
        wide = np.int64 if type_name[0] == "s" else np.uint64
        return [np.asarray(self.value(x, type_name)).astype(wide) for x in operands]

    def op_mul(self, modifiers: Modifiers, operands: Operands) -> None:
        type_name = types_of(modifiers)[-1]
        width = bits(type_name)
        if "wide" in modifiers:
            x, y = self._widened(type_name, operands[1:3])
            return self.put(operands[0], (x * y).astype((INT if type_name[0] == "s" else UINT)[2 * width]))
        if "hi" not in modifiers:
            return self._compute(modifiers, operands, lambda x, y: x * y)
        if width == 64:
            return self.put(operands[0], self._high_of_64(type_name, operands))
        x, y = self._widened(type_name, operands[1:3])
        return self.put(operands[0], ((x * y) >> x.dtype.type(width)).astype(UINT[width]))

    def _high_of_64(self, type_name: str, operands: Operands) -> Array:
        x, y = (self.lanes(operand, "b64") for operand in operands[1:3])
        half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
        x_low, x_high, y_low, y_high = x & low, x >> half, y & low, y >> half
        middle = x_high * y_low + ((x_low * y_low) >> half)
        other = x_low * y_high + (middle & low)
        high = x_high * y_high + (middle >> half) + (other >> half)
        if type_name[0] == "s":
            high = high - np.where(x.view(np.int64) < 0, y, np.uint64(0))
            high = high - np.where(y.view(np.int64) < 0, x, np.uint64(0))
        return high

    def op_mad(self, modifiers: Modifiers, operands: Operands) -> None:
        type_name = types_of(modifiers)[-1]
        if is_floating(type_name):
            return self.op_fma(modifiers, operands)
        if "wide" not in modifiers:
            return self._compute(modifiers, operands, lambda x, y, z: x * y + z)
        width = 2 * bits(type_name)
        x, y = self._widened(type_name, operands[1:3])
        product = np.asarray((x * y).astype((INT if type_name[0] == "s" else UINT)[width])).view(UINT[width])
        return self.put(operands[0], product + np.asarray(self.raw(operands[3], width)))

    def op_fma(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, fma)

    # ---- functions
    def op_rcp(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, lambda x: 1 / x)

    def op_sqrt(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, np.sqrt)

    def op_rsqrt(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, lambda x: 1 / np.sqrt(x))

    def op_ex2(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, np.exp2)

    def op_lg2(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, np.log2)

    def op_sin(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, np.sin)

    def op_cos(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, np.cos)

    def op_tanh(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, np.tanh)

    def op_copysign(self, modifiers: Modifiers, operands: Operands) -> None:
        self._compute(modifiers, operands, lambda sign, x: np.copysign(x, sign))

    # ---- compare, select
    def op_testp(self, modifiers: Modifiers, operands: Operands) -> None:
        tests: dict[str, Callable[[Any], Any]] = {
            "nan": np.isnan, "infinite": np.isinf, "finite": np.isfinite,
            "number": lambda x: ~np.isnan(x), "notanumber": np.isnan,
        }  # fmt: skip
        test = next(tests[name] for name in modifiers if name in tests)
        self.put(operands[0], test(self.value(operands[1], types_of(modifiers)[-1])))

    def op_setp(self, modifiers: Modifiers, operands: Operands) -> None:
        type_name = types_of(modifiers)[-1]
        if type_name in ("bf16x2", "f16x2"):
            return self._compare_halves(type_name, modifiers, operands)
        x, y = (self._flush(modifiers, np.asarray(self.value(o, type_name))) for o in operands[1:3])
        holds = np.broadcast_to(_compare(modifiers[0], x, y, is_floating(type_name)), (self.num_lanes,))
        combine = next((_COMBINE[name] for name in modifiers if name in _COMBINE), None)
        for destination, result in zip(operands[0].split("|"), (holds, ~holds), strict=False):
            self.put(destination, combine(result, self.predicate(operands[3])) if combine else result)

    def _compare_halves(self, type_name: str, modifiers: Modifiers, operands: Operands) -> None:
        """`p|q`: p of the low halves, q of the high ones, not its complement as for one number."""
        words = [self.lanes(x, "b32") for x in operands[1:3]]
        combine = next((_COMBINE[name] for name in modifiers if name in _COMBINE), None)
        for destination, shift in zip(operands[0].split("|"), (np.uint32(0), np.uint32(16)), strict=True):
            x, y = (from_half(((word >> shift) & np.uint32(0xFFFF)).astype(np.uint16), type_name) for word in words)
            holds = _compare(modifiers[0], x, y, True)
            self.put(destination, combine(holds, self.predicate(operands[3])) if combine else holds)

    def op_selp(self, modifiers: Modifiers, operands: Operands) -> None:
        width = bits(types_of(modifiers)[-1])
        yes, no = self.raw(operands[1], width), self.raw(operands[2], width)
        self.put(operands[0], np.where(self.predicate(operands[3]), yes, no))

    # ---- convert
    def op_cvt(self, modifiers: Modifiers, operands: Operands) -> None:
        to, source = types_of(modifiers)[0], types_of(modifiers)[-1]
        if to == "tf32":
            word = np.asarray(self.raw(operands[1], 32))
            return self.put(operands[0], (word + np.uint32(0x1000)) & np.uint32(0xFFFFE000))
        if to in ("bf16x2", "f16x2"):
            return self._pack_halves(to, modifiers, operands)
        value = self._flush(modifiers, np.asarray(self.value(operands[1], source)))
        if is_floating(source):
            return self.put(operands[0], self._from_float(to, modifiers, value))
        if to == "bf16":
            return self.put(operands[0], to_bf16(value.astype(np.float32)))
        return self.put(operands[0], value.astype(FLOAT[bits(to)] if to[0] == "f" else _cast(to, source)))

    def _pack_halves(self, to: str, modifiers: Modifiers, operands: Operands) -> None:
        word = np.zeros(self.num_lanes, np.uint32)
        for operand, shift in zip(operands[1:3], (np.uint32(16), np.uint32(0)), strict=True):
            value = self.lanes(operand, "f32")
            if "relu" in modifiers:
                value = np.maximum(value, 0)
            word |= to_half(value, to).astype(np.uint32) << shift
        self.put(operands[0], word)

    def _from_float(self, to: str, modifiers: Modifiers, value: Any) -> Any:
        whole = next((_WHOLE[name] for name in modifiers if name in _WHOLE), None)
        if is_floating(to):
            value = whole(value) if whole else value
            if to == "bf16" and "rz" in modifiers:
                return (np.ascontiguousarray(value, np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)
            if "sat" in modifiers:
                value = np.clip(np.nan_to_num(value), 0, 1)
            result = to_bf16(value) if to == "bf16" else value.astype(FLOAT[bits(to)])
            return self._flush(modifiers, result)
        limits = np.iinfo(integer_type(to))
        rounded = (whole or np.trunc)(value).astype(np.float64)
        top = np.nextafter(2.0**63, 0) if limits.max > 2**62 and to[0] == "s" else limits.max
        kept = np.where(np.isnan(value), 0, np.clip(rounded, limits.min, top))
        return np.where(rounded > top, limits.max, kept.astype(integer_type(to))).astype(integer_type(to))


_WHOLE: dict[str, Callable[[Any], Any]] = {"rni": np.rint, "rmi": np.floor, "rpi": np.ceil, "rzi": np.trunc}
_COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor,
}  # fmt: skip
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
    "ne": np.not_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip


def _compare(name: str, x: Any, y: Any, floating: bool) -> Any:
    unordered = (np.isnan(x) | np.isnan(y)) if floating else np.False_
    if name in ("nan", "num"):
        return unordered if name == "nan" else ~unordered
    if floating and name[-1] == "u" and name[:-1] in _COMPARE:
        return _COMPARE[name[:-1]](x, y) | unordered
    if name not in _COMPARE:
        raise EmulatorError(f"comparison {name} is not modelled")
    return _COMPARE[name](x, y) & ~unordered


def _cast(to: str, source: str) -> Any:
    """Sign extension follows the source."""
    return (INT if source[0] == "s" else UINT)[bits(to)]
