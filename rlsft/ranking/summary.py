"""What one ranking came to: how many answers stayed, what was skipped and why, and how the plain cosine compares."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlsft.metrics import kendall_tau_b
from rlsft.ranking.explain import Explainer
from rlsft.ranking.inputs import Candidates


def make_summary(
    ranking: Explainer,
    pairs: Sequence[dict[str, Any]],
    skipped: dict[int, str],  # prompt -> why it has no pairs
    settings: dict[str, Any],
    language_warning: str | None,
) -> dict[str, Any]:
    """Everything that `RankedResponses.summary` gives."""
    candidates = ranking.candidates
    answers = np.diff(candidates.offsets)
    is_ranked = answers >= 2
    kept = ranking.clusters.representatives_per_prompt(candidates)[is_ranked]
    warnings = [language_warning] if language_warning else []
    warnings += cluster_warnings(answers[is_ranked], kept, cluster=settings["cluster"])
    warnings += input_warnings(candidates, is_ranked, teleports=ranking.settings.teleports)
    return {
        "prompts": len(candidates.prompts),
        "responses": len(candidates.texts),
        "empty_responses": candidates.num_empty,
        "representatives": {
            "total": int(kept.sum()),
            "mean": float(kept.mean()),
            "min": int(kept.min()),
            "max": int(kept.max()),
        },
        "pairs": len(pairs),
        "noised": dict(Counter(pair["noise"] for pair in pairs if pair["noise"])),
        "skipped": {"prompts": len(skipped), "reasons": dict(Counter(skipped.values()).most_common())},
        "prompts_without_demonstration": sum(text is None for text in candidates.demonstrations),
        "agreement_with_cosine": cosine_agreement(ranking),
        "settings": settings,
        "warnings": warnings,
    }


def cosine_agreement(ranking: Explainer) -> dict[str, Any] | None:
    """How the TextRank order compares with plain cosine to the demonstration; None without demonstrations."""
    cosine, offsets = ranking.features.cosine, ranking.candidates.offsets
    taus: list[float] = []
    same: list[bool] = []
    for start, stop in pairwise(offsets):
        if stop - start < 2 or np.isnan(cosine[start]):
            continue
        rows = slice(start, stop)
        same.append(bool(np.argmin(ranking.ranks[rows]) == np.argmin(ranking.cosine_ranks[rows])))
        tau = kendall_tau_b(ranking.scores[rows], cosine[rows])
        if not math.isnan(tau):
            taus.append(tau)
    if not same:
        return None
    return {
        "prompts": len(same),
        "kendall_tau": float(np.mean(taus)) if taus else None,
        "same_winner": float(np.mean(same)),
    }


def cluster_warnings(
    answers: NDArray[np.int64],  # [R] answers of each ranked prompt
    kept: NDArray[np.int64],  # [R] representatives m'
    *,
    cluster: str | None,
) -> list[str]:
    """What to do when clustering kept everything, or next to nothing."""
    thresholds = "var_threshold" if cluster == "str" else "min_distance or max_std"
    found = []
    if cluster is not None and (kept == answers).all():
        found.append(
            f"every answer is its own cluster in all {len(kept)} ranked prompts, so clustering removed no "
            f"duplicates; raise {thresholds} in cluster_options, or sample more answers a prompt"
        )
    if (kept < 2).all():
        found.append(
            f"all answers fall into one cluster in all {len(kept)} ranked prompts, so there are no pairs; lower "
            f"{thresholds} in cluster_options, or sample at a higher temperature"
        )
    return found


def input_warnings(candidates: Candidates, is_ranked: NDArray[np.bool_], *, teleports: bool) -> list[str]:
    """What the input lacks: demonstrations to teleport to, text in responses."""
    found = []
    total = int(is_ranked.sum())
    missing = sum(candidates.demonstrations[p] is None for p in np.flatnonzero(is_ranked))
    if teleports and missing:
        found.append(
            f"no demonstration for {missing} of the {total} ranked prompts: teleport is uniform there, as in the "
            "paper's ranker"
        )
    if candidates.num_empty:
        found.append(f"empty responses, left out of the ranking: {candidates.num_empty}")
    return found


def describe(summary: dict[str, Any]) -> str:
    """The summary in a few lines for people."""
    kept, settings = summary["representatives"], summary["settings"]
    lines = [
        f"Ranked {summary['responses']} answers to {summary['prompts']} prompts by TextRank "
        f"(edges {settings['similarity']}, encoder {settings['encoder'] or 'none'}).",
        f"Representatives a prompt, m': mean {kept['mean']:.2f}, min {kept['min']}, max {kept['max']}.",
        f"Pairs: {summary['pairs']}, of which {sum(summary['noised'].values())} with noise in the lower answer.",
    ]
    agreement = summary["agreement_with_cosine"]
    if agreement is None:
        lines.append("Plain cosine to the demonstration: not available, no prompt has a demonstration.")
    else:
        tau = agreement["kendall_tau"]
        lines.append(
            f"Against plain cosine to the demonstration ({agreement['prompts']} prompts): Kendall tau "
            f"{'undefined' if tau is None else format(tau, '.3f')}, same winner {agreement['same_winner']:.0%}."
        )
    skipped = summary["skipped"]
    lines += [f"Prompts without pairs: {count} ({reason})." for reason, count in skipped["reasons"].items()]
    lines += [f"Warning: {warning}." for warning in summary["warnings"]]
    return "\n".join(lines)
