"""pagerank from starts that lie where no edge leads: they may cost sweeps, never the result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlsft_kernels import pagerank

BACKENDS = ("native", "reference")
METHODS = ("gauss_seidel", "jacobi")
# nodes 0, 1 and 2 have no edge that enters them
WEIGHTS = np.zeros((6, 6))
WEIGHTS[[0, 1, 2, 3, 4], [3, 4, 3, 4, 5]] = [1, 2, 0.5, 1, 3]
TELEPORT = np.array([0, 0, 0, 1, 2, 1]) / 4


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rest", [0.0, 1e-320, 1e-160, 1e-12])
def test_a_start_without_in_edges_under_a_teleport_elsewhere(rest: float, method: str, backend: Any) -> None:
    start = np.array([1, 1, 1, 0, rest, 0])
    found = pagerank(WEIGHTS, personalization=TELEPORT, nstart=start, method=method, tol=1e-13, backend=backend)
    transition = WEIGHTS / np.maximum(WEIGHTS.sum(1, keepdims=True), 1e-300)
    transition[5] = TELEPORT
    exact = np.linalg.solve(np.eye(6) - 0.85 * transition.T, 0.15 * TELEPORT)
    np.testing.assert_allclose(found, exact, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_start_beside_teleport_and_dangling_mass(method: str, backend: Any) -> None:
    graph = (np.array([0, 1, 1]), np.array([1]), None)  # one edge, 0 -> 1
    end, beginning = np.array([0.0, 1.0]), np.array([1.0, 0.0])
    found = pagerank(graph, personalization=end, dangling=end, nstart=beginning, method=method, backend=backend)
    np.testing.assert_allclose(found, [0, 1], atol=1e-12)
