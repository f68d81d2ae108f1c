"""A user's own score of an answer: loaded by name, checked on every call, watched against the reward."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from rlsft.errors import ConfigError, DataError
from rlsft.evaluation.records import Generation

KpiFunction = Callable[[str, str, str | None], float]


@dataclass(frozen=True)
class Kpi:
    """A checked `function(prompt, completion, reference | None) -> float`; more is better."""

    name: str
    function: KpiFunction

    def __call__(self, prompt: str, completion: str, reference: str | None = None) -> float:
        """The user's score.

        Raises:
            DataError: the function returned something that is not a finite number.
        """
        value: Any = self.function(prompt, completion, reference)
        if hasattr(value, "item") and getattr(value, "size", 1) == 1:
            value = value.item()  # a NumPy or torch scalar
        if isinstance(value, bool):
            value = float(value)
        if not isinstance(value, Real) or not math.isfinite(float(value)):
            raise DataError(f"the KPI {self.name} must return a finite number, got {value!r} ({type(value).__name__})")
        return float(value)


def load_kpi(spec: str) -> Kpi:
    """The function that `module:function` names; the current directory is searched first.

    Raises:
        ConfigError: the form is wrong, the module cannot be imported, or it has no such function.
    """
    module_name, separator, function_name = spec.partition(":")
    if not separator or not module_name or not function_name:
        raise ConfigError(f"kpi must read module:function, such as my_kpi:score, got {spec!r}")
    with _current_directory_first():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise ConfigError(_missing_module(module_name, error)) from error
        except Exception as error:
            raise ConfigError(f"kpi: importing {module_name!r} raised {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        public = sorted(name for name, item in vars(module).items() if callable(item) and name[0] != "_")
        found = "is not callable" if function is not None else "does not exist"
        raise ConfigError(
            f"kpi: {function_name!r} {found} in {module_name} ({getattr(module, '__file__', 'built in')}); "
            f"it has {', '.join(public) or 'no functions'}"
        )
    return Kpi(spec, function)


def score_kpi(kpi: KpiFunction, generations: Sequence[Generation]) -> list[Generation]:
    """`generations` with their `kpi` filled in, each scored against its first reference.

    Raises:
        DataError: the function raised or returned no number; the message names the row and its prompt.
    """
    checked = kpi if isinstance(kpi, Kpi) else Kpi(getattr(kpi, "__name__", repr(kpi)), kpi)
    scored = []
    for number, row in enumerate(generations, start=1):
        reference = row.references[0] if row.references else None
        try:
            value = checked(row.prompt, row.completion, reference)
        except Exception as error:
            reason = str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            raise DataError(
                f"KPI {checked.name} failed on row {number} of {len(generations)} ({row.model}, "
                f"prompt {row.prompt[-60:]!r}, answer {row.completion[:60]!r}): {reason}"
            ) from error
        scored.append(replace(row, kpi=value))
    return scored


def _missing_module(module_name: str, error: ModuleNotFoundError) -> str:
    if error.name and not (module_name == error.name or module_name.startswith(error.name + ".")):
        return f"kpi: {module_name!r} imports {error.name!r}, which is not installed"
    return (
        f"kpi: no module named {module_name!r} in {os.getcwd()} or among the installed packages; "
        f"put {module_name.replace('.', '/')}.py there or set PYTHONPATH"
    )


@contextmanager
def _current_directory_first() -> Iterator[None]:
    """Search the current directory first now and last later, so that it can shadow no package afterwards."""
    here = os.getcwd()
    was_there = here in sys.path or "" in sys.path
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)
        if not was_there:
            sys.path.append(here)
