"""Named argument checks: each message has the argument, what was expected, what came, and the remedy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def require_floating(name: str, x: torch.Tensor, dtypes: Sequence[torch.dtype]) -> None:
    """TypeError unless x has one of the dtypes."""
    if x.dtype not in dtypes:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} must be {wanted}, got {x.dtype}; convert it explicitly, e.g. {name}.float()")


def require_shape(name: str, x: torch.Tensor, letters: str, sizes: tuple[int, ...]) -> None:
    """ValueError unless x has exactly these sizes; `letters` names the axes, e.g. "BT"."""
    if tuple(x.shape) != sizes:
        raise ValueError(f"{name} must be [{', '.join(letters)}] = {list(sizes)}, got {list(x.shape)}")


def require_ndim(name: str, x: torch.Tensor, allowed: Sequence[int], meaning: str) -> None:
    """ValueError unless x has one of the numbers of axes; `meaning` says what they are."""
    if x.ndim not in allowed:
        raise ValueError(f"{name} must be {meaning}, got {x.ndim} axes: {list(x.shape)}")


def require_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """ValueError unless value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def require_between(name: str, value: float, low: float, high: float, *, low_open: bool = False) -> None:
    """ValueError unless low <= value <= high (low < value when `low_open`); NaN is refused."""
    ok = low < value <= high if low_open else low <= value <= high
    if not isinstance(value, (int, float, np.integer, np.floating)) or math.isnan(value) or not ok:
        raise ValueError(f"{name} must be in {'(' if low_open else '['}{low:g}, {high:g}], got {value!r}")


def require_positive_int(name: str, value: int) -> None:
    """TypeError unless an int (not a bool), ValueError unless >= 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be >= 1, got {value}")


def require_offsets(name: str, offsets: torch.Tensor, total: int, what: str) -> None:
    """Offsets [0, .., total], int64, never decreasing, on the CPU; `what` names the rows they cut."""
    if offsets.dtype != torch.int64:
        raise TypeError(f"{name} must be int64 offsets, got {offsets.dtype}; convert with .to(torch.int64)")
    if offsets.ndim != 1 or len(offsets) < 1:
        raise ValueError(f"{name} must be one-dimensional offsets [0, .., {total}], got shape {list(offsets.shape)}")
    if int(offsets[0]) != 0 or int(offsets[-1]) != total:
        raise ValueError(
            f"{name} must start at 0 and end at the {total} {what}, got {int(offsets[0])} .. {int(offsets[-1])}"
        )
    falling = (offsets[1:] < offsets[:-1]).nonzero()
    if len(falling):
        at = int(falling[0]) + 1
        raise ValueError(
            f"{name} must never decrease: {name}[{at}] = {int(offsets[at])} < {name}[{at - 1}] = {int(offsets[at - 1])}"
        )


HEAD_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def require_float_tensor(name: str, x: torch.Tensor) -> None:
    """TypeError unless x is a tensor of float32, bfloat16, float16 or float64."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
    require_floating(name, x, HEAD_DTYPES)


def require_like(name: str, x: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """TypeError unless x is a float tensor, ValueError unless it has the shape and the device of `other`."""
    require_float_tensor(name, x)
    if x.shape != other.shape:
        raise ValueError(f"{name} must be shaped like {other_name} {list(other.shape)}, got {list(x.shape)}")
    if x.device != other.device:
        raise ValueError(f"{name} must be on {other.device} like {other_name}, got {x.device}")


def require_mask(name: str, mask: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """A bool or integer mask shaped like `other`; fractional masks are refused: they mean nothing here."""
    if not isinstance(mask, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(mask).__name__}")
    if mask.dtype.is_floating_point or mask.dtype.is_complex:
        raise TypeError(f"{name} must be bool or integer (0 = left out), got {mask.dtype}; pass {name}.bool()")
    if mask.shape != other.shape:
        raise ValueError(f"{name} must be shaped like {other_name} {list(other.shape)}, got {list(mask.shape)}")
    if mask.device != other.device:
        raise ValueError(f"{name} must be on {other.device} like {other_name}, got {mask.device}")


def require_number(name: str, value: float, *, at_least: float | None = None, above: float | None = None) -> None:
    """TypeError unless a real number, ValueError unless finite and inside the bound."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    bound, outside = "", False
    if at_least is not None:
        bound, outside = f" and >= {at_least:g}", value < at_least
    if above is not None:
        bound, outside = f" and > {above:g}", outside or value <= above
    if not math.isfinite(value) or outside:
        raise ValueError(f"{name} must be finite{bound}, got {value!r}")


def require_scalar(name: str, value: float | torch.Tensor) -> None:
    """A real number or a 0-d tensor (left on its device: reading it would wait for the GPU)."""
    if not isinstance(value, torch.Tensor):
        require_number(name, value)
    elif value.ndim != 0:
        raise ValueError(f"{name} must be a number or a 0-d tensor, got shape {list(value.shape)}")


def require_head(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, bias: torch.Tensor | None) -> None:
    """hidden [..., H], weight [V, H], targets [...] int64 and bias [V] fit in dtype, shape and device."""
    for name, x in (("hidden", hidden), ("weight", weight)):
        require_float_tensor(name, x)
    if not isinstance(targets, torch.Tensor) or targets.dtype != torch.int64:
        came = getattr(targets, "dtype", type(targets).__name__)
        raise TypeError(f"targets must be int64 token ids, got {came}; convert with .long()")
    if weight.ndim != 2 or weight.shape[0] == 0:
        raise ValueError(f"weight must be [V, H] with V >= 1, got {list(weight.shape)}")
    if hidden.ndim < 2 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(f"hidden must be [..., H] with H = {weight.shape[1]} as in weight, got {list(hidden.shape)}")
    if targets.shape != hidden.shape[:-1]:
        raise ValueError(f"targets must be {list(hidden.shape[:-1])}, one per row of hidden, got {list(targets.shape)}")
    others = [("weight", weight), ("targets", targets)]
    if bias is not None:
        require_float_tensor("bias", bias)
        require_shape("bias", bias, "V", (weight.shape[0],))
        others.append(("bias", bias))
    for name, x in others:
        if x.device != hidden.device:
            raise ValueError(f"{name} must be on {hidden.device} like hidden, got {x.device}")
    if weight.dtype != hidden.dtype:
        raise TypeError(
            f"weight must have the dtype of hidden ({hidden.dtype}), got {weight.dtype}; "
            f"pass hidden.to(weight.dtype), or call inside torch.autocast"
        )
