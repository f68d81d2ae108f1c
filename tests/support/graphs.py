"""Graphs, response groups and independent solutions for the ranking tests."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def dense_solution(weights: Floats, damping: float = 0.85, teleport: Floats | None = None) -> Floats:
    """The stochastic scores by solving (I - a P^T) x = (1 - a) v in float64: no iteration, no code of ours."""
    n = len(weights)
    v = np.full(n, 1 / n) if teleport is None else teleport / teleport.sum()
    strength = weights.sum(1, keepdims=True)
    transition = np.where(strength > 0, weights / np.where(strength > 0, strength, 1), v[None, :])
    return np.linalg.solve(np.eye(n) - damping * transition.T, (1 - damping) * v)


def random_graph(n: int, *, seed: int, dangling: int = 1, density: float = 0.5) -> Floats:
    """A directed weighted graph whose last `dangling` nodes have no edge out."""
    g = np.random.default_rng(seed)
    weights = g.random((n, n)) * (g.random((n, n)) < density)
    weights[n - dangling :] = 0
    return weights


def response_groups(
    groups: int, m: int, d: int, *, seed: int = 0, dtype: type = np.float32
) -> npt.NDArray[np.floating]:
    """Embeddings [groups, m, d]: a centre for each group, plus noise."""
    g = np.random.default_rng(seed)
    return (g.standard_normal((groups, 1, d)) + g.standard_normal((groups, m, d))).astype(dtype)


def shifted(cosine: Floats) -> Floats:
    """0.5 + 0.5 cos with an empty diagonal."""
    edges = 0.5 + 0.5 * cosine
    np.fill_diagonal(edges, 0)
    return edges
