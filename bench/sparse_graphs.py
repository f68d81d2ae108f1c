"""Graphs of a given number of edges, n = edges / 10: uniform, preferential, and with targets by Zipf's law. Seeded."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

ATTACHED = 5  # edges of a new node of the preferential graph


def uniform_graph(edges: int) -> sp.csr_array:
    """Erdos-Renyi: uniform endpoints; self loops and repeats dropped."""
    g, n = np.random.default_rng(0), edges // 10
    return _from_ids(n, g.integers(0, n, edges), g.integers(0, n, edges))


def preferential_graph(edges: int) -> sp.csr_array:
    """Barabasi-Albert: each new node takes 5 edges to ends of earlier edges, then symmetrised."""
    g, n = np.random.default_rng(0), edges // 10
    count = n * ATTACHED
    sources = np.repeat(np.arange(n), ATTACHED)
    # place 2e of the list of ends is the source of edge e, place 2e + 1 a copy of a random earlier place
    copied = (g.random(count) * (2 * np.arange(count) + 1)).astype(np.int64)
    place = copied.copy()
    while (odd := place % 2 == 1).any():
        place[odd] = copied[place[odd] // 2]
    targets = sources[place // 2]
    return _from_ids(n, np.concatenate([sources, targets]), np.concatenate([targets, sources]))


def zipf_graph(edges: int) -> sp.csr_array:
    """Uniform sources, targets by rank^-1.2 in a random order of the nodes; self loops and repeats dropped."""
    g, n = np.random.default_rng(0), edges // 10
    sources = g.integers(0, n, edges)
    cumulated = np.cumsum(np.arange(1, n + 1) ** -1.2)
    ranks = np.searchsorted(cumulated / cumulated[-1], g.random(edges))
    return _from_ids(n, sources, g.permutation(n)[np.minimum(ranks, n - 1)])


def _from_ids(n: int, sources: Any, targets: Any) -> sp.csr_array:
    keep = sources != targets
    keys = np.unique(sources[keep].astype(np.int64) * n + targets[keep])
    rows, columns = np.divmod(keys, n)
    pointers = np.zeros(n + 1, dtype=np.int32)
    np.cumsum(np.bincount(rows, minlength=n), out=pointers[1:])
    return sp.csr_array((np.ones(len(keys)), columns.astype(np.int32), pointers), shape=(n, n))
