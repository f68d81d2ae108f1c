"""Freed memory that stays with the process, counted by the pages that the system has to hand out."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import pytest
import torch

from rlsft.models import freed_memory_kept

PAGES = 64 * 2**20 // resource.getpagesize()  # of the tensor below
HAS_MALLOPT = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")


def pages_of_a_second_tensor() -> int:
    """How many pages a tensor of 64 MiB takes from the system when one like it has just been freed."""
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24).sum()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_bytes() -> int:
    """What of this process lies in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not HAS_MALLOPT, reason="the C library has no mallopt (not glibc)")
def test_a_freed_tensor_costs_no_new_pages_within_the_block_and_goes_back_behind_it() -> None:
    before = resident_bytes()
    with freed_memory_kept() as taken:
        assert taken
        with freed_memory_kept():
            pass  # a trainer within a chain of trainers
        assert pages_of_a_second_tensor() < PAGES // 10
        assert resident_bytes() - before > 48 * 2**20
    assert resident_bytes() - before < 16 * 2**20


def test_not_wanted_changes_nothing() -> None:
    with freed_memory_kept(False) as taken:
        assert not taken
