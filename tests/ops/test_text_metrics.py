"""The scores of token ids are the metrics of texts on the same words."""

from __future__ import annotations

import numpy as np
import pytest

from rlsft.metrics import rouge_l, self_bleu, sentence_bleu, sentence_gleu
from rlsft_kernels import bleu_scores, gleu_scores, rouge_l_scores, self_bleu_groups
from tests.metrics.test_overlap import noisy_pairs


def test_scores_of_ids_are_the_metrics_of_texts() -> None:
    pairs = noisy_pairs()
    number: dict[str, int] = {}
    references, hypotheses = (
        [[number.setdefault(word, len(number)) for word in pair[side].split()] for pair in pairs] for side in (0, 1)
    )
    for scores, metric in (
        (bleu_scores(hypotheses, references), sentence_bleu),
        (gleu_scores(hypotheses, references), sentence_gleu),
        (rouge_l_scores(hypotheses, references).f1, rouge_l),
    ):
        np.testing.assert_allclose(scores, [metric(r, h) for r, h in pairs], rtol=1e-12)
    together = np.mean(np.asarray(self_bleu_groups(references)))
    assert together == pytest.approx(self_bleu([r for r, _ in pairs]), abs=1e-12)
