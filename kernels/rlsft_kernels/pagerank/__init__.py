"""PageRank of one large sparse graph."""

from __future__ import annotations

from rlsft_kernels.pagerank.op import pagerank
from rlsft_kernels.pagerank.result import PagerankResult

__all__ = ["PagerankResult", "pagerank"]
