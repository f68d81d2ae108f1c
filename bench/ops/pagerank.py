"""One sparse graph: CSR in, scores out, the transpose included. 4 bytes and one random gather an edge and sweep."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from bench.measure import Provider
from bench.pagerank_peers import Found, optional_peers, scipy_peers
from bench.sparse_graphs import preferential_graph, uniform_graph, zipf_graph
from rlsft_kernels import _C, pagerank

TOL = 1e-8  # absolute L1 step
FLOAT32_TOL = 2e-6  # float32 loops circle below that
# errors above the first are wrong; known ones of peers stay in the table, with their error beside the time
WRONG, WRONG_PEER = 1e-7, 1e-2


@dataclass
class PagerankCase:
    """One graph."""

    graph: sp.csr_array
    truth: np.ndarray  # [n] float64
    shape: str
    providers: list[Provider]
    dtype: str = "float64"
    note: str = ""
    baseline: str = "rlsft 1T, from CSR"

    def check(self, provider: Provider) -> str:
        """The L1 error against float64 Jacobi at 1e-15, and the sweeps: a laxer stop is not a faster kernel."""
        scores, sweeps = provider.run()
        error = float(np.abs(np.asarray(scores, dtype=np.float64) - self.truth).sum())
        if not error < (WRONG_PEER if provider.package else WRONG if "2e-6" not in provider.name else FLOAT32_TOL):
            raise AssertionError(f"{provider.name} is wrong by {error:.2e} (L1) on {self.shape}; not timed")
        split = f", {split_ms(self.graph, provider.threads)}" if provider.name.endswith("from CSR") else ""
        split = split if provider.package is None else ""
        return f"L1 {error:.1e}" + (f", {sweeps} sweeps" if sweeps else "") + split


def cases(*, quick: bool) -> Iterator[PagerankCase]:
    """Three kinds of graph of 10^6 edges, and of 10^7 where time allows (not with --quick)."""
    sizes = [100_000] if quick else [1_000_000, 10_000_000]
    if os.environ.get("RLSFT_BENCH_EDGES"):
        sizes = [int(float(os.environ["RLSFT_BENCH_EDGES"]))]
    for edges in sizes:
        for name, make in (("ER", uniform_graph), ("BA", preferential_graph), ("Zipf", zipf_graph)):
            graph = make(edges)
            truth = pagerank(graph, method="jacobi", tol=1e-15, max_iter=300, on_nonconvergence="ignore")
            ours = our_providers(graph)
            peers = scipy_peers(graph, TOL, FLOAT32_TOL)
            peers += optional_peers(graph, TOL, FLOAT32_TOL, with_networkx=name == "ER" and edges <= 1_000_000)
            note = f"L1 step {TOL:g}; {limit_words(graph)}"
            yield PagerankCase(graph, truth, f"{name} {edges:.0e} edges", ours + peers, note=note)


def our_providers(graph: sp.csr_array) -> list[Provider]:
    """The public op, everything included: checks, transpose, ordering of the rows, sweeps."""
    csc = graph.tocsc()
    return [
        Provider("rlsft 1T, from CSR", ours(graph)),
        Provider("rlsft 2T, from CSR", ours(graph), threads=2),
        Provider("rlsft 1T, from CSC", ours(csc)),
        Provider("rlsft 1T, step 2e-6, from CSC", ours(csc, tol=FLOAT32_TOL)),
        Provider("rlsft 1T Jacobi, from CSC", ours(csc, method="jacobi")),
    ]


def ours(graph: sp.csr_array, **options: object) -> Callable[[], Found]:
    """`threads` follows torch, which the harness sets."""

    def run() -> Found:
        found = pagerank(graph, return_info=True, **{"tol": TOL, **options})
        return found.scores, found.n_iter

    return run


def split_ms(graph: sp.csr_array, threads: int) -> str:
    """How the time falls apart: what a peer with its matrix made beforehand does not pay, and the sweeps. Best of 7."""
    pointers, scores = graph.indptr.astype(np.int64), np.empty(graph.shape[0])
    runs = [
        _C.pagerank(
            graph.shape[0],
            0,
            pointers,
            None,
            graph.indices,
            None,
            None,
            None,
            None,
            None,
            0.85,
            TOL,
            200,
            0,
            threads,
            scores,
        )
        for _ in range(7)
    ]
    build, sweep = (min(run[part] for run in runs) for part in ("build_ms", "sweep_ms"))
    return f"transpose {build:.1f} ms + sweeps {sweep:.1f} ms"


def limit_words(graph: sp.csr_array) -> str:
    """The wall of one pull sweep on this graph: streamed bytes, and one gather an edge from a table of 8 n bytes."""
    n, edges = graph.shape[0], graph.nnz
    streamed = 4 * edges + 32 * n
    return f"a sweep streams {streamed / 1e6:.0f} MB and gathers {edges / 1e6:.1f} M values from {8 * n / 1e6:.1f} MB"
