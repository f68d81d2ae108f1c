"""Answers of two models to a table: each metric with an interval, the paired difference and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rlsft.evaluation.columns import Metric, behaviour_metrics, overlap_metrics
from rlsft.evaluation.comparison import Comparison, MetricRow
from rlsft.evaluation.kpi import KpiFunction, score_kpi
from rlsft.evaluation.pairing import PairedAnswers, pair_by_prompt
from rlsft.evaluation.records import Generation
from rlsft.evaluation.wording import overall_sentence, warnings_of
from rlsft.metrics import (
    MIN_UNITS_FOR_VERDICT,
    Interval,
    Meteor,
    bootstrap_mean,
    corpus_bleu,
    corpus_chrf,
    correlate,
    distinct_n_leave_one_out,
    jackknife_interval,
    paired_bootstrap,
    verdict,
)
from rlsft.text import check_language


def compare(
    before: Sequence[Generation],
    after: Sequence[Generation],
    *,
    language: str = "en",
    kpi: KpiFunction | None = None,
    wordnet: str | Path | bool | None = None,
    level: float = 0.95,
    num_resamples: int = 2000,
    min_prompts: int = MIN_UNITS_FOR_VERDICT,
    seed: int = 0,
) -> Comparison:
    """Compare the answers of two models to the same prompts.

    Means come with bootstrap intervals, differences are paired by prompt (several answers to a prompt are
    averaged first, prompts of one `group` are resampled together), and a verdict needs an interval that
    leaves out 0. distinct-n is a number of the whole set: its interval comes from the jackknife.

    Args:
        before: answers of the first model, such as the SFT policy.
        after: answers of the second one; as many a prompt as in `before`.
        language: of the text: en, ja or zh.
        kpi: the user's score of an answer, see `load_kpi`; None uses the `kpi` that the records already hold.
        wordnet: where METEOR finds WordNet; None searches, False scores exact+stem.
        level: confidence of every interval.
        num_resamples: bootstrap samples.
        min_prompts: below this number of prompts (or groups) there is no verdict.
        seed: of the bootstrap.

    Raises:
        DataError: the two sets hold different prompts, or different numbers of answers to one.
    """
    check_language(language)
    if kpi is not None:
        before, after = score_kpi(kpi, before), score_kpi(kpi, after)
    paired = pair_by_prompt(before, after)

    def difference_of(metric: Metric) -> MetricRow:
        return _mean_row(metric, paired, level=level, num_resamples=num_resamples, seed=seed, minimum=min_prompts)

    metrics = (
        overlap_metrics(language, _meteor(language, wordnet)),
        behaviour_metrics(language, getattr(kpi, "name", None)),
    )
    overlap, behaviour = ([difference_of(metric) for metric in group] for group in metrics)
    distinct = [_distinct_row(n, paired, language, level, min_prompts) for n in (1, 2)]
    candidates = [*overlap, *distinct, *behaviour]
    rows = tuple(row for row in candidates if row.before.n or row.after.n)
    kpi_reward = _kpi_reward(paired, level, seed)
    return Comparison(
        before=paired.before_label,
        after=paired.after_label,
        language=language,
        num_prompts=len(paired.prompts),
        rows=rows,
        sentence=overall_sentence(rows, paired, min_prompts),
        warnings=tuple(warnings_of(rows, kpi_reward)),
        notes=tuple(_notes(candidates, paired, level)),
        corpus=_corpus_scores(paired, language),
        kpi_reward=kpi_reward,
        versions=_versions(),
    )


def _mean_row(
    metric: Metric, paired: PairedAnswers, *, level: float, num_resamples: int, seed: int, minimum: int
) -> MetricRow:
    before, after = (paired.per_prompt(metric.measure, side) for side in ("before", "after"))

    def interval(values: np.ndarray) -> Interval:
        known = np.isfinite(values)
        groups = [group for group, is_known in zip(paired.groups, known, strict=True) if is_known]
        return bootstrap_mean(values[known], groups=groups, level=level, num_resamples=num_resamples, seed=seed)

    both = np.isfinite(before) & np.isfinite(after)
    groups = [group for group, is_known in zip(paired.groups, both, strict=True) if is_known]
    difference = paired_bootstrap(
        before[both], after[both], groups=groups, level=level, num_resamples=num_resamples, seed=seed
    )
    return _row(metric, interval(before), interval(after), difference, minimum)


def _distinct_row(n: int, paired: PairedAnswers, language: str, level: float, minimum: int) -> MetricRow:
    units = paired.units()
    (before, without_before), (after, without_after) = (
        distinct_n_leave_one_out([row.completion for row in rows], n, language=language, units=units)
        for rows in (paired.before, paired.after)
    )
    metric = Metric(f"distinct_{n}", f"distinct-{n}", "", "higher", lambda row: None, digits=3)
    of_before, of_after, difference = (
        replace(jackknife_interval(value, left_out, level=level), n=len(paired.prompts))
        for value, left_out in (
            (before, without_before),
            (after, without_after),
            (after - before, without_after - without_before),
        )
    )
    return _row(metric, of_before, of_after, difference, minimum)


def _row(metric: Metric, before: Interval, after: Interval, difference: Interval, minimum: int) -> MetricRow:
    shown = 0.5 * 10.0**-metric.digits  # less than half of the last digit reads as 0 in every table
    words = verdict(difference, better=metric.better, min_units=minimum, resolution=shown)
    return MetricRow(
        key=metric.key,
        label=metric.label,
        unit=metric.unit,
        better=metric.better,
        digits=metric.digits,
        before=before,
        after=after,
        difference=difference,
        verdict=words if difference.n else "not compared",
    )


def _kpi_reward(paired: PairedAnswers, level: float, seed: int) -> dict[str, Interval]:
    """Rank correlation of KPI and reward over prompts, for each side that has both."""
    found = {}
    for side in ("before", "after"):
        kpi = paired.per_prompt(lambda row: row.kpi, side)
        reward = paired.per_prompt(lambda row: row.reward, side)
        both = np.isfinite(kpi) & np.isfinite(reward)
        if both.sum() >= 3:
            found[side] = correlate(kpi[both], reward[both], level=level, seed=seed)
    return found


def _corpus_scores(paired: PairedAnswers, language: str) -> dict[str, dict[str, float | str]]:
    """sacrebleu's corpus scores of the answers that have references."""
    sides = [[row for row in rows if row.references] for rows in (paired.before, paired.after)]
    if not all(sides):
        return {}
    scores: dict[str, dict[str, float | str]] = {}
    for name, function in (("Corpus BLEU", corpus_bleu), ("Corpus chrF2", corpus_chrf)):
        first, second = (
            function([row.references for row in rows], [row.completion for row in rows], language=language)
            for rows in sides
        )
        scores[name] = {"before": first.score, "after": second.score, "signature": second.signature}
    return scores


def _meteor(language: str, wordnet: str | Path | bool | None) -> Meteor:
    if wordnet is None and language == "en":
        from rlsft.data import assets

        wordnet = assets.wordnet()
    return Meteor(language, wordnet=wordnet)


def _notes(candidates: Sequence[MetricRow], paired: PairedAnswers, level: float) -> list[str]:
    missing = [row.label for row in candidates if not (row.before.n or row.after.n)]
    compared = sum(row.difference.n > 0 for row in candidates)
    notes = [
        f"Intervals are {level:.0%} each, not jointly: with {compared} metrics, about "
        f"{compared * (1 - level):.1f} would look changed by chance alone."
    ]
    num_groups = len(set(paired.groups))
    if num_groups < len(paired.prompts):
        notes.append(f"The {len(paired.prompts)} prompts come from {num_groups} groups, which are resampled whole.")
    return notes + ([f"Not measured: {', '.join(missing)}."] if missing else [])


def _versions() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for name in ("rlsft", "nltk", "sacrebleu", "rouge-score", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
