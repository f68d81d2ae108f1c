"""Edge weights between responses, from embeddings or from the words they share."""

from __future__ import annotations

from rlsft_kernels.similarity.op import similarity_matrix

__all__ = ["similarity_matrix"]
