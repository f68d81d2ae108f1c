"""similarity_matrix and explicit graphs: what must hold between two calls, whatever the right values are."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlsft_kernels import similarity_matrix, textrank
from tests.support.graphs import random_graph, response_groups
from tests.support.layouts import LAYOUTS

BACKENDS = ("native", "reference")
EDGES = ("cosine", "shifted_cosine", "relu_cosine")
TEXT_EDGES = ("word_overlap", "bm25")
DTYPES = (np.float32, np.float64)
SIZES = (3, 16, 17, 65)  # rows: below, at and above the tiles, and above one block of 64


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def token_lists(n: int, seed: int = 0) -> list[list[int]]:
    g = np.random.default_rng(seed)
    return [g.integers(0, 40, g.integers(0, 15)).tolist() for _ in range(n)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("edge", EDGES)
def test_relabelling_rows_permutes_both_axes_bit_for_bit(edge: str, dtype: Any) -> None:
    for m in SIZES:
        rows = response_groups(1, m, 33, seed=m, dtype=dtype)[0]
        order = np.random.default_rng(m).permutation(m)
        plain = similarity_matrix(rows, edge=edge, backend="native")
        moved = similarity_matrix(rows[order], edge=edge, backend="native")
        np.testing.assert_array_equal(moved, plain[np.ix_(order, order)])


@pytest.mark.parametrize("edge", TEXT_EDGES)
def test_relabelling_responses_permutes_both_axes(edge: str, backend: Any) -> None:
    tokens = token_lists(40)
    order = np.random.default_rng(1).permutation(40)
    plain = similarity_matrix(tokens=tokens, edge=edge, backend=backend)
    moved = similarity_matrix(tokens=[tokens[i] for i in order], edge=edge, backend=backend)
    assert plain.any()
    np.testing.assert_allclose(moved, plain[np.ix_(order, order)], rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("edge", EDGES)
def test_scaling_a_row_by_a_power_of_two_changes_no_bit(edge: str, dtype: Any, backend: Any) -> None:
    rows = response_groups(1, 17, 33, dtype=dtype)[0]
    exponents = np.random.default_rng(0).integers(-20, 21, 17)
    scaled = np.ldexp(rows, exponents[:, None]).astype(dtype)
    assert (scaled != rows).any()
    expected = similarity_matrix(rows, edge=edge, backend=backend)
    np.testing.assert_array_equal(similarity_matrix(scaled, edge=edge, backend=backend), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_edges_of_one_cosine_are_maps_of_each_other(dtype: Any, backend: Any) -> None:
    rows = response_groups(1, 19, 21, dtype=dtype)[0]
    rows -= rows.mean(0)  # cosines of both signs
    cosine, shifted, relu = (similarity_matrix(rows, edge=edge, backend=backend) for edge in EDGES)
    off = ~np.eye(19, dtype=bool)
    assert (cosine[off] < 0).any()
    assert (cosine[off] > 0).any()
    np.testing.assert_array_equal(relu, np.maximum(cosine, 0))
    # with fused multiply-add or without: one rounding apart
    np.testing.assert_allclose(shifted[off], 0.5 + 0.5 * cosine[off], rtol=0, atol=2 * np.finfo(dtype).eps)


@pytest.mark.parametrize("edge", EDGES)
def test_ragged_groups_equal_the_loop_bit_for_bit(edge: str, backend: Any) -> None:
    offsets = np.array([0, 0, 1, 3, 20, 20, 37])
    rows = response_groups(1, 37, 33)[0]
    ragged = similarity_matrix(rows, groups=offsets, edge=edge, backend=backend)
    alone = [similarity_matrix(rows[a:b], edge=edge, backend=backend).ravel() for a, b in pairwise(offsets) if a < b]
    np.testing.assert_array_equal(ragged, np.concatenate(alone))


@pytest.mark.parametrize("edge", TEXT_EDGES)
def test_groups_of_texts_equal_the_loop_bit_for_bit(edge: str, backend: Any) -> None:
    offsets, tokens = np.array([0, 0, 5, 6, 30]), token_lists(30, seed=2)
    ragged = similarity_matrix(tokens=tokens, groups=offsets, edge=edge, backend=backend)
    alone = [
        similarity_matrix(tokens=tokens[a:b], edge=edge, backend=backend).ravel() for a, b in pairwise(offsets) if a < b
    ]
    np.testing.assert_array_equal(ragged, np.concatenate(alone))


def test_threads_and_callers_at_once_change_no_bit() -> None:
    groups = response_groups(300, 16, 200)  # enough work that threads really start
    expected = similarity_matrix(groups, threads=1)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(similarity_matrix(groups, threads=threads), expected)
    with ThreadPoolExecutor(4) as pool:
        for edges in pool.map(lambda _: similarity_matrix(groups, threads=2), range(8)):
            np.testing.assert_array_equal(edges, expected)


def test_threads_change_no_bit_of_explicit_graphs() -> None:
    graphs = np.stack([random_graph(40, seed=s) for s in range(60)])
    for dtype in DTYPES:
        alone = textrank(graphs.astype(dtype), threads=1)
        for threads in (2, 3, 7):
            shared = textrank(graphs.astype(dtype), threads=threads)
            np.testing.assert_array_equal(shared.scores, alone.scores)
            np.testing.assert_array_equal(shared.n_iter, alone.n_iter)


def test_two_disjoint_copies_of_texts_have_no_edges_between_them(backend: Any) -> None:
    tokens = token_lists(12, seed=3)
    both = similarity_matrix(tokens=tokens + [[t + 1000 for t in row] for row in tokens], edge="word_overlap")
    alone = similarity_matrix(tokens=tokens, edge="word_overlap", backend=backend)
    np.testing.assert_allclose(both, np.kron(np.eye(2), alone), rtol=1e-14, atol=0)
    halves = textrank(both, tol=1e-13, backend=backend).scores
    np.testing.assert_allclose(halves, np.tile(textrank(alone, tol=1e-13).scores, 2) / 2, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_memory_layout_changes_nothing(layout: Any, dtype: Any, backend: Any) -> None:
    groups = response_groups(3, 5, 12, dtype=dtype)
    expected = similarity_matrix(groups, backend=backend)
    np.testing.assert_array_equal(similarity_matrix(layout(groups), backend=backend), expected)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layout_of_ids_and_offsets_changes_nothing(layout: Any, backend: Any) -> None:
    ids = np.random.default_rng(4).integers(0, 9, 50)
    offsets, groups = np.array([0, 4, 4, 20, 33, 50]), np.array([0, 2, 5])
    expected = similarity_matrix(tokens=ids, token_offsets=offsets, groups=groups, edge="bm25", backend=backend)
    found = similarity_matrix(
        tokens=layout(ids), token_offsets=layout(offsets), groups=layout(groups), edge="bm25", backend=backend
    )
    np.testing.assert_array_equal(found, expected)


def test_memory_mapped_and_expanded_inputs(tmp_path: Path, backend: Any) -> None:
    groups, graphs = response_groups(3, 5, 12), np.stack([random_graph(5, seed=s) for s in range(3)])
    np.save(tmp_path / "rows.npy", groups)
    np.save(tmp_path / "graphs.npy", graphs)
    rows_mapped, graphs_mapped = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("rows", "graphs"))
    expected = similarity_matrix(groups, backend=backend)
    np.testing.assert_array_equal(similarity_matrix(rows_mapped, backend=backend), expected)
    scores = textrank(graphs, backend=backend).scores
    np.testing.assert_array_equal(textrank(graphs_mapped, backend=backend).scores, scores)
    expanded = similarity_matrix(torch.from_numpy(groups[:1]).expand(4, 5, 12), backend=backend)
    np.testing.assert_array_equal(np.asarray(expanded), np.tile(expected[:1], (4, 1, 1)))
    repeated = torch.from_numpy(graphs[:1]).expand(4, 5, 5)
    np.testing.assert_array_equal(np.asarray(textrank(repeated, backend=backend).scores), np.tile(scores[:1], (4, 1)))


def test_inputs_are_left_as_they_were(backend: Any) -> None:
    groups, ids, offsets = response_groups(2, 5, 12), np.arange(20) % 7, np.array([0, 3, 3, 12, 20])
    before = groups.copy(), ids.copy(), offsets.copy()
    similarity_matrix(groups, backend=backend)
    similarity_matrix(tokens=ids, token_offsets=offsets, edge="bm25", backend=backend)
    for now, then in zip((groups, ids, offsets), before, strict=True):
        np.testing.assert_array_equal(now, then)
