"""What a comparison allows to say in words: the bad first, and no pooled claim of a win."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlsft.evaluation.comparison import MetricRow
from rlsft.evaluation.pairing import PairedAnswers
from rlsft.metrics import Interval

_QUALITY = ("bleu", "gleu", "meteor", "chrf", "rouge_l", "distinct_1", "distinct_2")


def overall_sentence(rows: Sequence[MetricRow], paired: PairedAnswers, min_prompts: int) -> str:
    """One or more sentences that a reader may quote: first what got worse, then what got better."""
    after, before = paired.after_label, paired.before_label
    num_units = len(set(paired.groups))
    if num_units < min_prompts:
        kind = "prompts" if num_units == len(paired.prompts) else "independent groups of prompts"
        return (
            f"Too few to say whether {after} is better or worse than {before}: {num_units} {kind}, "
            f"a verdict needs {min_prompts}."
        )
    listed = {word: [row for row in rows if row.verdict == word] for word in _WORDS}
    parts = []
    if listed["worse"]:
        parts.append(f"{after} made these worse: {_changes(listed['worse'])}.")
    if listed["better"]:
        parts.append(f"{after} made these better: {_changes(listed['better'])}.")
    if not listed["worse"]:
        parts.append("No metric got clearly worse." if listed["better"] else f"{after} changed no metric clearly.")
    parts.extend(
        f"{word.capitalize()}, which is neither good nor bad in itself: {_changes(listed[word])}."
        for word in ("higher", "lower")
        if listed[word]
    )
    if listed["no clear change"] and (listed["worse"] or listed["better"]):
        parts.append(f"No clear change: {', '.join(row.name for row in listed['no clear change'])}.")
    return " ".join(parts)


_WORDS = ("worse", "better", "higher", "lower", "no clear change")


def warnings_of(rows: Sequence[MetricRow], kpi_reward: Mapping[str, Interval]) -> list[str]:
    """Signs that the reward drifts from what it should stand for."""
    by_key = {row.key: row for row in rows}
    found = []
    reward, kpi = by_key.get("reward"), by_key.get("kpi")
    is_reward_up = reward is not None and reward.difference.n > 0 and reward.difference.mean > 0
    if reward is not None and kpi is not None and is_reward_up and kpi.difference.mean < 0:
        clear = kpi.verdict == "worse" and reward.verdict == "better"
        found.append(
            f"the reward rose ({reward.cells()[3]}) while the KPI fell ({kpi.cells()[3]})"
            + (": the reward drifts from the KPI." if clear else ", though not both clearly: watch for drift.")
        )
    correlation = kpi_reward.get("after")
    if correlation is not None and correlation.is_known and correlation.high < 0:
        found.append(
            f"answers with a higher reward have a lower KPI (Spearman {correlation.format(2)}, "
            f"n = {correlation.n}): the reward works against the KPI."
        )
    worse = [by_key[key] for key in _QUALITY if key in by_key and by_key[key].verdict == "worse"]
    if reward is not None and reward.verdict == "better" and worse:
        found.append(
            f"the reward rose while these fell: {', '.join(row.name for row in worse)}. "
            "The policy may have learned to please the reward model rather than to answer better."
        )
    return found


def _changes(rows: Sequence[MetricRow]) -> str:
    return ", ".join(row.change() for row in rows)
