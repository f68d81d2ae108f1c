"""The user's own demonstrations in the order of a learned reward: scores, percentiles, the worst to read, the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlsft.artifacts import write_json, write_jsonl, write_text
from rlsft.data.formats import completion_text, prompt_text
from rlsft.errors import ConfigError, DataError
from rlsft.metrics import MIN_UNITS_FOR_VERDICT, Interval, average_ranks

_SHOWN_CHARACTERS = 1200  # of a text in worst.md


@dataclass(frozen=True)
class RankedDemonstrations:
    """Demonstrations with their scores and what is kept, in the order given."""

    rows: tuple[Mapping[str, Any], ...]  # prompt, completion and the user's other columns
    scores: NDArray[np.float64]  # [n], higher = better
    percentiles: NDArray[np.float64]  # [n], 0 = worst, 100 = best; equal scores share one
    kept: NDArray[np.bool_]  # [n]
    separation: Interval  # see `separation_of`
    even_separation: float  # what one bell curve would give at the same cut

    def worst(self, count: int) -> list[int]:
        """Row numbers, from 0, of the `count` lowest scores, lowest first."""
        return np.argsort(self.scores, kind="stable")[:count].tolist()

    def verdict(self) -> str:
        """Whether the dropped rows stand apart from the kept ones, in one clause."""
        if not self.separation.is_known or len(self.rows) < MIN_UNITS_FOR_VERDICT:
            return "too few demonstrations to say whether the dropped ones stand apart"
        if self.separation.low > self.even_separation:
            return "the dropped ones stand apart from the rest"
        if self.separation.high < self.even_separation:
            return "the dropped ones are no group of their own: the scores fade out evenly"
        return "nothing says that the dropped ones are a group of their own"

    def summary(self) -> dict[str, Any]:
        """Counts, scores, the separation with its interval, and the verdict."""
        quantiles = np.quantile(self.scores, [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0])
        return {
            "demonstrations": len(self.rows),
            "kept": int(self.kept.sum()),
            "lowest_kept_score": float(self.scores[self.kept].min()),
            "score_mean": float(self.scores.mean()),
            "score_std": float(self.scores.std(ddof=1)),
            "score_quantiles": dict(zip(("0", "5", "25", "50", "75", "95", "100"), quantiles.tolist(), strict=True)),
            "separation_std": self.separation.mean,
            "separation_low": self.separation.low,
            "separation_high": self.separation.high,
            "separation_of_a_bell_curve": self.even_separation,
            "verdict": self.verdict(),
        }

    def summary_text(self) -> str:
        """One paragraph."""
        head = (
            f"{int(self.kept.sum())} of {len(self.rows)} demonstrations kept (score at least "
            f"{self.scores[self.kept].min():.4g}). "
        )
        if self.kept.all():
            return head + "Nothing was dropped."
        return head + (
            f"Kept and dropped lie {self.separation.format(2)} standard deviations apart (95 % bootstrap interval); "
            f"one bell curve cut at the same place gives {self.even_separation:.2f}: {self.verdict()}. A low score "
            "says that the reward has not learned such an answer, not that it is wrong: read worst.md before you drop."
        )

    def worst_markdown(self, count: int = 20) -> str:
        """The `count` lowest-scored demonstrations, readable."""
        parts = [f"# The {min(count, len(self.rows))} lowest-scored demonstrations\n", self.summary_text(), ""]
        for place, i in enumerate(self.worst(count), start=1):
            row = self.rows[i]
            parts += [
                f"## {place}. row {i + 1}: score {self.scores[i]:.4g}, percentile {self.percentiles[i]:.1f}"
                f"{'' if self.kept[i] else ' (dropped)'}",
                _quoted("Prompt", prompt_text(row["prompt"])),
                _quoted("Completion", completion_text(row["completion"])),
            ]
        return "\n".join(parts)

    def save(self, folder: str | os.PathLike[str], *, worst: int = 20) -> dict[str, Path]:
        """Write `demonstrations.jsonl` (all, with score, percentile and kept), `kept.jsonl` (the rows as they came),
        `worst.md` and, last, `summary.json`."""
        target = Path(folder)
        scored = (
            {**row, "score": score, "percentile": percentile, "kept": kept}
            for row, score, percentile, kept in zip(
                self.rows, self.scores, self.percentiles, self.kept.tolist(), strict=True
            )
        )
        kept_rows = (row for row, kept in zip(self.rows, self.kept, strict=True) if kept)
        return {
            "demonstrations": write_jsonl(target / "demonstrations.jsonl", scored),
            "kept": write_jsonl(target / "kept.jsonl", kept_rows),
            "worst": write_text(target / "worst.md", self.worst_markdown(worst)),
            "summary": write_json(target / "summary.json", self.summary()),
        }


def rank_demonstrations(
    rows: Sequence[Mapping[str, Any]],
    scores: ArrayLike,  # [n]
    *,
    keep: float = 0.8,
    num_resamples: int = 1000,
    seed: int = 0,
) -> RankedDemonstrations:
    """Order demonstrations by a learned reward and mark the best `keep` of them.

    A reward trained on pairs is known only up to a number a prompt, so scores of different prompts share a scale as
    far as the reward model has generalised over prompts; the implicit reward a token has one scale by construction.

    Args:
        rows: `prompt` and `completion`, and whatever else should be written along.
        scores: one a row, higher = better.
        keep: share to keep, above 0; at least one row stays. Of equal scores the earlier row stays.
        num_resamples: bootstrap samples of the separation.
        seed: of the bootstrap.

    Raises:
        ConfigError: `keep` out of range.
        DataError: fewer than two rows, another number of scores, a score that is not finite, or only equal ones.
    """
    check_keep(keep)
    values = np.asarray(scores, dtype=np.float64)
    _check_scores(values, len(rows))
    count = min(len(rows), max(1, round(keep * len(rows))))
    order = np.argsort(-values, kind="stable")
    kept = np.zeros(len(rows), dtype=bool)
    kept[order[:count]] = True
    return RankedDemonstrations(
        rows=tuple(rows),
        scores=values,
        percentiles=100 * (average_ranks(values) - 1) / (len(rows) - 1),
        kept=kept,
        separation=separation_of(values, count / len(rows), num_resamples=num_resamples, seed=seed),
        even_separation=bell_curve_separation(count / len(rows)),
    )


def separation_of(
    scores: NDArray[np.float64], keep: float, *, level: float = 0.95, num_resamples: int = 1000, seed: int = 0
) -> Interval:
    """`(mean of the best keep·n - mean of the others) / standard deviation`, with its percentile bootstrap interval.

    It is large by construction, so compare it with `bell_curve_separation`; two points give `1/sqrt(keep (1-keep))`,
    the most there is. Each bootstrap sample is sorted and cut anew. NaN where nothing is dropped.
    """
    n = len(scores)
    cut = n - min(n, max(1, round(keep * n)))
    if cut == 0:
        return Interval(np.nan, np.nan, np.nan, n, level=level)

    def statistic(rows_RN: NDArray[np.float64]) -> NDArray[np.float64]:
        ordered_RN = np.sort(rows_RN, axis=1)
        apart_R = ordered_RN[:, cut:].mean(axis=1) - ordered_RN[:, :cut].mean(axis=1)
        std_R = ordered_RN.std(axis=1)
        return np.divide(apart_R, std_R, out=np.zeros_like(apart_R), where=std_R > 0)

    rng = np.random.default_rng(seed)
    size = max(1, 2_000_000 // n)  # rows resampled at once: bounds memory
    resampled = np.concatenate(
        [
            statistic(scores[rng.integers(n, size=(min(size, num_resamples - start), n))])
            for start in range(0, num_resamples, size)
        ]
    )
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(scores[None])[0]), float(low), float(high), n, level=level)


def bell_curve_separation(keep: float) -> float:
    """`separation_of` for a normal distribution: `phi(z) / (keep (1 - keep))` with `Phi(z) = 1 - keep`."""
    if not 0 < keep < 1:
        return float("nan")
    normal = NormalDist()
    return normal.pdf(normal.inv_cdf(1 - keep)) / (keep * (1 - keep))


def check_keep(keep: float) -> None:
    """Raise a ConfigError unless `keep` is a share above 0."""
    if not 0 < keep <= 1:
        raise ConfigError(f"keep must be above 0 and at most 1, the share of demonstrations to keep, got {keep!r}")


def _check_scores(scores: NDArray[np.float64], count: int) -> None:
    if count < 2:
        raise DataError(f"rows must hold at least two demonstrations to rank, got {count}")
    if scores.shape != (count,):
        raise DataError(f"scores must hold one number a demonstration, {count}, got shape {list(scores.shape)}")
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        raise DataError(
            f"the reward of row {bad[0] + 1} is {scores[bad[0]]} ({bad.size} of {count} are not finite); the reward "
            "model is broken or overflows in its dtype: try --dtype float32, or drop the row"
        )
    if scores.min() == scores.max():
        raise DataError(
            f"every demonstration has the same reward, {scores[0]:.4g}: nothing can be ranked. A reward model needs "
            "training first, and an implicit reward needs two checkpoints that differ"
        )


def _quoted(title: str, text: str) -> str:
    """A text as a Markdown quote, so that what stands in it is not read as Markdown headings."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + " […]"
    lines = "\n".join(f"> {line}" for line in cut.splitlines() or [""])
    return f"**{title}**\n\n{lines}\n"
