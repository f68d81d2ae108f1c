"""What a user without this package would write for dense TextRank, where the package it needs is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
import scipy.sparse as sp

from bench.measure import Provider

DAMPING = 0.85


def cut_off_cosines(rows: np.ndarray) -> np.ndarray:
    """max(cos, 0) of every pair of rows, diagonal 0."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    edges = np.maximum(unit @ unit.T, 0)
    np.fill_diagonal(edges, 0)
    return edges


def power_iteration(edges: np.ndarray, tol: float) -> np.ndarray:
    """One graph in NumPy, in the precision of its edges."""
    strength = edges.sum(1)
    transition = np.where(strength[:, None] > 0, edges / np.maximum(strength, 1e-30)[:, None], 1 / len(edges))
    x = np.full(len(edges), 1 / len(edges), edges.dtype)
    for _ in range(1000):
        following = DAMPING * (x @ transition) + (1 - DAMPING) / len(edges)
        step = np.abs(following - x).sum()
        x = following
        if step < tol:
            break
    return x


def numpy_loop(groups: np.ndarray, tol: float) -> np.ndarray:
    """One group after the other in NumPy."""
    return np.stack([power_iteration(cut_off_cosines(rows), tol) for rows in groups])


def igraph_scores(edges: np.ndarray) -> np.ndarray:
    """PRPACK, exact to 1e-13, with the construction of the graph."""
    import igraph

    upper = np.triu_indices(len(edges), 1)
    weights = edges[upper].astype(np.float64)
    kept = weights > 0
    pairs = np.stack(upper, axis=1)[kept]
    graph = igraph.Graph(n=len(edges), edges=pairs, directed=False)
    return np.array(graph.pagerank(damping=DAMPING, weights=weights[kept].tolist()))


def igraph_loop(groups: np.ndarray) -> np.ndarray:
    """igraph, one group after the other."""
    return np.stack([igraph_scores(cut_off_cosines(rows)) for rows in groups])


def scikit_network_scores(graph: sp.csr_matrix, tol: float) -> np.ndarray:
    """Its power iteration; undirected graphs without sinks are the case it gets right."""
    from sknetwork.ranking import PageRank

    return np.asarray(PageRank(DAMPING, solver="piteration", n_iter=1000, tol=tol).fit_predict(graph))


def fast_pagerank_scores(graph: sp.csr_matrix, tol: float) -> np.ndarray:
    """Its power iteration; stops on an L2 step, so tol / sqrt(n) stands for our L1 step."""
    from fast_pagerank import pagerank_power

    return np.asarray(pagerank_power(graph, p=DAMPING, tol=tol / np.sqrt(graph.shape[0])))


def batch_peers(groups: np.ndarray, tol: float) -> list[Provider]:
    """Loops over the groups."""
    listed = [Provider("numpy loop 1T", partial(numpy_loop, groups, tol), package="numpy")]
    return listed + _installed([("igraph", "igraph", "igraph loop", partial(igraph_loop, groups))])


def matrix_peers(edges: np.ndarray, tol: float) -> list[Provider]:
    """Packages for one graph; the conversion to CSR is not timed."""
    graph = sp.csr_matrix(edges)
    return _installed(
        [
            ("sknetwork", "scikit-network", "scikit-network on CSR", partial(_row, scikit_network_scores, graph, tol)),
            ("fast_pagerank", "fast-pagerank", "fast-pagerank on CSR", partial(_row, fast_pagerank_scores, graph, tol)),
        ]
    )


def _row(scores: Callable[[sp.csr_matrix, float], np.ndarray], graph: sp.csr_matrix, tol: float) -> np.ndarray:
    return scores(graph, tol)[None]


def _installed(peers: list[tuple[str, str, str, Callable[[], np.ndarray]]]) -> list[Provider]:
    listed = []
    for module, package, name, run in peers:
        if find_spec(module) is None:
            print(f"  {name}: {package} is not installed (requirements/bench.txt), no row")
        else:
            listed.append(Provider(name, run, package=package))
    return listed
