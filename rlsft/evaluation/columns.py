"""The numbers of one answer that a comparison shows: overlap with references, behaviour, reward and KPI."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rlsft.evaluation.records import Generation
from rlsft.metrics import (
    Meteor,
    exact_match,
    repetition,
    rouge_l,
    sentence_bleu,
    sentence_chrf,
    sentence_gleu,
    token_f1,
)
from rlsft.metrics.bootstrap import Better
from rlsft.metrics.overlap import Smoothing

Measure = Callable[[Generation], float | None]


@dataclass(frozen=True)
class Metric:
    """A number of one answer, and how to show it."""

    key: str
    label: str
    unit: str
    better: Better | None
    measure: Measure
    digits: int = 2


def overlap_metrics(language: str, meteor: Meteor) -> list[Metric]:
    """Metrics against the references, in per cent; None for an answer without references."""

    def per_cent(score: Callable[[Generation], float]) -> Measure:
        return lambda row: 100.0 * score(row) if row.references else None

    def bleu(smoothing: Smoothing) -> Measure:
        return per_cent(
            lambda row: sentence_bleu(row.references, row.completion, language=language, smoothing=smoothing)
        )

    named: list[tuple[str, str, Measure]] = [
        ("bleu", "BLEU-4 (nltk, method3)", bleu("method3")),
        ("bleu_unsmoothed", "BLEU-4 unsmoothed (nltk)", bleu("none")),
        (
            "gleu",
            "GLEU (Google, nltk)",
            per_cent(lambda row: sentence_gleu(row.references, row.completion, language=language)),
        ),
        (
            "meteor",
            f"METEOR (nltk, {meteor.variant})",
            per_cent(lambda row: meteor(row.references, row.completion)),
        ),
        ("chrf", "chrF2 (sacrebleu)", per_cent(lambda row: sentence_chrf(row.references, row.completion))),
        (
            "rouge_l",
            "ROUGE-L (F1)",
            per_cent(lambda row: rouge_l(row.references, row.completion, language=language)),
        ),
        (
            "token_f1",
            "Token F1",
            per_cent(lambda row: token_f1(row.references, row.completion, language=language)),
        ),
        (
            "exact_match",
            "Exact match",
            per_cent(lambda row: exact_match(row.references, row.completion, language=language)),
        ),
    ]
    return [Metric(key, label, "%", "higher", measure) for key, label, measure in named]


def behaviour_metrics(language: str, kpi_name: str | None) -> list[Metric]:
    """What needs no reference. None where the record does not hold it."""
    return [
        Metric(
            "repetition",
            "Repeated 4-grams",
            "%",
            "lower",
            lambda row: 100.0 * repetition(row.completion, language=language),
        ),
        Metric("length", "Length", "tokens", None, lambda row: row.length, digits=1),
        Metric(
            "ended",
            "Ended by itself",
            "%",
            "higher",
            lambda row: None if row.ended is None else 100.0 * row.ended,
            digits=1,
        ),
        Metric("reward", "Reward (learned)", "", "higher", lambda row: row.reward, digits=3),
        Metric("kl", "KL to the reference", "nats", None, lambda row: row.kl, digits=3),
        Metric("kpi", f"KPI ({kpi_name})" if kpi_name else "KPI", "", "higher", lambda row: row.kpi, digits=3),
    ]
