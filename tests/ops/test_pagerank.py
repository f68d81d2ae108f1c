"""pagerank: values against a dense solve, every kind of graph, options, and errors that name the place."""

from __future__ import annotations

import sys
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch

from rlsft_kernels import ConvergenceError, PagerankResult, pagerank
from rlsft_kernels._backend import backend_calls
from rlsft_kernels.pagerank.result import _error_class
from tests.support.sparse_graphs import hub_graph, random_sparse, solved

BACKENDS = ("native", "reference")
METHODS = ("gauss_seidel", "jacobi")
TIGHT: dict[str, Any] = {"tol": 1e-13, "max_iter": 2000}

# why each shape is there
SHAPES = {
    "one-slice": (16, 60),
    "one-past-a-slice": (17, 60),
    "one-node-missing": (15, 60),
    "fewer-edges-than-nodes": (100, 40),
    "dense-rows": (60, 3000),
    "many-slices": (500, 4000),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_scores_solve_the_linear_system(shape: tuple[int, int], weighted: bool, method: str, backend: Any) -> None:
    graph = random_sparse(*shape, seed=1, weighted=weighted)
    scores = pagerank(graph, method=method, backend=backend, **TIGHT)
    np.testing.assert_allclose(scores, solved(graph), atol=1e-13)
    assert abs(scores.sum() - 1) < 1e-14


@pytest.mark.usefixtures("nan_in_fresh_memory")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_hubs_longer_than_a_segment(dtype: Any, method: str) -> None:
    graph = hub_graph(20_000, seed=2).astype(dtype)
    assert graph.sum(0).max() > 4000  # some in-degree is above 8192 edges
    ours = pagerank(graph, method=method, **TIGHT)
    theirs = pagerank(graph, backend="reference", **TIGHT)
    assert ours.dtype == dtype
    bound = 1e-12 if dtype == np.float64 else 2e-6  # float32: the rounding of the scores themselves
    assert np.abs(ours.astype(np.float64) - theirs).sum() < bound


@pytest.mark.parametrize("method", METHODS)
def test_large_graphs_pass_through_the_float32_phase(method: str) -> None:
    graph = random_sparse(200_000, 600_000, seed=3, weighted=False)
    rough = pagerank(graph, method=method, tol=1e-7, return_info=True)
    fine = pagerank(graph, method=method, tol=1e-12, return_info=True)
    truth = pagerank(graph, backend="reference", **TIGHT)
    assert np.abs(fine.scores - truth).sum() < 1e-11
    assert np.abs(rough.scores - truth).sum() < 6e-7
    assert rough.n_iter < fine.n_iter
    assert rough.residual < 1e-7
    assert fine.residual < 1e-12


def test_gauss_seidel_takes_fewer_sweeps() -> None:
    graph = random_sparse(5000, 50_000, seed=4)
    quick = pagerank(graph, method="gauss_seidel", tol=1e-10, return_info=True)
    plain = pagerank(graph, method="jacobi", tol=1e-10, return_info=True)
    assert quick.n_iter <= 0.8 * plain.n_iter


@pytest.mark.parametrize("method", METHODS)
def test_the_step_bounds_the_error(method: str) -> None:
    graph = random_sparse(400, 3000, seed=5)
    truth = solved(graph)
    for tol in (1e-3, 1e-6, 1e-9):
        found = pagerank(graph, method=method, tol=tol, return_info=True)
        assert np.abs(found.scores - truth).sum() < 0.85 / 0.15 * found.residual
        assert found.residual < tol


@pytest.mark.parametrize("method", METHODS)
def test_the_residual_is_the_l1_step(method: str) -> None:
    graph = random_sparse(400, 3000, seed=5)
    options: dict[str, Any] = {"method": method, "on_nonconvergence": "ignore", "tol": 1e-15}
    before, after = (pagerank(graph, max_iter=sweeps, return_info=True, **options) for sweeps in (7, 8))
    step = float(np.abs(after.scores - before.scores).sum())
    assert after.residual == pytest.approx(step, rel=0.02)  # scores are scaled to sum 1 after the step was taken


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("peeled", [False, True])
def test_teleport_dangling_and_start(peeled: bool, method: str, backend: Any) -> None:
    n = 120
    graph = random_sparse(n, 500, seed=6)
    if peeled:  # most edges leave nodes that no edge enters
        graph = sp.coo_array((np.ones(600), (np.arange(600) % n, 100 + np.arange(600) % 7)), shape=(n, n)).tocsr()
        graph.data += np.arange(graph.nnz) / 100
    g = np.random.default_rng(0)
    teleport, dangling, start = g.random(n), g.random(n), g.random(n)
    teleport[5:60] = 0
    found = pagerank(
        graph, personalization=teleport, dangling=dangling, nstart=start, method=method, backend=backend, **TIGHT
    )
    np.testing.assert_allclose(found, solved(graph, teleport=teleport, dangling=dangling), atol=1e-13)
    found = pagerank(graph, personalization=teleport, method=method, backend=backend, alpha=0.5, **TIGHT)
    np.testing.assert_allclose(found, solved(graph, teleport=teleport, alpha=0.5), atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_start_at_the_solution_needs_hardly_a_sweep(backend: Any) -> None:
    graph = random_sparse(300, 2000, seed=7)
    truth = pagerank(graph, **TIGHT)
    again = pagerank(graph, nstart=truth, tol=1e-9, backend=backend, return_info=True)
    assert again.n_iter <= 2 < pagerank(graph, tol=1e-9, return_info=True).n_iter


KINDS = (
    "csr_array", "csr_matrix", "csc", "coo", "coo-with-repeats", "lil", "int64-indices", "tuple", "dense", "tensor",
    "torch-coo", "torch-coo-with-repeats", "torch-csr", "torch-csc", "tensor-tuple",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR support beta, and asks about its own checks
def test_the_list_of_kinds_is_whole() -> None:
    assert tuple(graph_kinds()) == KINDS


def graph_kinds() -> dict[str, Any]:
    csr = random_sparse(40, 200, seed=8)
    coo = csr.tocoo()
    half = sp.coo_array(  # every edge twice, with half the weight
        (np.tile(coo.data / 2, 2), (np.tile(coo.row, 2), np.tile(coo.col, 2))), shape=csr.shape
    )
    tensor = torch.from_numpy(csr.toarray())
    return {
        "csr_array": csr,
        "csr_matrix": sp.csr_matrix(csr),
        "csc": csr.tocsc(),
        "coo": coo,
        "coo-with-repeats": half,
        "lil": csr.tolil(),
        "int64-indices": (csr.indptr.astype(np.int64), csr.indices.astype(np.int64), csr.data),
        "tuple": (csr.indptr, csr.indices, csr.data),
        "dense": csr.toarray(),
        "tensor": tensor,
        "torch-coo": tensor.to_sparse(),
        "torch-coo-with-repeats": torch.sparse_coo_tensor(
            torch.from_numpy(np.stack(half.coords)).long(), torch.from_numpy(half.data), (40, 40)
        ),
        "torch-csr": tensor.to_sparse_csr(),
        "torch-csc": tensor.to_sparse_csc(),
        "tensor-tuple": (torch.from_numpy(csr.indptr), torch.from_numpy(csr.indices), torch.from_numpy(csr.data)),
    }


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_graph_gives_the_same_scores(kind: str, backend: Any) -> None:
    graph = graph_kinds()[kind]
    scores = pagerank(graph, backend=backend, **TIGHT)
    wants_tensor = kind.startswith(("torch", "tensor"))
    assert isinstance(scores, torch.Tensor if wants_tensor else np.ndarray)
    np.testing.assert_allclose(np.asarray(scores), solved(random_sparse(40, 200, seed=8)), atol=1e-13)


@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph])
@pytest.mark.parametrize("backend", BACKENDS)
def test_networkx_graphs_agree_with_networkx(kind: Any, backend: Any) -> None:
    g = np.random.default_rng(9)
    graph = kind()
    graph.add_nodes_from("abcdefghijklmnopqrst")
    for u, v in g.integers(0, 18, (70, 2)):
        graph.add_edge(chr(97 + u), chr(97 + v), **({"weight": float(g.random())} if u % 3 else {}))
    cases: list[dict[str, Any]] = [
        {},
        {"weight": None},
        {"personalization": {"a": 1, "t": 3}},
        {"dangling": {"c": 2.0}, "alpha": 0.7},
        {"nstart": {"a": 1.0, "b": 2.0}, "personalization": {"a": 1, "t": 3}},
    ]
    for options in cases:
        ours = pagerank(graph, backend=backend, tol=1e-13, **options)
        theirs = nx.pagerank(graph, tol=1e-13 / 20, max_iter=1000, **options)
        assert list(ours) == list(theirs)
        assert max(abs(ours[node] - theirs[node]) for node in ours) < 1e-12
        assert all(type(score) is float for score in ours.values())


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
def test_dtypes_of_weights_and_scores(dtype: str) -> None:
    graph = random_sparse(30, 150, seed=10)
    graph.data = np.ceil(graph.data * 3)
    given = graph.astype(dtype)
    scores = pagerank(given, tol=1e-12)
    assert scores.dtype == ("float32" if dtype == "float32" else "float64")
    np.testing.assert_allclose(scores, solved(given), atol=1e-7 if dtype == "float32" else 1e-11)


def test_equal_weights_mean_no_weights() -> None:
    graph = random_sparse(300, 2000, seed=11, weighted=False)
    graph.data[:] = 1
    plain = pagerank((graph.indptr, graph.indices, None))
    for value in (1.0, 0.3, 1e300, 5e-324):
        np.testing.assert_array_equal(pagerank((graph.indptr, graph.indices, np.full(graph.nnz, value))), plain)
    np.testing.assert_array_equal(pagerank((graph.indptr, graph.indices)), plain)
    zero = pagerank((graph.indptr, graph.indices, np.zeros(graph.nnz)))
    np.testing.assert_allclose(zero, 1 / 300, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_at_the_ends_of_their_range_are_good(dtype: Any) -> None:
    weights = np.array([0.0, -0.0, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal, 1.0], dtype=dtype)
    scores = pagerank((np.array([0, 5, 5, 5, 5, 5]), np.arange(5), weights))
    assert scores.argmax() == 2
    np.testing.assert_allclose(scores[[0, 1, 3]], scores[4], rtol=1e-6)


def test_return_info_and_backends() -> None:
    graph = random_sparse(30, 150, seed=12)
    before = backend_calls().get(("pagerank", "native"), 0)
    found = pagerank(graph, return_info=True)
    assert isinstance(found, PagerankResult)
    assert type(found.n_iter) is int
    assert type(found.residual) is float
    np.testing.assert_array_equal(found.scores, pagerank(graph))
    assert backend_calls()["pagerank", "native"] == before + 2


def test_tol_per_node_is_networkx_rule() -> None:
    graph = random_sparse(1000, 8000, seed=13)
    loose = pagerank(graph, tol=1e-8, tol_per_node=True, method="jacobi", return_info=True)
    strict = pagerank(graph, tol=1e-8, method="jacobi", return_info=True)
    assert 1e-8 < loose.residual < 1e-5
    assert loose.n_iter < strict.n_iter


def test_nonconvergence_carries_the_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = random_sparse(200, 1000, seed=14)
    with pytest.raises(ConvergenceError, match=r"residual = .* >= tol = 1e-08 after n_iter = 3 sweeps") as caught:
        pagerank(graph, max_iter=3)
    assert caught.value.n_iter == 3
    assert caught.value.residual > 1e-8
    assert isinstance(caught.value, nx.PowerIterationFailedConvergence)
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ConvergenceError) as plain:
        pagerank(graph, max_iter=3, backend="reference")
    assert type(plain.value) is ConvergenceError
    assert _error_class() is ConvergenceError
    with pytest.warns(RuntimeWarning, match="did not converge"):
        pagerank(graph, max_iter=3, on_nonconvergence="warn")
    quiet = pagerank(graph, max_iter=3, on_nonconvergence="ignore", return_info=True)
    assert quiet.n_iter == 3
    assert abs(quiet.scores.sum() - 1) < 1e-12


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"alpha": 1.0}, r"alpha must be in \[0, 1\), got 1.0"),
    ({"alpha": float("nan")}, "alpha must be in"),
    ({"tol": 0.0}, "tol must be a positive number"),
    ({"max_iter": 0}, "max_iter must be >= 1"),
    ({"method": "power"}, "method must be one of 'gauss_seidel', 'jacobi', got 'power'"),
    ({"on_nonconvergence": "shout"}, "on_nonconvergence must be one of"),
    ({"threads": 0}, "threads must be >= 1"),
    ({"backend": "triton"}, "the op has no such backend"),
    ({"personalization": [1.0, 2.0]}, r"personalization must have one entry a node, \[4\], got shape \[2\]"),
    ({"personalization": [0.0] * 4}, "personalization sums to 0"),
    ({"personalization": [1, 1, -1, 1]}, r"personalization\[2\] is -1"),
    ({"nstart": [1, 1, np.nan, 1]}, r"nstart\[2\] is nan"),
    ({"dangling": {1: np.inf}}, r"dangling\[1\] is inf"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pagerank(np.ones((4, 4)), **options)


POINTERS, INDICES = np.array([0, 2, 3, 3]), np.array([1, 2, 0])
BAD_GRAPHS: list[tuple[Any, type[Exception], str]] = [
    ("a graph", TypeError, "graph must be a networkx graph, .*got str"),
    (np.ones((2, 3)), ValueError, r"square \[n, n\], got shape \[2, 3\]"),
    (np.ones((2, 2), dtype=np.float16), TypeError, "must be float32, float64, integer or bool, got float16"),
    (np.ones((2, 2), dtype=complex), TypeError, "got complex128"),
    ((POINTERS,), ValueError, "got a tuple of 1"),
    (([0, 1], [0]), TypeError, "indptr must be a NumPy array or torch tensor, got list"),
    ((POINTERS, INDICES.astype(float)), TypeError, "indices must be one-dimensional integers, got float64"),
    ((np.array([], int), INDICES), ValueError, "must be .n . 1. and start with 0, got an empty array"),
    ((POINTERS, INDICES, np.ones(2)), ValueError, "weights must have one entry for each of the 3 indices, got 2"),
    ((np.array([1, 2, 3, 3]), INDICES), ValueError, r"indptr\[0\] is 1; indptr must rise from 0 to the 3 indices"),
    ((np.array([0, 2, 1, 3]), INDICES), ValueError, r"indptr\[2\] is 1, after 2"),
    ((np.array([0, 2, 3, 4]), INDICES), ValueError, r"indptr\[3\] is 4, after 3"),
    ((np.array([0, 1, 2, 2]), INDICES), ValueError, r"indptr\[3\] is 2, after 2"),
    ((np.array([0, 9, 3, 3]), INDICES), ValueError, r"indptr\[1\] is 9, after 0"),
    ((POINTERS, np.array([1, 3, 0])), ValueError, r"index 3 of entry 1 \(row 0\) is out of range; .* in \[0, 3\)"),
    ((POINTERS, np.array([1, 2, -1])), ValueError, r"index -1 of entry 2 \(row 1\)"),
    ((POINTERS, np.array([1, 2, 2**32])), ValueError, r"index 4294967296 of entry 2 \(row 1\)"),
    ((POINTERS, INDICES, np.array([1, 2, np.nan])), ValueError, r"weight of edge 1 -> 0 \(entry 2\) is nan"),
    ((POINTERS, INDICES, np.array([1, -2, 1.0])), ValueError, r"weight of edge 0 -> 2 \(entry 1\) is -2.0"),
    (sp.csc_array(np.array([[1, np.inf], [2, 0]])), ValueError, r"weight of edge 0 -> 1 \(entry 2\) is inf"),
    (sp.coo_array(np.array([[1, 0], [-3.0, 0]])), ValueError, r"weight of edge 1 -> 0 \(entry 1\) is -3.0"),
    (torch.ones(2, 2, 2), ValueError, r"square \[n, n\], got shape \[2, 2, 2\]"),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("graph", "error", "message"), BAD_GRAPHS)
def test_bad_graphs_are_refused_by_their_place(graph: Any, error: type[Exception], message: str, backend: Any) -> None:
    with pytest.raises(error, match=message):
        pagerank(graph, backend=backend)


def test_bad_networkx_weights_name_the_edge() -> None:
    graph = nx.Graph()
    graph.add_edge("a", "b", weight="heavy")
    with pytest.raises(TypeError, match="edge 'a' -> 'b': 'weight' must be a number, got 'heavy'"):
        pagerank(graph)
    graph.add_edge("a", "b", weight=-1)
    with pytest.raises(ValueError, match=r"weight of edge 'a' -> 'b' .* is -1\.0"):
        pagerank(graph)
    with pytest.raises(ValueError, match=r"personalization\['b'\] is -2.0"):
        pagerank(nx.path_graph(["a", "b"]), personalization={"b": -2.0})


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_bad_entry_is_named_wherever_it_lies(threads: int) -> None:
    graph = random_sparse(100_000, 2_000_000, seed=15, dtype=np.float32)
    for at in (0, 16_383, 16_384, graph.nnz - 1):
        bad = graph.copy()
        bad.data[at:] = np.nan
        with pytest.raises(ValueError, match=rf"\(entry {at}\) is nan"):
            pagerank(bad, threads=threads)
        bad = graph.indices.copy()
        bad[at:] = -7
        with pytest.raises(ValueError, match=rf"index -7 of entry {at} "):
            pagerank((graph.indptr, bad), threads=threads)
