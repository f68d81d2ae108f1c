"""A CUDA C++ kernel through nvcc's PTX: right numbers, and its broken versions caught."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed (pip install 'rlsft[test]')")

from tests.gpu_evidence.archs import EMULATED
from tests.gpu_evidence.mutations import MUTATIONS
from tests.gpu_evidence.ptx.machine import Machine
from tests.gpu_evidence.ptx.types import EmulatorError
from tests.gpu_evidence.run_cuda import compile_ptx, find_nvcc, run
from tests.gpu_evidence.run_ptx import Mutation

SOURCE = Path(__file__).with_name("sample_sum.cu")
pytestmark = pytest.mark.skipif(find_nvcc() is None, reason="nvcc was not found on PATH or in CUDA_HOME")


@cache
def _ptx(arch: str) -> str:
    return compile_ptx(SOURCE, arch)


def _sum(arch: str, n: int, mutation: Mutation | None = None) -> tuple[torch.Tensor, torch.Tensor, Machine]:
    """(result, what is right, machine)."""
    torch.manual_seed(0)
    x, out = torch.randn(n, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    arguments = [x, out, n]
    machine = run(_ptx(arch), "sample_sum", (1, 1, 1), (128, 1, 1), arguments, mutation=mutation)
    return out, x.square().sum()[None], machine


@pytest.mark.parametrize("arch", EMULATED)
@pytest.mark.parametrize("n", [1, 127, 300])
def test_the_sum_is_right_and_no_warps_race(arch: str, n: int) -> None:
    actual, expected, machine = _sum(arch, n)
    torch.testing.assert_close(actual, expected, rtol=1e-14, atol=0)
    assert machine.race_reports == []


def test_dropped_barriers_are_a_race() -> None:
    _, _, machine = _sum("sm_80", 300, MUTATIONS["barriers dropped"])
    assert machine.race_reports


def test_one_element_too_many_is_out_of_bounds() -> None:
    x, out = torch.randn(300, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    with pytest.raises(EmulatorError, match="out-of-bounds load"):
        run(_ptx("sm_80"), "sample_sum", (1, 1, 1), (128, 1, 1), [x, out, 301])


def test_a_missing_argument_raises() -> None:
    with pytest.raises(ValueError, match=r"takes 3 arguments .* got 1"):
        run(_ptx("sm_80"), "sample_sum", (1, 1, 1), (128, 1, 1), [torch.zeros(1)])
