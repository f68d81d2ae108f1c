"""What an edge weight means, slow and obvious, in float64. Tests treat this file as the truth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch


def cosine_edges_reference(
    embeddings: torch.Tensor,  # [n, d] float64, finite
    edge: str,
) -> torch.Tensor:  # [n, n] float64, diagonal 0
    """cos, 0.5 + 0.5 cos or max(cos, 0) of every pair of rows; a zero row has cosine 0 with everything."""
    if len(embeddings) == 0:
        return embeddings.new_zeros((0, 0))
    # dividing by the largest value first: squares of extreme rows would leave the range of double
    largest = embeddings.abs().amax(dim=1, keepdim=True)
    scaled = embeddings / torch.where(largest > 0, largest, torch.ones_like(largest))
    norm = (scaled * scaled).sum(dim=1, keepdim=True).sqrt()
    unit = scaled / torch.where(norm > 0, norm, torch.ones_like(norm))
    # one row at a time: unlike a matrix product, equal pairs then give equal bits wherever they lie
    cosine = torch.stack([(unit * row).sum(dim=1) for row in unit]).clamp(-1.0, 1.0)
    mapped = {"cosine": cosine, "shifted_cosine": 0.5 + 0.5 * cosine, "relu_cosine": cosine.clamp(min=0.0)}[edge]
    return mapped.fill_diagonal_(0.0)


def word_overlap_reference(
    responses: Sequence[Sequence[int]],  # n responses as token ids
    *,
    multiset: bool = False,
) -> torch.Tensor:  # [n, n] float64, diagonal 0
    """|shared words| / (log |S_i| + log |S_j|) (Mihalcea and Tarau 2004); |S| counts words with repeats.

    0 where a side is empty or both have one word. `multiset` counts a shared word as often as both sides have it.
    """
    counts = [Counter(response) for response in responses]
    edges = torch.zeros((len(responses), len(responses)), dtype=torch.float64)
    for i, a in enumerate(responses):
        for j, b in enumerate(responses):
            if i == j or not a or not b or len(a) == len(b) == 1:
                continue
            shared = (counts[i] & counts[j]).total() if multiset else len(counts[i].keys() & counts[j].keys())
            edges[i, j] = shared / (math.log(len(a)) + math.log(len(b)))
    return edges


def bm25_reference(
    responses: Sequence[Sequence[int]],  # n responses as token ids
    *,
    k1: float = 1.2,
    b: float = 0.75,
    epsilon: float = 0.25,
) -> torch.Tensor:  # [n, n] float64, diagonal 0, not symmetric
    """w_ij = BM25 of response j for the words of response i (Barrios et al. 2016), statistics of this group.

    A word in more than half of the responses has a negative idf; it gets max(0, epsilon * mean idf).
    """
    n = len(responses)
    counts = [Counter(response) for response in responses]
    containing = Counter(word for count in counts for word in count)
    raw = {word: math.log(n - c + 0.5) - math.log(c + 0.5) for word, c in containing.items()}
    floor = max(0.0, epsilon * sum(raw.values()) / len(raw)) if raw else 0.0
    idf = {word: floor if value < 0 else value for word, value in raw.items()}
    mean_length = sum(map(len, responses)) / n if n else 0.0
    edges = torch.zeros((n, n), dtype=torch.float64)
    for i, query in enumerate(responses):
        for j, document in enumerate(responses):
            if i == j:
                continue
            norm = k1 * (1 - b + b * len(document) / mean_length) if mean_length else 0.0
            found = [word for word in query if word in counts[j]]
            edges[i, j] = sum(idf[w] * counts[j][w] * (k1 + 1) / (counts[j][w] + norm) for w in found)
    return edges
