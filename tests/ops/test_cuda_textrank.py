"""textrank's CUDA kernels, emulated: the bits of the scalar C++ core, no race, no access out of bounds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rlsft_kernels import ConvergenceError, textrank
from rlsft_kernels._backend import backend_calls
from tests.support import cuda_cases
from tests.support.closeness import assert_as_accurate_as_eager
from tests.support.cuda_emulation import compile_ptx, emulate, replace_once
from tests.support.ptx_runner import PtxError

CASES = cuda_cases.textrank_cases()
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    target = tmp_path_factory.mktemp("cuda") / "expected.npz"
    program = [sys.executable, "-m", "tests.support.cuda_cases", str(target)]
    subprocess.run(program, check=True, cwd=ROOT, env={**os.environ, "RLSFT_ISA": "scalar"})
    return dict(np.load(target))


@pytest.mark.parametrize("name", CASES)
def test_the_bits_of_the_scalar_core(
    name: str, expected: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    core = emulate(monkeypatch, 80)
    found = textrank(backend="native", **CASES[name])
    for field in found._fields:
        np.testing.assert_array_equal(np.asarray(getattr(found, field)), expected[f"{name} {field}"], err_msg=field)
    assert core.launches
    assert not core.races


@pytest.mark.parametrize("name", ["shifted float32", "dense eigenvector"])
def test_the_ptx_of_a_newer_architecture_gives_the_same_bits(
    name: str, expected: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    core = emulate(monkeypatch, 120)
    found = textrank(backend="native", **CASES[name])
    np.testing.assert_array_equal(found.scores, expected[f"{name} scores"])
    assert not core.races


@pytest.mark.parametrize("source", ["textrank", "isodata", "pagerank"])
def test_sm_90_gets_the_code_of_sm_80(source: str) -> None:
    def code(arch: int) -> str:
        return re.sub(r"(?m)^(//|\.target).*\n", "", compile_ptx(source, arch))

    assert code(80) == code(90)


def test_a_regular_batch_and_one_graph_come_back_in_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = cuda_cases.response_rows((4, 4), 6, torch.float32).reshape(2, 4, 6)
    on_cpu = textrank(embeddings=rows, backend="native")
    emulate(monkeypatch, 80)
    before = backend_calls().get(("textrank", "native"), 0)
    batch, single = textrank(embeddings=rows), textrank(embeddings=rows[0])
    assert batch.scores.shape == (2, 4)
    assert batch.n_iter.shape == (2,)
    assert single.n_iter.shape == ()
    for found, wanted in ((batch.scores, on_cpu.scores), (single.scores, on_cpu.scores[0])):
        assert_as_accurate_as_eager(found, wanted, wanted.double())
    assert backend_calls()["textrank", "native"] == before + 2, "auto must take the kernels"


def test_no_groups_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    core = emulate(monkeypatch, 80)
    found = textrank(embeddings=torch.empty(0, 3), groups=torch.tensor([0]))
    assert found.scores.shape == (0,)
    assert found.n_iter.shape == (0,)
    assert not core.launches


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_is_named(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    emulate(monkeypatch, 80)
    rows = cuda_cases.response_rows((3, 5), 6, torch.float32)
    rows[6, 2] = value
    with pytest.raises(ValueError, match=r"embeddings\[6\] contains (nan|inf) \(group 1, row 3\)"):
        textrank(embeddings=rows, groups=torch.tensor([0, 3, 8]))
    graph = torch.rand(4, 4)
    graph[2, 1] = -value
    with pytest.raises(ValueError, match=r"similarity\[2, 1\]"):
        textrank(graph)


def test_negative_edges_and_overflow_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    emulate(monkeypatch, 80)
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [1.0, 1.0]])
    with pytest.raises(ValueError, match="edge='cosine' gives the negative weight"):
        textrank(embeddings=rows, edge="cosine")
    with pytest.raises(ValueError, match="sums overflow"):
        textrank(torch.full((3, 3), 1e308, dtype=torch.float64), form="eigenvector")


def test_non_convergence_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    emulate(monkeypatch, 80)
    rows = cuda_cases.response_rows((9,), 6, torch.float32)
    with pytest.raises(ConvergenceError, match="n_iter = 2 sweeps"):
        textrank(embeddings=rows, edge="relu_cosine", max_iter=2)


def test_a_large_group_is_refused_by_name_and_left_to_the_reference_by_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    core = emulate(monkeypatch, 80)
    rows = torch.randn(257, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="up to 256 rows, got 257; use backend='reference'"):
        textrank(embeddings=rows, backend="native")
    assert textrank(embeddings=rows, max_iter=3, on_nonconvergence="ignore").scores.shape == (257,)
    assert not core.launches


@pytest.mark.parametrize(
    ("find", "put"),
    [
        (r"shfl\.sync\.bfly\.b32\s+(%r\d+\|%p\d+, %r\d+), %r\d+", r"shfl.sync.bfly.b32 \1, 1"),
        (r"add\.rn\.f64", "sub.rn.f64"),
        (r"mul\.rn\.f32", "add.rn.f32"),
    ],
    ids=["a shuffle from another lane", "a sum turned around", "a product turned into a sum"],
)
def test_planted_errors_change_the_bits(
    find: str, put: str, expected: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def patch(ptx: str) -> str:
        return re.sub(find, put, ptx)

    emulate(monkeypatch, 80, patch=patch)
    found = textrank(backend="native", **CASES["shifted float32"])
    assert not np.array_equal(found.scores, expected["shifted float32 scores"], equal_nan=True)


def test_dropped_barriers_are_races(monkeypatch: pytest.MonkeyPatch) -> None:
    core = emulate(monkeypatch, 80, patch=lambda ptx: re.sub(r"bar\.sync\s+0;", "", ptx))
    textrank(backend="native", **CASES["shifted float32"])
    assert core.races


def test_one_row_too_many_is_out_of_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    later = replace_once(
        r"(shl\.b64\s+%rd\d+, %rd\d+, 2;\s+add\.s64\s+(%rd\d+), %rd\d+, %rd\d+;)(\s+ld\.global\.f32)",
        r"\1 add.s64 \2, \2, 100000;\3",
    )
    emulate(monkeypatch, 80, patch=later)
    with pytest.raises(PtxError, match="outside of every buffer"):
        textrank(backend="native", **CASES["shifted float32"])
