"""Numbers from strings and arrays, without models: overlap, diversity, agreement, calibration, intervals."""

from rlsft.metrics.agreement import (
    cohen_kappa,
    exact_order_rate,
    fleiss_kappa,
    is_exact_order,
    kendall_tau_b,
    top1_agreement,
)
from rlsft.metrics.bootstrap import (
    MIN_UNITS_FOR_VERDICT,
    Interval,
    bootstrap_mean,
    jackknife_interval,
    paired_bootstrap,
    verdict,
)
from rlsft.metrics.calibration import Calibration, mean_margin, pair_calibration, reward_accuracy
from rlsft.metrics.correlation import average_ranks, correlate, pearson, spearman
from rlsft.metrics.diversity import (
    distinct_n,
    distinct_n_leave_one_out,
    length_in_words,
    repetition,
    self_bleu,
)
from rlsft.metrics.meteor import Meteor
from rlsft.metrics.overlap import (
    CorpusScore,
    corpus_bleu,
    corpus_chrf,
    exact_match,
    rouge_l,
    sentence_bleu,
    sentence_chrf,
    sentence_gleu,
    sentence_sacrebleu,
    token_f1,
)

__all__ = [
    "MIN_UNITS_FOR_VERDICT",
    "Calibration",
    "CorpusScore",
    "Interval",
    "Meteor",
    "average_ranks",
    "bootstrap_mean",
    "cohen_kappa",
    "corpus_bleu",
    "corpus_chrf",
    "correlate",
    "distinct_n",
    "distinct_n_leave_one_out",
    "exact_match",
    "exact_order_rate",
    "fleiss_kappa",
    "is_exact_order",
    "jackknife_interval",
    "kendall_tau_b",
    "length_in_words",
    "mean_margin",
    "pair_calibration",
    "paired_bootstrap",
    "pearson",
    "repetition",
    "reward_accuracy",
    "rouge_l",
    "self_bleu",
    "sentence_bleu",
    "sentence_chrf",
    "sentence_gleu",
    "sentence_sacrebleu",
    "spearman",
    "token_f1",
    "top1_agreement",
    "verdict",
]
