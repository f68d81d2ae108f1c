"""pagerank: what must hold for any graph. No oracle, so nothing to share a mistake with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsft_kernels import pagerank
from tests.support.layouts import LAYOUTS
from tests.support.sparse_graphs import hub_graph, random_sparse, solved

METHODS = ("gauss_seidel", "jacobi")
TIGHT: dict[str, Any] = {"tol": 1e-13, "max_iter": 5000}

# zero rows, zero columns, self loops and very different scales come up by themselves
WEIGHTS = st.integers(1, 40).flatmap(
    lambda n: hnp.arrays(
        np.float64,
        (n, n),
        elements=st.floats(1e-6, 1e6, allow_nan=False),
        fill=st.just(0.0),
    )
)


@st.composite
def coordinates(draw: Any) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Edges in any order, with repeats."""
    n = draw(st.integers(1, 30))
    count = draw(st.integers(0, 120))
    ids = hnp.arrays(np.int32, count, elements=st.integers(0, n - 1))
    weights = hnp.arrays(np.float64, count, elements=st.floats(0, 100))
    return n, draw(ids), draw(ids), draw(weights)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(weights=WEIGHTS, method=st.sampled_from(METHODS))
def test_scores_are_a_distribution_that_solves_the_system(weights: np.ndarray, method: str) -> None:
    scores = pagerank(sp.csr_array(weights), method=method, **TIGHT)
    assert (scores >= 0).all()
    assert abs(scores.sum() - 1) < 1e-13
    np.testing.assert_allclose(scores, solved(weights), atol=1e-11)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(edges=coordinates(), method=st.sampled_from(METHODS))
def test_coo_csr_csc_and_dense_agree(edges: Any, method: str) -> None:
    n, starts, ends, weights = edges
    coo = sp.coo_array((weights, (starts, ends)), shape=(n, n))
    scores = [pagerank(graph, method=method, **TIGHT) for graph in (coo, coo.tocsr(), coo.tocsc(), coo.toarray())]
    for other in scores[1:]:
        np.testing.assert_allclose(other, scores[0], atol=1e-12)
    np.testing.assert_allclose(pagerank(coo, backend="reference", **TIGHT), scores[0], atol=1e-11)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(weights=WEIGHTS, exponent=st.integers(-300, 300), method=st.sampled_from(METHODS))
def test_scaling_by_a_power_of_two_changes_no_bit(weights: np.ndarray, exponent: int, method: str) -> None:
    plain = pagerank(weights, method=method)
    np.testing.assert_array_equal(pagerank(np.ldexp(weights, exponent), method=method), plain)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(weights=WEIGHTS, seed=st.integers(0, 99), method=st.sampled_from(METHODS))
def test_relabelling_nodes_permutes_their_scores(weights: np.ndarray, seed: int, method: str) -> None:
    order = np.random.default_rng(seed).permutation(len(weights))
    plain = pagerank(weights, method=method, **TIGHT)
    moved = pagerank(weights[np.ix_(order, order)], method=method, **TIGHT)
    np.testing.assert_allclose(moved, plain[order], atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
def test_two_disjoint_copies_give_halves(method: str) -> None:
    graph = random_sparse(300, 2000, seed=1)
    twice = sp.block_diag([graph, graph], format="csr")
    once = pagerank(graph, method=method, **TIGHT)
    np.testing.assert_allclose(pagerank(twice, method=method, **TIGHT), np.tile(once / 2, 2), atol=1e-14)


def graphs_for_threads() -> dict[str, sp.csr_array]:
    peeled = random_sparse(150_000, 900_000, seed=2, weighted=False)  # float32 phase
    peeled = sp.coo_array((peeled.data, (peeled.tocoo().row, peeled.tocoo().col // 3)), shape=peeled.shape).tocsr()
    return {
        "float32-phase": random_sparse(150_000, 600_000, seed=3, weighted=False),
        "weighted": random_sparse(20_000, 400_000, seed=4),
        "hubs": hub_graph(60_000, seed=5),
        "peeled": peeled,
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["float32-phase", "weighted", "hubs", "peeled"])
def test_any_number_of_threads_gives_the_same_bits(name: str, method: str) -> None:
    graph = graphs_for_threads()[name]
    for kind in (graph, graph.tocsc(), graph.tocoo()):
        alone = pagerank(kind, method=method, threads=1, return_info=True)
        assert abs(alone.scores.sum() - 1) < 1e-14  # a plain sum of as many terms drops more
        for threads in (2, 3, 8):
            shared = pagerank(kind, method=method, threads=threads, return_info=True)
            np.testing.assert_array_equal(shared.scores, alone.scores)
            assert (shared.n_iter, shared.residual) == (alone.n_iter, alone.residual)


def test_python_threads_in_parallel_agree() -> None:
    graph = random_sparse(20_000, 400_000, seed=6)
    expected = pagerank(graph, threads=1)
    with ThreadPoolExecutor(4) as pool:
        for scores in pool.map(lambda _: pagerank(graph, threads=2), range(8)):
            np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("ids", [np.int32, np.int64])
def test_memory_layout_changes_nothing(layout: Any, ids: Any) -> None:
    graph = random_sparse(200, 1500, seed=7)
    pointers, indices = graph.indptr.astype(ids), graph.indices.astype(ids)
    expected = pagerank(graph)
    np.testing.assert_array_equal(pagerank((layout(pointers), layout(indices), layout(graph.data))), expected)
    teleport = np.arange(200.0)
    np.testing.assert_array_equal(
        pagerank(graph, personalization=layout(teleport)), pagerank(graph, personalization=teleport)
    )


def test_fortran_and_memory_mapped_inputs(tmp_path: Path) -> None:
    graph = random_sparse(200, 1500, seed=8)
    dense = graph.toarray()
    np.testing.assert_array_equal(pagerank(np.asfortranarray(dense)), pagerank(dense))
    names = ("indptr", "indices", "data")
    for name in names:
        np.save(tmp_path / f"{name}.npy", getattr(graph, name))
    mapped = tuple(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in names)
    np.testing.assert_array_equal(pagerank(mapped), pagerank(graph))


def test_inputs_are_left_as_they_were() -> None:
    graph = random_sparse(200, 1500, seed=9)
    graph.data[::50] = 1e300
    teleport = np.ones(200)
    before = [array.copy() for array in (graph.indptr, graph.indices, graph.data, teleport)]
    pagerank(graph, personalization=teleport, nstart=teleport, dangling=teleport)
    for now, then in zip((graph.indptr, graph.indices, graph.data, teleport), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_extreme_weights_neither_overflow_nor_vanish() -> None:
    graph = random_sparse(60, 400, seed=10)
    expected = pagerank(graph, **TIGHT)
    for row, scale in ((3, 1e300), (4, 1e-300), (5, 5e-305)):
        graph.data[graph.indptr[row] : graph.indptr[row + 1]] *= scale
    graph.data[graph.indptr[6] : graph.indptr[7]] *= 1.7e308 / graph.data.max()  # their sum is infinite
    np.testing.assert_allclose(pagerank(graph, **TIGHT), expected, atol=1e-13)
    np.testing.assert_allclose(pagerank(graph.tocsc(), **TIGHT), expected, atol=1e-13)
    np.testing.assert_allclose(pagerank(graph, backend="reference", **TIGHT), expected, atol=1e-13)
