"""TextRank of sentences and answers from token ids: edges and scores. The text is cut from licences where they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from bench.measure import Provider
from rlsft.text import split_sentences, split_words
from rlsft_kernels import textrank

LICENCES = Path("/usr/share/common-licenses")
TOL = 1e-6


def licence_sentences(count: int) -> tuple[list[list[str]], str]:
    """`count` sentences of at least three words, and where they come from; synthetic ones where there is no text."""
    names = ("GPL-3", "GPL-2", "Apache-2.0", "LGPL-2.1")
    texts = [(LICENCES / name).read_text() for name in names if (LICENCES / name).is_file()]
    words = [
        [word.lower() for word in split_words(sentence) if word[0].isalnum()]
        for sentence in split_sentences(" ".join(" ".join(texts).split()))
    ]
    long_enough = [sentence for sentence in words if len(sentence) > 2][:count]
    if len(long_enough) == count:
        return long_enough, "licence text"
    rng = np.random.default_rng(0)
    return [[f"w{i}" for i in zipf(rng, int(n))] for n in rng.integers(6, 49, size=count)], "synthetic text"


def zipf(rng: np.random.Generator, size: int) -> np.ndarray:
    """Word numbers as frequent as in text."""
    share = 1 / np.arange(1, 20001)
    return rng.choice(20000, size=size, p=share / share.sum())


def numpy_version(rows: list[np.ndarray]) -> np.ndarray:
    """The word-overlap graph as one product of 0/1 rows, and a power iteration."""
    vocabulary = {word: i for i, word in enumerate(np.unique(np.concatenate(rows)).tolist())}
    present = np.zeros((len(rows), len(vocabulary)), np.float32)
    for i, row in enumerate(rows):
        present[i, [vocabulary[word] for word in set(row.tolist())]] = 1
    logs = np.log([max(len(row), 1) for row in rows])
    below = logs[:, None] + logs
    edges = np.where(below > 0, present @ present.T / np.where(below > 0, below, 1), 0).astype(np.float64)
    np.fill_diagonal(edges, 0)
    strength = edges.sum(1, keepdims=True)
    n = len(rows)
    transition = np.where(strength > 0, edges / np.where(strength > 0, strength, 1), 1 / n)
    x, step = np.full(n, 1 / n), 1.0
    while step >= TOL:
        following = 0.15 / n + 0.85 * (x @ transition)
        step = float(np.abs(following - x).sum())
        x = following
    return x


def networkx_version(rows: list[np.ndarray]) -> np.ndarray:
    """Sets of words pair by pair, then networkx.pagerank."""
    sets, n = [set(row.tolist()) for row in rows], len(rows)
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    for i in range(n):
        for j in range(i):
            below = np.log(len(rows[i])) + np.log(len(rows[j]))
            if below > 0 and (shared := len(sets[i] & sets[j])):
                graph.add_edge(i, j, weight=shared / below)
    ranks = nx.pagerank(graph, tol=TOL / n, max_iter=1000)
    return np.array([ranks[i] for i in range(n)])


def summa_version(sentences: list[str]) -> np.ndarray:
    """summa's scoring of sentences it has cleaned already: its graph and its eigenvectors."""
    from summa import summarizer

    graph = summarizer._build_graph(sentences)
    summarizer._set_graph_edge_weights(graph)
    scores = summarizer._pagerank(graph)
    found = np.array([float(scores[sentence]) for sentence in sentences])
    return found / found.sum()  # summa's vector has length 1


@dataclass
class TextRankCase:
    """Token ids in groups."""

    truth: np.ndarray  # [responses]
    shape: str
    note: str
    providers: list[Provider]
    dtype: str = "int64 ids"
    baseline: str = "rlsft native 1T"

    def check(self, provider: Provider) -> str:
        """Mean L1 error of a group against the reference at 1e-13."""
        got = np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in provider.run()])
        error = float(np.abs(got - self.truth[: len(got)]).sum() / self.truth[: len(got)].sum())
        if not error < 1e-5:
            raise AssertionError(f"{provider.name} is wrong by {error:.2e} (L1) on {self.shape}; not timed")
        return f"L1 {error:.1e}"


def ours(ids: np.ndarray, offsets: np.ndarray, groups: np.ndarray, edge: str) -> Callable[[], list[Any]]:
    """The public op, from ids to scores."""
    return lambda: [textrank(tokens=ids, token_offsets=offsets, groups=groups, edge=edge, tol=TOL).scores]


def case(rows: list[np.ndarray], groups: np.ndarray, note: str, few: int, peers: list[Provider]) -> TextRankCase:
    """Ours from flat ids and from lists, NumPy and networkx on `few` of the groups, and other peers."""
    ids, offsets = np.concatenate(rows), np.cumsum([0, *map(len, rows)])
    lists = [row.tolist() for row in rows]
    kwargs: dict[str, Any] = {"token_offsets": offsets, "groups": groups, "edge": "word_overlap"}
    truth = textrank(tokens=ids, tol=1e-13, backend="reference", **kwargs).scores
    cuts = [rows[a:b] for a, b in pairwise(groups[: few + 1].tolist())]
    scale = (len(groups) - 1) / few
    return TextRankCase(
        np.asarray(truth),
        f"{len(groups) - 1} x {(len(rows)) // (len(groups) - 1)}, {len(ids)} tokens",
        note,
        [
            Provider("rlsft native 1T", ours(ids, offsets, groups, "word_overlap")),
            Provider("rlsft native 2T", ours(ids, offsets, groups, "word_overlap"), threads=2),
            Provider(
                "rlsft native 1T, lists of ids",
                lambda: [textrank(tokens=lists, groups=groups, edge="word_overlap", tol=TOL).scores],
            ),
            Provider("numpy 1T", lambda: [numpy_version(cut) for cut in cuts], scale=scale, package="numpy"),
            Provider("networkx", lambda: [networkx_version(cut) for cut in cuts], scale=scale, package="networkx"),
            *peers,
        ],
    )


def cases(*, quick: bool) -> Iterator[TextRankCase]:
    """One document of 208 sentences; 512 groups of 16 answers of about 64 tokens."""
    words, source = licence_sentences(40 if quick else 208)
    unique = list({" ".join(sentence): sentence for sentence in words}.values())  # summa keys sentences by their text
    number = {word: i for i, word in enumerate(dict.fromkeys(word for sentence in unique for word in sentence))}
    rows = [np.array([number[word] for word in sentence], dtype=np.int64) for sentence in unique]
    peers = []
    if find_spec("summa") is None:
        print("text_textrank: summa is not installed; its row is left out (pip install summa)")
    else:
        joined = [" ".join(sentence) for sentence in unique]
        peers = [Provider("summa scoring", lambda: [summa_version(joined)], package="summa")]
    yield case(rows, np.array([0, len(rows)]), f"word overlap, L1 step 1e-6, {source}", 1, peers)
    rng, count = np.random.default_rng(0), 64 if quick else 512
    answers = [zipf(rng, int(n)) for n in rng.integers(48, 81, size=count * 16)]
    yield case(answers, np.arange(count + 1) * 16, "word overlap, L1 step 1e-6, Zipf ids", min(count, 32), [])
