"""TextRank scores of one graph or of many small ones."""

from __future__ import annotations

from rlsft_kernels.textrank.op import textrank
from rlsft_kernels.textrank.result import ConvergenceError, TextRankResult

__all__ = ["ConvergenceError", "TextRankResult", "textrank"]
