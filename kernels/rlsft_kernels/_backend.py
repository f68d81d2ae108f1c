"""Which backend an op runs on, why, and what this installation can do at all."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

Backend = Literal["auto", "triton", "native", "reference"]
BACKENDS: tuple[str, ...] = ("auto", "triton", "native", "reference")

# backend -> device type -> dtype names, e.g. {"native": {"cpu": ("float32", "float64")}}; the reference needs no entry
Supported = Mapping[str, Mapping[str, Collection[str]]]

BUILD_INFO = Path(__file__).with_name("_build_info.json")
REINSTALL = "pip install --no-build-isolation -e . (or pip install rlsft) with cmake and a C++17 compiler on PATH"

_calls: Counter[tuple[str, str]] = Counter()
_said: set[str] = set()


def choose_backend(
    op: str,
    requested: str,
    *,
    device_type: str,
    dtype: torch.dtype | np.dtype[Any] | str,
    supported: Supported,
) -> Backend:
    """The backend that `op` runs on, never "auto".

    "auto" takes triton on a GPU and native on the CPU where the op has them for this device and dtype, and otherwise
    the reference; when the op has one but this installation lacks it, that is said once in a RuntimeWarning.

    Args:
        op: name of the public function, for messages.
        requested: what the caller passed as `backend=`.
        device_type: "cpu" or "cuda".
        dtype: the input's dtype.
        supported: what the op implements, backend -> device type -> dtype names.

    Raises:
        ValueError: `requested` is not a backend, or the op has no such backend for this device and dtype.
        RuntimeError: the backend was asked for by name and is missing in this installation.
    """
    chosen, why = _resolve(op, requested, device_type, dtype_name(dtype), supported)
    _calls[op, chosen] += 1
    if os.environ.get("RLSFT_LOG_BACKEND") == "1":
        _say_once(f"[rlsft] {op}: {chosen} backend for {dtype_name(dtype)} on {device_type} ({why})")
    return chosen  # type: ignore[return-value]


def resolve_backend(
    op: str,
    requested: str,
    *,
    device_type: str,
    dtype: torch.dtype | np.dtype[Any] | str,
    supported: Supported,
) -> str:
    """What `choose_backend` would choose, without counting a call."""
    return _resolve(op, requested, device_type, dtype_name(dtype), supported)[0]


def _resolve(op: str, requested: str, device_type: str, name: str, supported: Supported) -> tuple[str, str]:
    if requested not in BACKENDS:
        raise ValueError(f"{op}: backend must be one of {', '.join(BACKENDS)}, got {requested!r}")
    if requested == "auto":
        return _choose_auto(op, device_type, name, supported)
    _require_usable(op, requested, device_type, name, supported)
    return requested, "asked for by name"


def _choose_auto(op: str, device_type: str, name: str, supported: Supported) -> tuple[str, str]:
    chosen, why, missing = explain_auto(device_type, name, supported)
    if missing is not None:
        reason = backend_status(missing, device_type)[1]
        _warn_once(f"{op} runs on its slower reference because {missing} is not available: {reason}")
    return chosen, f"auto: {why}"


def explain_auto(device_type: str, name: str, supported: Supported) -> tuple[str, str, str | None]:
    """(backend that "auto" takes, why, the backend that the op has for this input but this installation lacks)."""
    missing = None
    for candidate in ("triton", "native"):
        if name not in supported.get(candidate, {}).get(device_type, ()):
            continue
        if backend_status(candidate, device_type)[0]:
            return candidate, f"the fastest for {device_type}", None
        missing = candidate
    if missing is None:
        return "reference", "the op has no faster backend for this device and dtype", None
    return "reference", f"{missing} is missing: {backend_status(missing, device_type)[1]}", missing


def _require_usable(op: str, requested: str, device_type: str, name: str, supported: Supported) -> None:
    if requested == "reference":
        return
    takes = supported.get(requested, {})
    if name not in takes.get(device_type, ()):
        offers = "; ".join(f"{', '.join(dtypes)} on {device}" for device, dtypes in takes.items())
        raise ValueError(
            f"{op}: backend={requested!r} takes {offers or 'nothing (the op has no such backend)'}, "
            f"got {name} on {device_type}; use backend='auto'"
        )
    available, reason = backend_status(requested, device_type)
    if not available:
        raise RuntimeError(f"{op}: backend={requested!r} was asked for but is not available: {reason}")


def backend_status(backend: str, device_type: str = "cpu") -> tuple[bool, str]:
    """(available, reason) of one backend in this installation, for tensors on this kind of device."""
    if backend == "native":
        return native_cuda_status() if device_type == "cuda" else native_status()
    if backend == "triton":
        return triton_status()
    return backend == "reference", "plain PyTorch or NumPy"


@functools.cache
def native_status() -> tuple[bool, str]:
    """(available, reason): whether the compiled core `_C` can be loaded, and why not."""
    try:
        importlib.import_module("rlsft_kernels._C")
    except ImportError as error:
        return False, _why_native_is_missing(error)
    return True, "the compiled core is present"


@functools.cache
def native_cuda_status() -> tuple[bool, str]:
    """(available, reason): whether the compiled core has CUDA kernels, and why not."""
    available, reason = native_status()
    if not available:
        return False, reason
    core = importlib.import_module("rlsft_kernels._C")
    facts = core.build_info()["cuda"]
    if core.has_cuda():
        return True, facts
    return False, f"the CUDA kernels of the core were {facts}; to build them put nvcc on PATH and {REINSTALL}"


def _why_native_is_missing(error: ImportError) -> str:
    remedy = f"to build it: {REINSTALL}"
    try:
        info = json.loads(BUILD_INFO.read_text())
    except (OSError, ValueError):
        return f"rlsft_kernels._C was never built here ({error}); {remedy}"
    if info.get("native"):
        return f"rlsft_kernels._C was built but cannot be loaded ({error}); {remedy}"
    return f"rlsft_kernels._C was not built: {info.get('reason')}; {remedy}"


@functools.cache
def triton_status() -> tuple[bool, str]:
    """(available, reason): triton is installed and has a GPU to run on, or its interpreter is switched on."""
    if importlib.util.find_spec("triton") is None:
        return False, "triton is not installed (pip install 'rlsft[gpu]')"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return True, "triton's interpreter (TRITON_INTERPRET=1)"
    if not torch.cuda.is_available():
        return False, "triton is installed but torch sees no GPU"
    return True, "triton and a GPU are present"


def dtype_name(dtype: torch.dtype | np.dtype[Any] | str) -> str:
    """ "float32" for torch.float32, np.dtype("float32") and "float32" alike."""
    return str(dtype).removeprefix("torch.")


def backend_calls() -> dict[tuple[str, str], int]:
    """How often each (op, backend) was chosen in this process: lets a test prove that a kernel really ran."""
    return dict(_calls)


def doctor_report() -> dict[str, Any]:
    """Facts about this installation, as plain values: `rlsft doctor` prints them."""
    native, native_reason = native_status()
    triton, triton_reason = triton_status()
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu",
        "native": native,
        "native_reason": native_reason,
        "triton": triton,
        "triton_reason": triton_reason,
        "triton_version": _version_of("triton"),
    }
    return report | (_native_facts() if native else {})


def _native_facts() -> dict[str, Any]:
    core = importlib.import_module("rlsft_kernels._C")
    return {
        "native_path": core.__file__,
        "native_compiler": core.build_info()["compiler"],
        "native_flags": core.build_info()["flags"],
        "native_isa": core.cpu_isa(),
        "cuda": core.build_info()["cuda"],
    }


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _warn_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)


def _say_once(line: str) -> None:
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr)
