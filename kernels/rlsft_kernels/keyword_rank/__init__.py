"""Keywords of texts: PageRank of the words that stand near each other."""

from __future__ import annotations

from rlsft_kernels.keyword_rank.op import KeywordRankResult, keyword_rank

__all__ = ["KeywordRankResult", "keyword_rank"]
