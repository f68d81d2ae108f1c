"""pagerank's CUDA kernels, emulated: the solution within the bound of its residual, without races."""

from __future__ import annotations

import importlib
import re
from typing import Any

import numpy as np
import pytest
import torch

from rlsft_kernels import ConvergenceError, pagerank
from rlsft_kernels.pagerank.result import PagerankResult
from tests.support.cuda_emulation import emulate
from tests.support.ptx_runner import PtxError

TOL, DAMPING = 1e-11, 0.85


def graph_of(n: int, edges: int, dtype: torch.dtype, *, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    """COO with repeated edges, self loops, dangling nodes and, in larger graphs, a hub of several segments."""
    draw = np.random.default_rng(seed)
    ends = draw.integers(0, n, (2, edges))
    ends[1, : edges // 2 if n >= 300 else 0] = 3
    weights = torch.tensor((draw.random(edges) + 0.1) * scale, dtype=dtype)
    return torch.sparse_coo_tensor(torch.tensor(ends), weights, (n, n), check_invariants=True)


def solution(graph: torch.Tensor, teleport: np.ndarray | None, dangling: np.ndarray | None) -> np.ndarray:
    """By a dense linear solve in float64."""
    weights = graph.to_dense().double().numpy()
    n = len(weights)
    v = np.full(n, 1 / n) if teleport is None else teleport / teleport.sum()
    d = v if dangling is None else dangling / dangling.sum()
    strength = (weights / max(weights.max(), 1)).sum(axis=1, keepdims=True)
    safe = np.where(strength > 0, strength, 1)
    transition = np.where(strength > 0, weights / max(weights.max(), 1) / safe, d)
    return np.linalg.solve(np.eye(n) - DAMPING * transition.T, (1 - DAMPING) * v)


def assert_solves(found: PagerankResult, truth: np.ndarray) -> None:
    eps = torch.finfo(found.scores.dtype).eps
    allowed = DAMPING / (1 - DAMPING) * found.residual + 4 * eps  # scores and solution, which sum to 1, are rounded
    assert found.residual < TOL
    assert np.abs(found.scores.double().numpy() - truth).sum() <= allowed


CASES: dict[str, dict[str, Any]] = {
    "float32": {"graph": graph_of(300, 2000, torch.float32)},
    "float64, sums beyond range": {"graph": graph_of(5, 9, torch.float64, scale=1e308 / 5)},
    "one node": {"graph": graph_of(1, 1, torch.float32)},
    "no edges": {"graph": graph_of(7, 0, torch.float64)},
    "teleport": {"graph": graph_of(40, 90, torch.float64), "personalization": np.arange(40.0)},
    "dangling, start": {
        "graph": graph_of(30, 40, torch.float32, seed=2),
        "dangling": np.arange(30.0),
        "nstart": np.arange(30.0)[::-1].copy(),
    },
}


@pytest.mark.parametrize("name", CASES)
def test_the_solution(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = CASES[name]
    truth = solution(arguments["graph"], arguments.get("personalization"), arguments.get("dangling"))
    core = emulate(monkeypatch, 80)
    found = pagerank(tol=TOL, return_info=True, backend="native", **arguments)
    assert found.scores.dtype == arguments["graph"].dtype
    assert_solves(found, truth)
    assert core.launches
    assert not core.races


@pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR support beta
@pytest.mark.parametrize("kind", ["csr", "csc", "dense", "tuple", "unweighted"])
def test_every_kind_of_graph(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    coo = graph_of(25, 60, torch.float32).coalesce()
    csr = coo.to_sparse_csr()
    graph: Any = {
        "csr": csr,
        "csc": coo.to_sparse_csc(),
        "dense": coo.to_dense(),
        "tuple": (csr.crow_indices(), csr.col_indices(), csr.values()),
        "unweighted": (csr.crow_indices().int(), csr.col_indices().int()),
    }[kind]
    ones = torch.sparse_csr_tensor(csr.crow_indices(), csr.col_indices(), torch.ones(len(csr.values())), (25, 25))
    truth = solution(ones if kind == "unweighted" else csr, None, None)
    emulate(monkeypatch, 80)
    found = pagerank(graph, tol=TOL, return_info=True)
    assert_solves(found, truth)
    assert found.scores.dtype == (torch.float64 if kind == "unweighted" else torch.float32)


def test_the_ptx_of_a_newer_architecture_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(300, 1200, torch.float64)
    scores = []
    for arch in (80, 120):
        core = emulate(monkeypatch, arch)
        scores.append(pagerank(graph, tol=1e-6))
        assert not core.races
    assert torch.equal(*scores)


@pytest.mark.parametrize("look", [1, 3])
def test_how_often_the_host_looks_changes_no_bit(look: int, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(30, 90, torch.float64)
    emulate(monkeypatch, 80)
    often = pagerank(graph, tol=1e-6, return_info=True)
    monkeypatch.setattr(importlib.import_module("rlsft_kernels.pagerank.cuda_path"), "SWEEPS_A_LOOK", look)
    seldom = pagerank(graph, tol=1e-6, return_info=True)
    assert torch.equal(often.scores, seldom.scores)
    assert often[1:] == seldom[1:]


def test_the_cap_on_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    emulate(monkeypatch, 80)
    with pytest.raises(ConvergenceError, match="n_iter = 3 sweeps"):
        pagerank(graph_of(30, 90, torch.float32), max_iter=3)


def test_what_is_wrong_with_a_graph_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    emulate(monkeypatch, 80)
    pointers, ends = torch.tensor([0, 1, 2]), torch.tensor([1, 0])
    with pytest.raises(ValueError, match="weight of edge 1 -> 0"):
        pagerank((pointers, ends, torch.tensor([1.0, float("nan")])))
    with pytest.raises(ValueError, match="index 2 of entry 1"):
        pagerank((pointers, torch.tensor([1, 2])))
    with pytest.raises(ValueError, match="indptr must rise"):
        pagerank((torch.tensor([0, 2, 1]), ends))
    with pytest.raises(TypeError, match="float16"):
        pagerank((pointers, ends, torch.ones(2, dtype=torch.float16)))
    with pytest.raises(ValueError, match="square"):
        pagerank(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("find", "put"),
    [
        (r"mul\.rn\.f64", "add.rn.f64"),
        (r"shfl\.sync\.bfly\.b32\s+(%r\d+\|%p\d+, %r\d+), %r\d+", r"shfl.sync.bfly.b32 \1, 1"),
    ],
    ids=["a sum for a product", "a shuffle from another lane"],
)
def test_planted_errors_miss_the_solution(find: str, put: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(40, 90, torch.float64)
    truth = solution(graph, None, None)
    emulate(monkeypatch, 80, patch=lambda ptx: re.sub(find, put, ptx))
    found = pagerank(graph, tol=TOL, max_iter=50, return_info=True, on_nonconvergence="ignore")
    with pytest.raises(AssertionError):
        assert_solves(found, truth)


def test_dropped_barriers_are_races(monkeypatch: pytest.MonkeyPatch) -> None:
    core = emulate(monkeypatch, 80, patch=lambda ptx: re.sub(r"bar\.sync\s+0;", "", ptx))
    pagerank(graph_of(30, 90, torch.float32), max_iter=2, on_nonconvergence="ignore")
    assert core.races


def test_an_edge_too_many_is_out_of_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def patch(ptx: str) -> str:  # every 64-bit "below" becomes "at most": the loop over the edges runs once more
        return re.sub(r"setp\.lt\.s64", "setp.le.s64", re.sub(r"setp\.ge\.s64", "setp.gt.s64", ptx))

    emulate(monkeypatch, 80, patch=patch)
    with pytest.raises(PtxError, match="outside of every buffer"):
        pagerank(graph_of(30, 90, torch.float32))
