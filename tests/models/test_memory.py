"""Freed memory that stays with the process, counted by the pages that the system has to hand out."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

from rlsft.models import freed_memory_kept

HAS_MALLOPT = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")
# in a process of its own: what earlier tests left of the heap decides where a tensor finds room
SCRIPT = """
import json, resource
from pathlib import Path
import torch
from rlsft.models import freed_memory_kept

def new_pages_of_a_second_tensor():
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24).sum()  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

found = {"outside": new_pages_of_a_second_tensor()}
before = resident()
with freed_memory_kept() as found["taken"]:
    with freed_memory_kept():
        pass  # a trainer within a chain of trainers
    found["inside"] = new_pages_of_a_second_tensor()
    found["resident inside"] = resident() - before
found["resident behind"] = resident() - before
print(json.dumps(found | {"page": resource.getpagesize()}))
"""


@pytest.mark.skipif(not HAS_MALLOPT, reason="the C library has no mallopt (not glibc)")
def test_a_freed_tensor_costs_no_new_pages_within_the_block_and_goes_back_behind_it() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    pages = 2**26 // found["page"]
    assert found["taken"]
    assert found["outside"] > pages // 2
    assert found["inside"] < pages // 10
    assert found["resident inside"] > 48 * 2**20
    assert found["resident behind"] < 16 * 2**20


def test_not_wanted_changes_nothing() -> None:
    with freed_memory_kept(False) as taken:
        assert not taken
