"""The CUDA part of the build: in or out, it loads without a driver, says what it is, and fits its resource budgets."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from rlsft_kernels import _C, _backend
from rlsft_kernels._backend import choose_backend, doctor_report, native_cuda_status
from tests.support.cuda_emulation import ROOT

SUPPORTED = {"native": {"cpu": ("float32",), "cuda": ("float32",)}}
BUDGETS = json.loads((Path(__file__).parent / "cuda_budgets.json").read_text())  # kernel -> arch -> registers, shared
TEXTRANK = {
    "is_double": False,
    "d": 4,
    "groups": 1,
    "largest": 3,
    "edge": 1,
    "damping": 0.85,
    "tol": 1e-8,
    "max_iter": 5,
    "form": 0,
    "method": 0,
} | dict.fromkeys(("values", "offsets", "block_offsets", "teleport", "start", "edges", "matrix"), 0)
TEXTRANK |= dict.fromkeys(("scores", "n_iter", "residual", "stream"), 0)
with_cuda = pytest.mark.skipif(not _C.has_cuda(), reason=f"CUDA kernels {_C.build_info()['cuda']}")
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="null pointers must not reach a GPU")


def test_the_doctor_says_in_one_line_whether_the_kernels_are_there() -> None:
    line = doctor_report()["cuda"]
    assert re.fullmatch(r"built with CUDA \d+\.\d+ \(sm_80, 90(, 100, 120)?\)|left out: .+", line)
    assert line.startswith("built") == _C.has_cuda() == native_cuda_status()[0]


def test_a_build_without_them_falls_back_with_a_word_and_refuses_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Core:
        @staticmethod
        def has_cuda() -> bool:
            return False

        @staticmethod
        def build_info() -> dict[str, str]:
            return {"cuda": "left out: nvcc was not found at build time"}

    native_cuda_status.cache_clear()
    monkeypatch.setattr(_backend.importlib, "import_module", lambda name: Core)
    monkeypatch.setattr(_backend, "_said", set())
    choice: dict[str, Any] = {"device_type": "cuda", "dtype": "float32", "supported": SUPPORTED}
    try:
        with pytest.warns(RuntimeWarning, match="nvcc was not found at build time; to build them put nvcc on PATH"):
            assert choose_backend("op", "auto", **choice) == "reference"
        with pytest.raises(RuntimeError, match="left out: nvcc was not found"):
            choose_backend("op", "native", **choice)
    finally:
        native_cuda_status.cache_clear()


@with_cuda
@without_gpu
def test_without_a_driver_a_launch_fails_with_the_runtimes_words() -> None:
    with pytest.raises(RuntimeError, match=r"textrank_small failed: .+ \(cudaError\w+\)"):
        _C.cuda_textrank(**TEXTRANK)


@with_cuda
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"largest": 257}, "up to 256 rows, got 257"),
        ({"edge": 3}, "edge must be"),
        ({"form": 2}, "form must be"),
        ({"d": 2**31}, "columns"),
    ],
)
def test_limits_are_checked_before_anything_is_queued(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _C.cuda_textrank(**(TEXTRANK | change))


def test_a_build_without_cuda_has_the_same_functions() -> None:
    if _C.has_cuda():
        pytest.skip("this build has the kernels")
    with pytest.raises(RuntimeError, match="left out"):
        _C.cuda_textrank(**TEXTRANK)


@pytest.mark.parametrize(
    ("module", "name", "source"),
    [
        ("textrank", "MOST_ROWS", "textrank.hpp:kMaxGroup"),
        ("textrank", "SHARED_ROWS", "textrank.hpp:kSmallGroup"),
        ("pagerank", "SEGMENT_EDGES", "pagerank.hpp:kSegmentEdges"),
        ("pagerank", "UPDATE_THREADS", "pagerank.hpp:kUpdateThreads"),
        ("isodata", "MOST_ROWS", "isodata.hpp:kMostRows"),
        ("isodata", "MOST_CLUSTERS", "isodata.hpp:kMostClusters"),
    ],
)
def test_python_knows_the_limits_of_the_kernels(module: str, name: str, source: str) -> None:
    header, constant = source.split(":")
    text = (ROOT / "csrc" / "include" / "rlsft" / "cuda" / header).read_text()
    found = re.search(rf"{constant} = (\d+);", text)
    assert found is not None
    assert getattr(importlib.import_module(f"rlsft_kernels.{module}.cuda_path"), name) == int(found[1])


def _resources() -> dict[str, dict[str, dict[str, int]]]:
    """kernel -> architecture -> what ptxas gave it, read from the built module."""
    triton = importlib.util.find_spec("triton")
    if triton is None or triton.origin is None:
        pytest.skip("cuobjdump comes with triton, which is not installed")
    cuobjdump = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    text = subprocess.run([cuobjdump, "-res-usage", _C.__file__], capture_output=True, text=True, check=True).stdout
    found: dict[str, dict[str, dict[str, int]]] = {}
    arch = ""
    for line in text.splitlines():
        if "arch = " in line:
            arch = line.split("= ")[1].strip()
        if kernel := re.search(r"Function (\w+):", line):
            name = kernel[1]
        if "REG:" in line:
            numbers = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", line)}
            found.setdefault(name, {})[arch] = numbers
    return found


@with_cuda
def test_every_kernel_is_inside_its_budget_on_every_architecture() -> None:
    found = _resources()
    assert set(found) == set(BUDGETS), "a kernel without a budget, or a budget without a kernel"
    for kernel, architectures in found.items():
        for arch, used in architectures.items():
            where = f"{kernel} on {arch}"
            assert used["STACK"] == used["LOCAL"] == 0, f"{where} spills"
            assert used["REG"] <= BUDGETS[kernel]["registers"], where
            assert used["SHARED"] <= BUDGETS[kernel]["shared"], where


def test_the_budgets_leave_room_for_several_blocks() -> None:
    """Of the 64 Ki registers and 100 KiB (sm_120) of shared memory of a multiprocessor."""
    threads = {"small": 128, "wide": 256, "isodata": 128, "strengths": 128}
    for kernel, budget in BUDGETS.items():
        block = next((count for part, count in threads.items() if part in kernel), 256)
        assert min(65536 // (budget["registers"] * block), 100 * 1024 // max(budget["shared"], 1)) >= 1
        assert budget["registers"] * block <= 65536
