"""Sparse test graphs, and PageRank by a dense solve: another route than any iteration."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp


def random_sparse(n: int, edges: int, *, seed: int, dtype: Any = np.float64, weighted: bool = True) -> sp.csr_array:
    """Directed, with self loops and repeats summed; some nodes without out-edges, some without in-edges."""
    g = np.random.default_rng(seed)
    sources = g.integers(0, max(n - n // 8, 1), edges)
    targets = np.minimum(g.integers(n // 8, n, edges), n - 1)
    weights = g.random(edges) + 0.1 if weighted else np.ones(edges)
    graph = sp.coo_array((weights.astype(dtype), (sources, targets)), shape=(n, n)).tocsr()
    graph.indptr, graph.indices = graph.indptr.astype(np.int32), graph.indices.astype(np.int32)
    return graph


def hub_graph(n: int, *, seed: int) -> sp.csr_array:
    """Every node points to a few random nodes and to some of three hubs, whose rows are longer than any slice."""
    g = np.random.default_rng(seed)
    sources = np.concatenate([np.repeat(np.arange(n), 4), np.arange(n), np.arange(0, n, 2)])
    targets = np.concatenate([g.integers(0, n, 4 * n), g.integers(0, 2, n), np.full((n + 1) // 2, 2)])
    return sp.coo_array((g.random(len(sources)), (sources, targets)), shape=(n, n)).tocsr()


def solved(
    graph: Any, *, alpha: float = 0.85, teleport: np.ndarray | None = None, dangling: np.ndarray | None = None
) -> np.ndarray:
    """(I - a P^T)^-1 (1-a) v, rows without weight replaced by the dangling distribution."""
    weights = np.asarray(graph.toarray() if sp.issparse(graph) else graph, dtype=np.float64)
    n = len(weights)
    v = np.full(n, 1 / n) if teleport is None else teleport / teleport.sum()
    d = v if dangling is None else dangling / dangling.sum()
    strength = weights.sum(1)
    rows = np.where(strength[:, None] > 0, weights / np.where(strength > 0, strength, 1)[:, None], d)
    return np.linalg.solve(np.eye(n) - alpha * rows.T, (1 - alpha) * v)
