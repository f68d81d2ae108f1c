"""What a Python user would call instead of ours on one large graph; every peer stops at the same absolute L1 step."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.sparse as sp

from bench.measure import Provider

ALPHA = 0.85
Found = tuple[np.ndarray, int | None]  # scores, and sweeps where the peer tells


def power_loop(transposed: Any, dangling: np.ndarray, tol: float) -> Found:
    """The 15 lines people write: transposed holds w_ij / s_i, row j the edges that enter j."""
    n = transposed.shape[0]
    x = np.full(n, 1 / n, dtype=transposed.dtype)
    sweep = 0
    while sweep < 1000:
        sweep += 1
        following = ALPHA * (transposed @ x) + (ALPHA * x[dangling].sum() + 1 - ALPHA) / n
        step = np.abs(following - x).sum()
        x = following.astype(transposed.dtype, copy=False)
        if step < tol:
            break
    return x, sweep


def transition(graph: sp.csr_array, dtype: Any = np.float64) -> tuple[Any, np.ndarray]:
    """(D^-1 A)^T as CSR, and the nodes without out-edges."""
    degree = np.diff(graph.indptr)
    scaled = graph.copy()
    scaled.data = np.repeat(1 / np.maximum(degree, 1), degree)
    return scaled.T.tocsr().astype(dtype), np.flatnonzero(degree == 0)


def scipy_peers(graph: sp.csr_array, tol: float, float32_tol: float) -> list[Provider]:
    """The loop on a matrix made beforehand in two precisions, and with its making."""
    double, dangling = transition(graph)
    single = double.astype(np.float32)
    return [
        Provider("scipy loop float64, matrix ready", lambda: power_loop(double, dangling, tol), package="scipy"),
        Provider("scipy loop float64, from CSR", lambda: power_loop(*transition(graph), tol), package="scipy"),
        Provider(
            "scipy loop float32, matrix ready", lambda: power_loop(single, dangling, float32_tol), package="scipy"
        ),
    ]


def igraph_peer(graph: sp.csr_array, tol: float) -> Provider:
    """PRPACK, which chooses its own tolerance of 1e-13."""
    import igraph

    coo = graph.tocoo()
    peer = igraph.Graph(n=graph.shape[0], edges=np.stack([coo.row, coo.col], axis=1), directed=True)
    return Provider("igraph prpack", lambda: (np.array(peer.pagerank(implementation="prpack")), None), package="igraph")


def rustworkx_peer(graph: sp.csr_array, tol: float) -> Provider:
    """Its tol is per node."""
    import rustworkx

    n, coo = graph.shape[0], graph.tocoo()
    peer = rustworkx.PyDiGraph()
    peer.add_nodes_from(range(n))
    peer.add_edges_from_no_data(list(zip(coo.row.tolist(), coo.col.tolist(), strict=True)))

    def run() -> Found:
        scores = rustworkx.pagerank(peer, alpha=ALPHA, tol=tol / n, max_iter=500)
        return np.fromiter((scores[i] for i in range(n)), dtype=np.float64, count=n), None

    return Provider("rustworkx", run, package="rustworkx")


def scikit_network_peer(graph: sp.csr_array, tol: float) -> Provider:
    """Its restart vector is off where there are sinks: the error column says by how much."""
    from sknetwork.ranking import PageRank

    matrix = sp.csr_matrix(graph)

    def run() -> Found:
        return PageRank(ALPHA, solver="piteration", n_iter=500, tol=tol).fit_predict(matrix), None

    return Provider("scikit-network", run, package="scikit-network")


def fast_pagerank_peer(graph: sp.csr_array, tol: float) -> Provider:
    """Stops on an L2 step; the tolerance here gives about the same L1 error."""
    from fast_pagerank import pagerank_power

    matrix, l2_tol = sp.csr_matrix(graph), tol / 30
    return Provider(
        "fast-pagerank power",
        lambda: (np.asarray(pagerank_power(matrix, p=ALPHA, tol=l2_tol, max_iter=500)), None),
        package="fast-pagerank",
    )


def graphblas_peers(graph: sp.csr_array, tol: float, float32_tol: float) -> list[Provider]:
    """A hand loop over SuiteSparse in two precisions, on two threads."""
    import graphblas as gb

    transposed = gb.io.from_scipy_sparse(graph.T.tocsr())
    degree = np.maximum(np.diff(graph.indptr), 1)
    dangling = np.flatnonzero(np.diff(graph.indptr) == 0)

    def loop(dtype: Any, stop: float) -> Found:
        n = graph.shape[0]
        gb.ss.config["nthreads"] = 2
        inverse = gb.Vector.from_dense((1 / degree).astype(dtype))
        x = gb.Vector.from_dense(np.full(n, 1 / n, dtype=dtype))
        sweep = 0
        while sweep < 1000:
            sweep += 1
            sent = x.ewise_mult(inverse, gb.binary.times).new()
            lost = float(x.to_dense()[dangling].sum())
            following = gb.Vector.from_dense(np.full(n, ((1 - ALPHA) + ALPHA * lost) / n, dtype=dtype))
            summed = transposed.mxv(sent, gb.semiring.plus_second).new()
            following(gb.binary.plus) << summed.apply(gb.binary.times, right=dtype(ALPHA))
            step = following.ewise_add(x, gb.binary.minus).new().apply(gb.unary.abs).reduce(gb.monoid.plus).new().value
            x = following
            if step < stop:
                break
        return x.to_dense(), sweep

    return [
        Provider("GraphBLAS loop float64 2T", lambda: loop(np.float64, tol), threads=2, package="python-graphblas"),
        Provider(
            "GraphBLAS loop float32 2T", lambda: loop(np.float32, float32_tol), threads=2, package="python-graphblas"
        ),
    ]


def networkx_peer(graph: sp.csr_array, tol: float) -> Provider:
    """Its tol is per node."""
    import networkx as nx

    n = graph.shape[0]
    peer = nx.from_scipy_sparse_array(graph, create_using=nx.DiGraph)

    def run() -> Found:
        scores = nx.pagerank(peer, alpha=ALPHA, tol=tol / n, max_iter=500)
        return np.array([scores[i] for i in range(n)]), None

    return Provider("networkx", run, package="networkx")


def graph_tool_peer(graph: sp.csr_array, tol: float) -> Provider:
    """Comes with the system, not with pip."""
    import graph_tool.all as gt

    coo = graph.tocoo()
    peer = gt.Graph(directed=True)
    peer.add_vertex(graph.shape[0])
    peer.add_edge_list(np.stack([coo.row, coo.col], axis=1))
    return Provider("graph-tool", lambda: (np.array(gt.pagerank(peer, damping=ALPHA, epsilon=tol).a), None))


def optional_peers(graph: sp.csr_array, tol: float, float32_tol: float, *, with_networkx: bool) -> list[Provider]:
    """Every peer that is installed; names those that are not."""
    makers: list[tuple[str, Callable[[], Provider | list[Provider]]]] = [
        ("igraph", lambda: igraph_peer(graph, tol)),
        ("rustworkx", lambda: rustworkx_peer(graph, tol)),
        ("sknetwork", lambda: scikit_network_peer(graph, tol)),
        ("fast_pagerank", lambda: fast_pagerank_peer(graph, tol)),
        ("graphblas", lambda: graphblas_peers(graph, tol, float32_tol)),
        ("graph_tool", lambda: graph_tool_peer(graph, tol)),
    ]
    if with_networkx:
        makers.append(("networkx", lambda: networkx_peer(graph, tol)))
    peers: list[Provider] = []
    for module, make in makers:
        if find_spec(module) is None:
            print(f"  {module}: not installed (requirements/bench.txt), no row")
            continue
        made = make()
        peers += made if isinstance(made, list) else [made]
    return peers
