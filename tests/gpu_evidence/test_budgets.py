"""What a budget excuses and what it does not, on made-up figures."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gpu_evidence.archs import ARCHS, blocks_per_multiprocessor
from tests.gpu_evidence.budgets import REGISTER_SLACK, broken, differences


def figures(**changes: Any) -> dict[str, Any]:
    held = {"registers": 40, "spills": 0, "shared": 1024, "blocks_per_sm": 8, "narrow_loop_loads": 0}
    return held | {"tensor_core": True} | changes


def test_equal_and_better_figures_pass() -> None:
    assert differences({"k": figures()}, {"k": figures()}) == []
    assert differences({"k": figures()}, {"k": figures(registers=32, shared=0, blocks_per_sm=16)}) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("registers", 41 + REGISTER_SLACK), ("shared", 1025), ("blocks_per_sm", 7), ("tensor_core", False), ("spills", 1)],
)
def test_worse_figures_are_named(key: str, value: Any) -> None:
    (line,) = differences({"k": figures()}, {"k": figures(**{key: value})})
    assert line.startswith(f"! k: {key} ")
    assert line.endswith(f"-> {value}")


def test_launches_that_come_or_go_are_named() -> None:
    assert differences({"old": figures()}, {"new": figures()}) == [
        "- old: launched no more", "+ new: not in the budget",
    ]  # fmt: skip


def test_what_no_budget_excuses() -> None:
    assert broken(figures(), tensor_core=True) == []
    assert broken(figures(spills=3), tensor_core=False) == ["3 spill instructions"]
    assert len(broken(figures(narrow_loop_loads=2, tensor_core=False), tensor_core=True)) == 2


def test_occupancy_by_each_limit() -> None:
    hopper = ARCHS["sm_90"]
    assert blocks_per_multiprocessor(hopper, 32, 0, 1024) == 2  # warps
    assert blocks_per_multiprocessor(hopper, 255, 0, 128) == 2  # registers
    assert blocks_per_multiprocessor(hopper, 32, 100_000, 128) == 2  # shared memory
    assert blocks_per_multiprocessor(hopper, 16, 0, 32) == 32  # blocks
