"""NaN and infinity are refused wherever they stand: each argument, dtype, and place relative to the vector widths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rlsft_kernels import _backend, isodata, pagerank, rank_and_cluster, similarity_matrix, textrank
from tests.support.graphs import random_graph, response_groups

pytestmark = pytest.mark.skipif(not _backend.native_status()[0], reason="needs the native core")
NATIVE: dict[str, Any] = {"backend": "native"}
WIDTHS = (1, 7, 8, 15, 16, 17, 64, 65)
VALUES = (np.nan, np.inf, -np.inf)
DTYPES = (np.float32, np.float64)


def places(size: int) -> list[int]:
    """First and last, both sides of the last full vector of 8 and of 16, and the middle."""
    edges = {size // width * width + shift for width in (8, 16) for shift in (-1, 0)}
    return sorted(({0, size // 2, size - 1} | edges) & set(range(size)))


def accepted(call: Callable[[], object]) -> bool:
    try:
        call()
    except ValueError as error:
        return not any(word in str(error) for word in ("nan", "inf"))  # refused, but for another reason
    return True


# one group alone, a middle one of several, more rows than the fused path takes, and more than one block
OF_ROWS: dict[str, tuple[int, Callable[[np.ndarray], object]]] = {
    "similarity": (5, lambda x: similarity_matrix(x, **NATIVE)),
    "textrank": (5, lambda x: textrank(embeddings=x, **NATIVE)),
    "textrank, eigenvector": (5, lambda x: textrank(embeddings=x, edge="relu_cosine", form="eigenvector", **NATIVE)),
    "textrank, many rows": (300, lambda x: textrank(embeddings=x, **NATIVE)),
    "ball_hall": (5, lambda x: isodata(x, **NATIVE)),
    "ball_hall, cosine": (5, lambda x: isodata(x, geometry="cosine", **NATIVE)),
    "ball_hall, many rows": (300, lambda x: isodata(x, **NATIVE)),
    "str": (5, lambda x: isodata(x, variant="str", **NATIVE)),
    "fused": (5, lambda x: rank_and_cluster(x, **NATIVE)),
    "fused, str": (5, lambda x: rank_and_cluster(x, cluster={"variant": "str"}, **NATIVE)),
    "not fused": (80, lambda x: rank_and_cluster(x, **NATIVE)),
    "middle group": (9, lambda x: rank_and_cluster(x, groups=np.array([0, 3, 6, 9]), **NATIVE)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OF_ROWS)
def test_embeddings(op: str, dtype: Any) -> None:
    m, call = OF_ROWS[op]
    passed = []
    for d in WIDTHS:
        rows = response_groups(1, m, d, dtype=dtype)[0]
        call(rows)  # the values are what is refused, not the shape
        for place in places(d):
            for value in VALUES:
                bad = rows.copy()
                bad[(d + place) % m, place] = value
                if accepted(lambda bad=bad: call(bad)):
                    passed.append((d, place, value))
    assert passed == []


OF_GRAPHS: dict[str, Callable[[np.ndarray], object]] = {
    "stochastic": lambda w: textrank(w, **NATIVE),
    "eigenvector": lambda w: textrank(w, form="eigenvector", **NATIVE),
    "pagerank": lambda w: pagerank(w, **NATIVE),
    "pagerank, jacobi": lambda w: pagerank(w, method="jacobi", **NATIVE),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OF_GRAPHS)
def test_weights_of_a_matrix(op: str, dtype: Any) -> None:
    call, passed = OF_GRAPHS[op], []
    for n in WIDTHS:
        weights = np.ones((n, n), dtype=dtype)
        call(weights)
        for place in places(n):
            for value in VALUES:
                bad = weights.copy()
                bad[n - 1 - place, place] = value
                if accepted(lambda bad=bad: call(bad)):
                    passed.append((n, place, value))
    assert passed == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2])
def test_weights_of_sparse_edges(threads: int, dtype: Any) -> None:
    passed = []
    for edges in (*WIDTHS, 255, 257):
        pointers, ends = np.array([0, edges, edges]), np.arange(edges) % 2
        for place in places(edges):
            for value in VALUES:
                weights = np.ones(edges, dtype=dtype)
                weights[place] = value
                graph = (pointers, ends, weights)
                if accepted(lambda graph=graph: pagerank(graph, threads=threads, **NATIVE)):
                    passed.append((edges, place, value))
    assert passed == []


ROWS = 17
VECTORS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], object]] = {
    "teleport": lambda x, w, v: textrank(embeddings=x, teleport=v, **NATIVE),
    "start": lambda x, w, v: textrank(embeddings=x, start=v, **NATIVE),
    "teleport of a graph": lambda x, w, v: textrank(w, teleport=v, **NATIVE),
    "start of a graph": lambda x, w, v: textrank(w, start=v, **NATIVE),
    "fused teleport": lambda x, w, v: rank_and_cluster(x, teleport=v, **NATIVE),
    "fused start": lambda x, w, v: rank_and_cluster(x, start=v, **NATIVE),
    "scores": lambda x, w, v: isodata(x, scores=v, **NATIVE),
    "init": lambda x, w, v: isodata(x.T.copy(), n_clusters=2, init=np.stack([x[:, 0], v]), **NATIVE),
    "personalization": lambda x, w, v: pagerank(w, personalization=v, **NATIVE),
    "dangling": lambda x, w, v: pagerank(w, dangling=v, **NATIVE),
    "nstart": lambda x, w, v: pagerank(w, nstart=v, **NATIVE),
}


@pytest.mark.parametrize("argument", VECTORS)
def test_vectors(argument: str) -> None:
    rows, weights = response_groups(1, ROWS, 12, dtype=np.float64)[0], random_graph(ROWS, seed=0)
    call = VECTORS[argument]
    call(rows, weights, np.ones(ROWS))
    passed = []
    for place in places(ROWS):
        for value in VALUES:
            vector = np.ones(ROWS)
            vector[place] = value
            if accepted(lambda vector=vector: call(rows, weights, vector)):
                passed.append((place, value))
    assert passed == []
