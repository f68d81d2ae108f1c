"""Defects of textrank that fuzzing found, each with the smallest graph that showed it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlsft_kernels import textrank
from tests.support.graphs import random_graph

BACKENDS = ("native", "reference")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def principal_eigenvector(weights: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eig(weights.T)
    vector = np.abs(vectors[:, values.real.argmax()].real)
    return vector / vector.max()


@pytest.mark.parametrize("argument", ["teleport", "start"])
def test_power_iteration_from_one_node_without_edges_finds_the_eigenvector(argument: str, backend: Any) -> None:
    # the first product with W is all zeros there, which looked like rho(W) = 0 and gave negative scores
    weights = random_graph(5, seed=0, dangling=1, density=1.0) * 3
    at_the_last = {argument: np.eye(5)[4]}
    scores = textrank(weights, form="eigenvector", damping=0.99, **at_the_last, backend=backend).scores
    np.testing.assert_allclose(scores, principal_eigenvector(weights), atol=1e-8)


def test_power_iteration_from_the_weaker_of_two_components_finds_the_stronger(backend: Any) -> None:
    weights = np.zeros((4, 4))
    weights[0, 1] = weights[1, 0] = 2
    weights[2, 3] = weights[3, 2] = 5
    scores = textrank(weights, form="eigenvector", start=np.array([1.0, 1, 0, 0]), backend=backend).scores
    np.testing.assert_allclose(scores, [0, 0, 1, 1], atol=1e-8)


@pytest.mark.parametrize("tol", [1e-2, 1e-10])
def test_katz_at_the_edge_of_its_range_falls_back_to_the_eigenvector(tol: float, backend: Any) -> None:
    # three equal responses have rho = 2, so a = 0.5 is the edge: the system is singular up to rounding
    g = np.random.default_rng(3)
    rows = np.concatenate([np.tile(g.standard_normal(20), (3, 1)), np.eye(20)[:1] * 0])
    rows[2] /= 8
    scores = textrank(
        embeddings=rows, edge="relu_cosine", form="eigenvector", damping=0.5, tol=tol, backend=backend
    ).scores
    np.testing.assert_allclose(scores, [1, 1, 1, 0], atol=10 * tol)


def test_sums_within_a_quarter_of_the_largest_double_overflow_too() -> None:
    weights = np.full((2, 2), 0.8e308)  # rho = 1.6e308 is a double, 1.25 rho is not
    with pytest.raises(ValueError, match="sums overflow; divide them by their maximum"):
        textrank(weights, form="eigenvector", backend="native")


def test_twins_made_equal_keep_the_sum_and_do_not_depend_on_their_place(backend: Any) -> None:
    rows = np.tile(np.random.default_rng(0).standard_normal(6), (5, 1))
    start = np.array([4.0, 1, 0, 2, 3])
    scores = textrank(embeddings=rows, start=start, damping=0.99, tol=1e-2, backend=backend).scores
    assert len(set(scores.tolist())) == 1
    np.testing.assert_allclose(scores.sum(), 1, atol=1e-14)
    moved = textrank(embeddings=rows, start=start[::-1].copy(), damping=0.99, tol=1e-2, backend=backend).scores
    np.testing.assert_allclose(moved, scores, rtol=1e-14)
