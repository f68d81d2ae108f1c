"""Scores and ranks: TextRank over all answers of all prompts in one call, and the plain cosine beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlsft.errors import ConfigError, DataError
from rlsft.ranking.features import TOKEN_EDGES, Features
from rlsft.ranking.inputs import Candidates, check_choice

Teleport = Literal["demonstration"] | None
Backend = Literal["auto", "triton", "native", "reference"]
FORMS = ("stochastic", "eigenvector")

# Scores closer than this are a tie, and ties go to the first answer: rounding decides no rank.
_TIE_DECIMALS = 9


@dataclass(frozen=True, kw_only=True)
class GraphSettings:
    """How the graph is scored."""

    form: str = "stochastic"
    damping: float = 0.85
    teleport: Teleport = "demonstration"
    teleport_strength: float = 4.0  # v_i is proportional to exp(strength * cosine)
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        check_choice("form", self.form, FORMS)
        if self.teleport not in (None, "demonstration"):
            raise ConfigError(f"teleport must be 'demonstration' or None (the paper's ranker), got {self.teleport!r}")
        if self.teleport is not None and self.form == "eigenvector":
            raise ConfigError("form='eigenvector' takes no teleport: set teleport=None, or form='stochastic'")
        if not 0.0 <= self.damping < 1.0:
            raise ConfigError(f"damping must be at least 0 and below 1, got {self.damping}")
        if not (np.isfinite(self.teleport_strength) and self.teleport_strength >= 0.0):
            raise ConfigError(f"teleport_strength must be finite and at least 0, got {self.teleport_strength}")

    @property
    def teleports(self) -> bool:
        """Whether demonstrations steer the score."""
        return self.teleport == "demonstration"


def teleport_weights(
    cosine: NDArray[np.float64],  # [S], NaN where the prompt has no demonstration
    group: NDArray[np.int64],  # [S] prompt of each answer
    num_groups: int,
    strength: float,
) -> NDArray[np.float64]:
    """[S] `v_i = exp(strength * cos_i) / sum_j exp(strength * cos_j)` within each prompt; uniform without cosines."""
    logits = strength * np.nan_to_num(cosine, nan=0.0)
    highest = np.full(num_groups, -np.inf)
    np.maximum.at(highest, group, logits)
    weights = np.exp(logits - highest[group])
    return weights / np.bincount(group, weights=weights, minlength=num_groups)[group]


def score_answers(
    candidates: Candidates, features: Features, settings: GraphSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """([S] scores, [S] teleport v): one batched TextRank over the ragged groups of all prompts.

    `stochastic` scores sum to 1 within a prompt (arXiv 2402.18284, eq. 5, divided by m);
    `eigenvector` scores have a largest one of 1.
    """
    weights = answer_teleport(candidates, features, settings)
    scores = run_textrank(
        features,
        settings,
        candidates.offsets,
        teleport=weights if settings.teleports else None,
    )
    return scores, weights


def score_and_cluster(
    candidates: Candidates,
    features: Features,
    settings: GraphSettings,
    cluster: Mapping[str, Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """([S] scores, [S] teleport v, [S] clusters): `score_answers`, and isodata with the keyword arguments `cluster`.

    One call, because both need the dot products of the answers' vectors.
    """
    from rlsft_kernels import ConvergenceError, rank_and_cluster

    weights = answer_teleport(candidates, features, settings)
    backend = cluster.get("backend", settings.backend)
    try:
        found = rank_and_cluster(
            features.vectors,
            groups=candidates.offsets,
            edge=features.edge,
            damping=settings.damping,
            teleport=weights if settings.teleports else None,
            form=settings.form,
            cluster={name: value for name, value in cluster.items() if name != "backend"},
            backend=backend,
        )
    except (ValueError, ConvergenceError) as error:
        raise DataError(f"the answers cannot be scored with similarity={features.edge!r}: {error}") from error
    return np.asarray(found.ranking.scores, np.float64), weights, np.asarray(found.clusters.labels, np.int64)


def answer_teleport(candidates: Candidates, features: Features, settings: GraphSettings) -> NDArray[np.float64]:
    """[S] teleport v of each answer; uniform where the settings or the data have no demonstrations."""
    group = candidates.prompt_index
    cosine = features.cosine if settings.teleports else np.full(len(group), np.nan)
    return teleport_weights(cosine, group, len(candidates.prompts), settings.teleport_strength)


def run_textrank(
    features: Features,
    settings: GraphSettings,
    offsets: NDArray[np.int64],  # [P + 1]
    *,
    teleport: NDArray[np.float64] | None = None,  # [S]
) -> NDArray[np.float64]:
    """[S] TextRank scores of the groups that `offsets` cut out of `features`, in one call."""
    from rlsft_kernels import ConvergenceError, textrank

    source: dict[str, Any] = (
        {"tokens": features.tokens} if features.edge in TOKEN_EDGES else {"embeddings": features.vectors}
    )
    try:
        result = textrank(
            **source,
            groups=offsets,
            edge=features.edge,
            damping=settings.damping,
            teleport=teleport,
            form=settings.form,
            backend=settings.backend,
        )
    except (ValueError, ConvergenceError) as error:
        raise DataError(f"the answers cannot be scored with similarity={features.edge!r}: {error}") from error
    return np.asarray(result.scores, dtype=np.float64)


def edge_blocks(features: Features, offsets: NDArray[np.int64], backend: Backend = "auto") -> NDArray[np.float64]:
    """The edges that `run_textrank` used: one m x m block a prompt, from row to column, in a flat run."""
    from rlsft_kernels import similarity_matrix

    source: dict[str, Any] = (
        {"tokens": features.tokens} if features.edge in TOKEN_EDGES else {"embeddings": features.vectors}
    )
    return np.asarray(similarity_matrix(**source, groups=offsets, edge=features.edge, backend=backend), np.float64)


def rank_within(values: NDArray[np.float64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """[S] rank of each value within its group, 1 = highest; ties in order of position, NaN last."""
    rounded = np.round(values, _TIE_DECIMALS)
    order = np.lexsort((np.arange(len(values)), -rounded, group))
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0]) if len(order) else order
    position = np.arange(len(order))
    first = np.zeros(len(order), np.int64)
    first[starts] = starts
    ranks = np.empty(len(order), np.int64)
    ranks[order] = position - np.maximum.accumulate(first) + 1
    return ranks
