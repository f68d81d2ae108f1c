"""The definition of rank_and_cluster: the two ops, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlsft_kernels._backend import Backend
from rlsft_kernels._groups import Array
from rlsft_kernels.isodata.op import isodata
from rlsft_kernels.isodata.result import IsodataResult
from rlsft_kernels.textrank.op import textrank
from rlsft_kernels.textrank.result import TextRankResult


def rank_and_cluster_reference(
    embeddings: Array,
    groups: Array | None,
    rank: Mapping[str, Any],  # keyword arguments of textrank
    cluster: Mapping[str, Any],  # keyword arguments of isodata
    *,
    threads: int | None = None,
    backend: Backend = "reference",
) -> tuple[TextRankResult, IsodataResult]:
    """textrank(embeddings), then isodata(embeddings) with those scores as the tie-break of the medoids."""
    ranking = textrank(embeddings=embeddings, groups=groups, threads=threads, backend=backend, **rank)
    clusters = isodata(embeddings, groups=groups, scores=ranking.scores, threads=threads, backend=backend, **cluster)
    return ranking, clusters
