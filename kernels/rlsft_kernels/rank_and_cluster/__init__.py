"""TextRank and ISODATA of the same groups of embeddings in one call."""

from __future__ import annotations

from rlsft_kernels.rank_and_cluster.op import RankAndClusterResult, rank_and_cluster

__all__ = ["RankAndClusterResult", "rank_and_cluster"]
