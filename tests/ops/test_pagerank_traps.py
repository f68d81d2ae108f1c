"""pagerank on the inputs that other PageRanks get wrong, and beside those that get them right."""

from __future__ import annotations

import warnings
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from rlsft_kernels import ConvergenceError, pagerank
from tests.support.sparse_graphs import random_sparse, solved

BACKENDS = ("native", "reference")
METHODS = ("gauss_seidel", "jacobi")
TIGHT: dict[str, Any] = {"tol": 1e-14, "max_iter": 2000}

# closed forms: derive them from x = (1-a) v + a P^T x with n = 3 and the dangling mass spread evenly
SINK = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 0.0]])
ISOLATED = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0.0]])


def forms(weights: np.ndarray) -> list[Any]:
    csr = sp.csr_array(weights)
    return [weights, csr, csr.tocsc(), csr.tocoo(), nx.from_numpy_array(weights, create_using=nx.DiGraph)]


def values(scores: Any) -> np.ndarray:
    return np.array(list(scores.values())) if isinstance(scores, dict) else np.asarray(scores)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        # a sink does not attract the teleport (scikit-network gives it .662)
        (SINK, [0.2919708, 0.2919708, 0.4160584]),
        # an isolated node keeps only its teleport and its share of its own mass (scikit-network gives .333)
        (ISOLATED, [0.4651163, 0.4651163, 0.0697674]),
        # no edge at all is the teleport (scikit-network refuses it as empty)
        (np.zeros((4, 4)), [0.25] * 4),
        (np.zeros((1, 1)), [1.0]),
        (np.ones((1, 1)), [1.0]),
        (np.array([[0, 1], [1, 0.0]]), [0.5, 0.5]),
        (np.zeros((0, 0)), []),
    ],
    ids=["sink", "isolated", "all-zero", "one-node", "self-loop", "pair", "empty"],
)
def test_closed_forms(weights: np.ndarray, expected: list[float], method: str, backend: Any) -> None:
    for graph in forms(weights):
        scores = values(pagerank(graph, method=method, backend=backend, **TIGHT))
        np.testing.assert_allclose(scores, expected, atol=5e-8)
        if len(expected):
            assert abs(scores.sum() - 1) < 1e-13


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0])
def test_a_weight_that_means_nothing_is_refused(value: float, backend: Any) -> None:
    weights = SINK.copy()
    weights[1, 2] = value  # -1: the row's sum is 0 through signs, and peers answer with 5e10 or do not converge
    for graph in forms(weights):
        with pytest.raises(ValueError, match=rf"weight of edge 1 -> 2 \(entry \d\) is {value}; weights must be finite"):
            pagerank(graph, backend=backend)
    weights[1, 2] = -0.5  # the row's sum stays positive: as wrong, harder to notice
    with pytest.raises(ValueError, match=r"is -0\.5"):
        pagerank(weights, backend=backend)


@pytest.mark.parametrize("name", ["personalization", "nstart", "dangling"])
@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([0, 0, 0], r"{} sums to 0; at least one node"),
        ([1, -1, 1], r"{}\[1\] is -1.0; entries must be finite and not negative"),
        ([1, np.nan, 1], r"{}\[1\] is nan"),
        ([1, 1, np.inf], r"{}\[2\] is inf"),
        ([1, 1], r"{} must have one entry a node, \[3\], got shape \[2\]"),
    ],
)
def test_a_bad_teleport_is_refused(name: str, vector: list[float], message: str) -> None:
    options: dict[str, Any] = {name: np.array(vector)}
    with pytest.raises(ValueError, match=message.format(name)):
        pagerank(SINK, **options)
    if len(vector) == 3:
        graph = nx.from_numpy_array(SINK, create_using=nx.DiGraph)
        with pytest.raises(ValueError, match=message.format(name)):
            pagerank(graph, **{name: dict(enumerate(options[name]))})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", METHODS)
def test_the_sweep_cap_is_never_silent(method: str, backend: Any) -> None:
    graph = random_sparse(100, 600, seed=1)
    with pytest.raises(ConvergenceError, match="did not converge"):
        pagerank(graph, max_iter=2, method=method, backend=backend)


def ring_with_chords(n: int) -> sp.csr_array:
    """One out-edge to the next node, one to a random one: scores differ, and no size is special."""
    g = np.random.default_rng(n)
    rows = np.repeat(np.arange(n), 2)
    columns = np.stack([(np.arange(n) + 1) % n, g.integers(0, n, n)], axis=1).reshape(-1)
    return sp.coo_array((np.ones(2 * n), (rows, columns)), shape=(n, n)).tocsr()


@pytest.mark.parametrize("method", METHODS)
def test_the_error_at_a_fixed_tol_does_not_grow_with_the_graph(method: str) -> None:
    errors = []
    for n in (100, 1000, 10_000, 100_000):
        graph = ring_with_chords(n)
        truth = pagerank(graph, backend="reference", tol=1e-14, max_iter=1000)
        errors.append(float(np.abs(pagerank(graph, method=method, tol=1e-6) - truth).sum()))
    assert max(errors) < 0.85 / 0.15 * 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loose = pagerank(graph, method=method, tol=1e-6, tol_per_node=True)
    assert np.abs(loose - truth).sum() > 1e-3  # the rule of networkx, kept for those who ask for it


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [2, 3, 33, 500])
def test_against_a_dense_solve(n: int, method: str) -> None:
    graph = random_sparse(n, 6 * n, seed=n)
    np.testing.assert_allclose(pagerank(graph, method=method, **TIGHT), solved(graph), atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_against_igraph_prpack(method: str) -> None:
    igraph = pytest.importorskip("igraph")
    graph = random_sparse(2000, 12_000, seed=2).tocoo()
    peer = igraph.Graph(n=2000, edges=np.stack([graph.row, graph.col], axis=1).tolist(), directed=True)
    theirs = np.array(peer.pagerank(weights=graph.data.tolist(), implementation="prpack"))
    assert np.abs(pagerank(graph, method=method, tol=1e-13, max_iter=500) - theirs).sum() < 1e-11


@pytest.mark.parametrize("method", METHODS)
def test_against_networkx_at_an_absolute_tol(method: str) -> None:
    graph = nx.gnp_random_graph(1500, 0.004, seed=3, directed=True)
    theirs = nx.pagerank(graph, tol=1e-12 / 1500, max_iter=500)
    ours = pagerank(graph, method=method, tol=1e-12)
    assert sum(abs(ours[node] - theirs[node]) for node in graph) < 1e-11


def test_networkx_except_clauses_catch_ours() -> None:
    with pytest.raises(nx.PowerIterationFailedConvergence):
        pagerank(nx.gnp_random_graph(50, 0.1, seed=4), max_iter=1)
