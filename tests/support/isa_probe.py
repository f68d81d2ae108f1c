"""Runs the native ops in a process of its own, so that RLSFT_ISA can choose the instruction set (test_dispatch.py).

Writes what came out to the .npz file named on the command line. The inputs are made here and written too, so that the
test compares against exactly what the ops saw.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from rlsft_kernels import (
    _C,
    bleu_scores,
    isodata,
    keyword_rank,
    pagerank,
    rank_and_cluster,
    rouge_l_scores,
    similarity_matrix,
    textrank,
)
from tests.support.graphs import random_graph, response_groups

EDGES = ("shifted_cosine", "relu_cosine")
# every remainder of the vector widths of all instruction sets, and one above
WIDTHS = (1, 7, 8, 15, 16, 17, 64, 65)
NATIVE: dict[str, Any] = {"backend": "native"}


def decisions_and_values() -> dict[str, np.ndarray]:
    """Op results on the same inputs, by name."""
    found: dict[str, np.ndarray] = {}
    for dtype in ("float32", "float64"):
        rows = response_groups(3, 18, 50, seed=1).astype(dtype)
        graphs = np.stack([random_graph(13, seed=s) for s in range(3)]).astype(dtype)
        found[f"rows {dtype}"], found[f"graphs {dtype}"] = rows, graphs
        for edge in EDGES:
            found[f"similarity {edge} {dtype}"] = similarity_matrix(rows, edge=edge, **NATIVE)
            for form in ("stochastic", "eigenvector"):
                found[f"textrank {edge} {form} {dtype}"] = textrank(
                    embeddings=rows, edge=edge, form=form, **NATIVE
                ).scores
        found[f"dense stochastic {dtype}"] = textrank(graphs, **NATIVE).scores
        for variant in ("ball_hall", "str"):
            for geometry in ("euclidean", "cosine"):
                clusters = isodata(clustered(dtype), variant=variant, geometry=geometry, **NATIVE)
                found[f"labels {variant} {geometry} {dtype}"] = clusters.labels
                found[f"medoids {variant} {geometry} {dtype}"] = clusters.medoids
        both = rank_and_cluster(clustered(dtype), **NATIVE)
        found[f"textrank fused {dtype}"], found[f"labels fused {dtype}"] = both.ranking.scores, both.clusters.labels
        large = isodata(np.concatenate(list(clustered(dtype)) * 3), n_clusters=6, **NATIVE)
        found[f"labels large {dtype}"], found[f"medoids large {dtype}"] = large.labels, large.medoids
        found[f"pagerank {dtype}"] = pagerank(sparse_weights(dtype), **NATIVE)
        found[f"textrank implicit {dtype}"] = textrank(
            embeddings=response_groups(1, 300, 19).astype(dtype)[0], **NATIVE
        ).scores
    tokens = token_lists()
    for edge in ("word_overlap", "bm25"):
        found[f"tokens {edge}"] = similarity_matrix(tokens=tokens, edge=edge, **NATIVE)
    found["keywords"] = keyword_rank(np.concatenate(tokens), **NATIVE).scores
    found["bleu"] = bleu_scores(tokens[:10], tokens[10:], **NATIVE)
    found["rouge"] = rouge_l_scores(tokens[:10], tokens[10:], **NATIVE).f1
    return found


def token_lists() -> list[list[int]]:
    """Twenty texts of twelve words out of thirty."""
    return [[int(t) for t in row] for row in np.random.default_rng(0).integers(0, 30, (20, 12))]


def sparse_weights(dtype: str) -> np.ndarray:
    """Edges of a directed graph with nodes that nothing enters."""
    return np.tril(random_graph(70, seed=5)).astype(dtype)


def clustered(dtype: str) -> np.ndarray:
    """Four groups of points around three centres each."""
    g = np.random.default_rng(2)
    centers = 3 * g.standard_normal((4, 3, 21))
    return (centers[:, g.integers(0, 3, 25)] + g.standard_normal((4, 25, 21))).astype(dtype)


def is_refused(call: Any) -> bool:
    try:
        call()
    except ValueError:
        return True
    return False


def accepted_bad_values() -> list[str]:
    """Every op, dtype, width, place and bad value that was not refused; empty when the checks hold."""
    accepted = []
    for dtype in (np.float32, np.float64):
        for d in WIDTHS:
            for place in sorted({0, d // 2, d // 8 * 8 - 1, d // 16 * 16, d - 1} & set(range(d))):
                for value in (np.nan, np.inf, -np.inf):
                    rows = response_groups(1, 5, d, dtype=dtype)[0]
                    rows[(d + place) % 5, place] = value
                    graph = np.ones((d, d), dtype=dtype)
                    graph[d - 1 - place, place] = value
                    calls = {
                        "textrank": lambda rows=rows: textrank(embeddings=rows, **NATIVE),
                        "similarity": lambda rows=rows: similarity_matrix(rows, **NATIVE),
                        "isodata": lambda rows=rows: isodata(rows, **NATIVE),
                        "dense": lambda graph=graph: textrank(graph, **NATIVE),
                        "eigenvector": lambda graph=graph: textrank(graph, form="eigenvector", **NATIVE),
                    }
                    accepted += [
                        f"{op} {dtype.__name__} d={d} {place}: {value}"
                        for op, call in calls.items()
                        if not is_refused(call)
                    ]
    return accepted


def main() -> None:
    np.savez(
        sys.argv[1], isa=_C.cpu_isa(), accepted=np.array(accepted_bad_values(), dtype=str), **decisions_and_values()
    )


if __name__ == "__main__":
    main()
