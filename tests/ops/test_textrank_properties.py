"""textrank: what must hold for any graph. No oracle, so nothing to share a mistake with."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsft_kernels import similarity_matrix, textrank
from tests.support.graphs import dense_solution, random_graph, response_groups
from tests.support.layouts import LAYOUTS

BACKENDS = ("native", "reference")
FORMS = ("stochastic", "eigenvector")
EDGES = ("shifted_cosine", "relu_cosine")

# zero rows, self loops and very different scales come up by themselves
WEIGHTS = st.integers(1, 9).flatmap(
    lambda n: hnp.arrays(np.float64, (n, n), elements=st.one_of(st.just(0.0), st.floats(1e-6, 1e6, allow_nan=False)))
)
ROWS = st.tuples(st.integers(1, 9), st.integers(1, 20)).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-100, 100, width=32))
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(weights=WEIGHTS)
def test_scores_are_a_distribution_that_solves_the_system(weights: np.ndarray) -> None:
    native = textrank(weights, tol=1e-12, backend="native").scores
    assert (native >= 0).all()
    assert abs(native.sum() - 1) < 1e-12
    np.testing.assert_allclose(native, dense_solution(weights), atol=1e-10)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(weights=WEIGHTS, exponent=st.integers(-300, 300))
def test_scaling_by_a_power_of_two_changes_no_bit(weights: np.ndarray, exponent: int) -> None:
    for backend in BACKENDS:
        plain = textrank(weights, backend=backend).scores  # type: ignore[arg-type]
        scaled = textrank(np.ldexp(weights, exponent), backend=backend).scores  # type: ignore[arg-type]
        np.testing.assert_array_equal(scaled, plain)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(weights=WEIGHTS, seed=st.integers(0, 99))
def test_relabelling_nodes_permutes_their_scores(weights: np.ndarray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(weights))
    plain = textrank(weights, tol=1e-13, max_iter=5000).scores
    moved = textrank(weights[np.ix_(order, order)], tol=1e-13, max_iter=5000).scores
    np.testing.assert_allclose(moved, plain[order], atol=1e-11)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=ROWS, edge=st.sampled_from(EDGES))
def test_native_edges_and_scores_agree_with_the_reference(rows: np.ndarray, edge: str) -> None:
    ours = similarity_matrix(rows, edge=edge, backend="native")
    theirs = similarity_matrix(rows, edge=edge, backend="reference")
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    native = textrank(embeddings=rows, backend="native").scores
    np.testing.assert_allclose(native, textrank(embeddings=rows, backend="reference").scores, atol=5e-6)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(tokens=st.lists(st.lists(st.integers(0, 6), max_size=7), max_size=7))
def test_text_edges_agree_with_the_reference(tokens: list[list[int]]) -> None:
    for edge, overlap in (("word_overlap", "set"), ("word_overlap", "multiset"), ("bm25", "set")):
        kwargs: dict[str, Any] = {"tokens": tokens, "edge": edge, "overlap": overlap}
        native = similarity_matrix(**kwargs, backend="native")
        np.testing.assert_allclose(native, similarity_matrix(**kwargs, backend="reference"), atol=1e-13)
        assert (native >= 0).all()


def test_two_disjoint_copies_give_halves() -> None:
    weights = random_graph(7, seed=3)
    twice = np.zeros((14, 14))
    twice[:7, :7] = twice[7:, 7:] = weights
    scores = textrank(twice, tol=1e-13).scores
    np.testing.assert_allclose(scores, np.tile(textrank(weights, tol=1e-13).scores / 2, 2), atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("edge", EDGES)
def test_batch_flat_and_loop_are_equal_bit_for_bit(edge: str, form: str, backend: Any) -> None:
    groups = response_groups(5, 9, 21)
    options: dict[str, Any] = {"edge": edge, "form": form, "backend": backend}
    batch = textrank(embeddings=groups, **options)
    flat = textrank(embeddings=groups.reshape(45, 21), groups=np.arange(6) * 9, **options)
    loop = [textrank(embeddings=rows, **options) for rows in groups]
    np.testing.assert_array_equal(batch.scores.reshape(-1), flat.scores)
    np.testing.assert_array_equal(batch.scores, [one.scores for one in loop])
    np.testing.assert_array_equal(batch.n_iter, [one.n_iter for one in loop])
    np.testing.assert_array_equal(batch.residual, [one.residual for one in loop])


@pytest.mark.parametrize("backend", BACKENDS)
def test_ragged_groups_equal_the_loop_over_them(backend: Any) -> None:
    offsets = np.array([0, 0, 1, 3, 20, 20, 37])
    rows = response_groups(1, 37, 33)[0]
    teleport = np.random.default_rng(0).random(37)
    ragged = textrank(embeddings=rows, groups=offsets, teleport=teleport, backend=backend)
    blocks = similarity_matrix(rows, groups=offsets, backend=backend)
    from_blocks = textrank(blocks, groups=offsets, teleport=teleport, backend=backend)
    assert ragged.n_iter.tolist()[0] == 0
    for begin, end in pairwise(offsets):
        if begin == end:
            continue
        one = textrank(embeddings=rows[begin:end], teleport=teleport[begin:end], backend=backend)
        np.testing.assert_array_equal(ragged.scores[begin:end], one.scores)
        np.testing.assert_allclose(from_blocks.scores[begin:end], one.scores, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_explicit_batches_equal_the_loop(backend: Any) -> None:
    graphs = np.stack([random_graph(6, seed=s) for s in range(4)])
    batch = textrank(graphs, edge="precomputed", backend=backend)
    flat = textrank(graphs.reshape(-1), groups=np.arange(5) * 6, backend=backend)
    np.testing.assert_array_equal(batch.scores, [textrank(one, backend=backend).scores for one in graphs])
    np.testing.assert_array_equal(batch.scores.reshape(-1), flat.scores)


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_group_stops_by_itself(backend: Any) -> None:
    slow = random_graph(6, seed=1)
    fast = np.ones((6, 6))
    both = textrank(np.stack([fast, slow]), backend=backend)
    assert both.n_iter[0] == textrank(fast, backend=backend).n_iter < both.n_iter[1]


@pytest.mark.parametrize("form", FORMS)
def test_any_number_of_threads_gives_the_same_bits(form: str) -> None:
    groups = response_groups(300, 16, 200)  # enough work that threads really start
    alone = textrank(embeddings=groups, form=form, threads=1)
    for threads in (2, 3, 7):
        shared = textrank(embeddings=groups, form=form, threads=threads)
        np.testing.assert_array_equal(shared.scores, alone.scores)
        np.testing.assert_array_equal(shared.n_iter, alone.n_iter)
    np.testing.assert_array_equal(similarity_matrix(groups, threads=3), similarity_matrix(groups, threads=1))


def test_python_threads_in_parallel_agree() -> None:
    from concurrent.futures import ThreadPoolExecutor

    groups = response_groups(200, 16, 200)
    expected = textrank(embeddings=groups, threads=1).scores
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: textrank(embeddings=groups, threads=2).scores, range(8)))
    for scores in results:
        np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_memory_layout_changes_nothing(layout: Any, backend: Any) -> None:
    groups = response_groups(3, 5, 12)
    graph = np.abs(groups @ groups.mT)
    expected = textrank(embeddings=groups, backend=backend).scores
    np.testing.assert_array_equal(textrank(embeddings=layout(groups), backend=backend).scores, expected)
    np.testing.assert_array_equal(
        textrank(layout(graph), backend=backend).scores, textrank(graph, backend=backend).scores
    )


def test_memory_mapped_and_expanded_inputs(tmp_path: Path) -> None:
    groups = response_groups(3, 5, 12)
    np.save(tmp_path / "rows.npy", groups)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    np.testing.assert_array_equal(textrank(embeddings=mapped).scores, textrank(embeddings=groups).scores)
    expanded = torch.from_numpy(groups[:1]).expand(4, 5, 12)
    scores = textrank(embeddings=expanded).scores
    np.testing.assert_array_equal(np.asarray(scores), np.tile(textrank(embeddings=groups[:1]).scores, (4, 1)))


def test_inputs_are_left_as_they_were() -> None:
    rows = response_groups(2, 5, 12)
    graph, teleport = np.abs(rows @ rows.mT), np.ones((2, 5))
    before = rows.copy(), graph.copy(), teleport.copy()
    textrank(embeddings=rows, teleport=teleport, start=teleport)
    textrank(graph * 1e-300, teleport=teleport)
    for now, then in zip((rows, graph, teleport), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_scaling_rows_changes_nothing_beyond_rounding() -> None:
    rows = response_groups(1, 8, 30, dtype=np.float64)[0]
    scale = np.array([1e-200, 1e200, 3, 1, 1e-9, 7, 1e150, 2.5])[:, None]
    np.testing.assert_allclose(textrank(embeddings=rows * scale).scores, textrank(embeddings=rows).scores, atol=1e-13)
