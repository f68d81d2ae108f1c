"""Memory that a training on a CPU frees: kept for the next step, given back between phases."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_MAX = 128 * 1024, 65536
NEVER = -1  # the largest size there is
_depth = 0  # blocks within blocks: the outermost one puts things back


@contextmanager
def freed_memory_kept(wanted: bool = True) -> Iterator[bool]:
    """Within the block, memory that is freed stays with the process instead of going back to the system.

    glibc gives every large tensor pages of its own and returns them when it dies, so that each step of a training
    takes, clears and maps its gigabytes anew: a tenth of a step of ours on a CPU, half of one that holds full logits.
    Afterwards the defaults are back and what is free has been returned. A C library without `mallopt` (musl, macOS,
    Windows) is left alone.

    Args:
        wanted: False does nothing.

    Yields:
        Whether the setting took effect.
    """
    set_option = _c_function("mallopt") if wanted else None
    if set_option is None:
        yield False
        return
    global _depth
    taken = bool(set_option(M_MMAP_MAX, 0)) and bool(set_option(M_TRIM_THRESHOLD, NEVER))
    _depth += 1
    try:
        yield taken
    finally:
        _depth -= 1
        if _depth == 0:
            set_option(M_MMAP_MAX, DEFAULT_MMAP_MAX)
            set_option(M_TRIM_THRESHOLD, DEFAULT_TRIM_THRESHOLD)
            release_freed_memory()


def release_freed_memory() -> None:
    """Let the C library return freed memory to the system (glibc's `malloc_trim`); does nothing elsewhere.

    Generation leaves a heap in pieces that training cannot use, and training one that generation cannot: without this
    the peak of a loop over both is near their sum instead of the larger of the two.
    """
    trim = _c_function("malloc_trim")
    if trim is not None:
        trim(0)


@functools.cache
def _c_function(name: str) -> Any:
    """A function of this process's C library; None where it has none of that name."""
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
