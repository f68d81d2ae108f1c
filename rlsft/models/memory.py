"""Memory that the process holds but nobody uses, given back between phases of different shape."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


def release_freed_memory() -> None:
    """Let the C library return freed memory to the system (glibc's `malloc_trim`); does nothing elsewhere.

    Generation leaves a heap in pieces that training cannot use, and training one that generation cannot: without this
    the peak of a loop over both is near their sum instead of the larger of the two.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        return ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return None
