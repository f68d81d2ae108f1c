"""Memory that a training on a CPU frees and takes again in every step."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

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
    library = ctypes.CDLL(None) if wanted and os.name == "posix" else None
    set_option, give_back = getattr(library, "mallopt", None), getattr(library, "malloc_trim", None)
    if set_option is None or give_back is None:
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
            give_back(0)
