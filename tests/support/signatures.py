"""The public surface as text, so that a changed name, argument or default shows up in a diff."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any


def public_signatures() -> dict[str, str]:
    """`{qualified name: signature}` of everything in `__all__` of `rlsft` and `rlsft_kernels`."""
    import rlsft
    import rlsft_kernels

    found: dict[str, str] = {}
    for module in (rlsft_kernels, rlsft):
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, str):
                continue
            found[f"{module.__name__}.{name}"] = _signature(value)
    return found


def _signature(value: Any) -> str:
    if dataclasses.is_dataclass(value) and inspect.isclass(value):
        own = [f for f in dataclasses.fields(value) if f.name in _own_fields(value)]
        return "config(" + ", ".join(f"{f.name}={_default(f)}" for f in own) + ")"
    if inspect.isclass(value) and issubclass(value, BaseException):
        return "error(" + ", ".join(base.__name__ for base in value.__mro__[1:-2]) + ")"
    try:
        return str(inspect.signature(value))
    except (TypeError, ValueError):
        return type(value).__name__


def _own_fields(cls: type) -> set[str]:
    """Fields that rlsft's own classes declare; those of transformers change with its version."""
    names: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.startswith("rlsft"):
            names |= set(inspect.get_annotations(base))
    return names


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    return "factory" if field.default_factory is not dataclasses.MISSING else "required"
