"""BLEU, GLEU and ROUGE-L on token ids, fast enough for rewards and monitors."""

from __future__ import annotations

from rlsft_kernels.text_scores.op import RougeLScores, bleu_scores, gleu_scores, rouge_l_scores, self_bleu_groups

__all__ = ["RougeLScores", "bleu_scores", "gleu_scores", "rouge_l_scores", "self_bleu_groups"]
