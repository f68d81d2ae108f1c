"""Rank several answers to each prompt without human labels (STR, arXiv 2402.18284).

Embed, score by TextRank over all answers, cluster by ISODATA, keep one answer a cluster, pair them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rlsft.ranking.clustering import cluster_answers, cluster_settings
from rlsft.ranking.encoders import EncoderSpec, language_warning, load_encoder
from rlsft.ranking.explain import Explainer
from rlsft.ranking.features import TOKEN_EDGES, Features, make_features
from rlsft.ranking.inputs import Candidates, Prompt, collect_candidates
from rlsft.ranking.noise import NOISE_KINDS
from rlsft.ranking.pairs import PairMode, PairSettings, make_pairs
from rlsft.ranking.results import RankedResponses
from rlsft.ranking.scoring import Backend, GraphSettings, Teleport, rank_within, score_and_cluster, score_answers
from rlsft.ranking.summary import make_summary
from rlsft.text import check_language

logger = logging.getLogger(__name__)


def rank_responses(
    prompts: Sequence[Prompt],
    responses: Sequence[Sequence[str]],
    *,
    demonstrations: Sequence[str | None] | None = None,
    encoder: EncoderSpec = None,
    similarity: str = "shifted_cosine",
    form: str = "stochastic",
    damping: float = 0.85,
    teleport: Teleport = "demonstration",
    teleport_strength: float = 4.0,
    cluster: str | None = "ball_hall",
    cluster_options: Mapping[str, Any] | None = None,
    rank_interval: int | None = None,
    pair_mode: PairMode = "at_least",
    max_pairs_per_prompt: int | None = None,
    noise_rate: float = 0.24,
    noise_kinds: Sequence[str] = NOISE_KINDS,
    language: str = "en",
    seed: int = 0,
    backend: Backend = "auto",
    cache_dir: str | os.PathLike[str] | None = None,
) -> RankedResponses:
    """Rank the responses to each prompt and make preference pairs of them.

    With a demonstration, TextRank teleports to it: `v_i` is proportional to
    `exp(teleport_strength * cos(answer_i, demonstration))`; without one, or with `teleport=None` (the paper's
    ranker), `v` is uniform. The order by plain cosine to the demonstration is always given beside it.

    Args:
        prompts: strings, or chat lists; one kind only.
        responses: for each prompt its answers; empty ones are left out, prompts with fewer than two skipped.
        demonstrations: for each prompt the human answer, or None.
        encoder: see `load_encoder`. None: edges are word overlap, and clusters and cosines use word counts.
        similarity: edge map: shifted_cosine, relu_cosine, cosine (for study), word_overlap, bm25.
        form: "stochastic" (scores sum to 1 a prompt) or "eigenvector" (largest 1; takes no teleport).
        damping: d of TextRank.
        teleport: "demonstration" or None.
        teleport_strength: the factor of the cosine in the exponent; 0 is uniform.
        cluster: "ball_hall", "str" (the paper's variant), or None: every answer stays.
        cluster_options: more arguments for `rlsft_kernels.isodata`, such as `{"n_clusters": 4}`.
        rank_interval: distance in rank between the two answers of a pair; None: half the representatives.
        pair_mode: "at_least" that distance, or "exact".
        max_pairs_per_prompt: draw at most so many; None: all.
        noise_rate: share of pairs whose lower answer is damaged, by one of `noise_kinds`.
        language: of the answers: en, ja or zh.
        seed: of clusters, draws and noise; what a prompt gets does not depend on the others in the call.
        backend: of the ops, see `rlsft_kernels`.
        cache_dir: folder that keeps embeddings between calls.

    Raises:
        DataError: see `collect_candidates`; or the encoder returned NaN.
        ConfigError: a setting is unknown or out of range; the message has the nearest name.
    """
    check_language(language)
    graph = GraphSettings(
        form=form,
        damping=damping,
        teleport=teleport,
        teleport_strength=teleport_strength,
        backend=backend,
    )
    pairing = PairSettings(
        rank_interval=rank_interval,
        pair_mode=pair_mode,
        max_pairs_per_prompt=max_pairs_per_prompt,
        noise_rate=noise_rate,
        noise_kinds=noise_kinds,
        language=language,
        seed=seed,
    )
    candidates = collect_candidates(prompts, responses, demonstrations)
    model = load_encoder(encoder, cache_dir=cache_dir)
    features = make_features(candidates, model, similarity=similarity, language=language)
    explainer = _rank(candidates, features, graph, cluster, cluster_options, seed)
    rows = _rows(explainer)
    pairs, skipped = _pairs(rows, explainer, pairing)
    settings = {
        "encoder": None if model is None else model.name,
        "similarity": features.edge,
        "cluster": cluster,
        "cluster_options": dict(cluster_options or {}),
        **asdict(graph),
        **asdict(pairing),
        "noise_kinds": list(pairing.noise_kinds),
    }
    summary = make_summary(explainer, pairs, skipped, settings, language_warning(model, language))
    for warning in summary["warnings"]:
        logger.warning("ranking: %s", warning)
    return RankedResponses(rows, pairs, summary, explainer)


def _rank(
    candidates: Candidates,
    features: Features,
    graph: GraphSettings,
    cluster: str | None,
    cluster_options: Mapping[str, Any] | None,
    seed: int,
) -> Explainer:
    group = candidates.prompt_index
    labels = None
    if cluster is None or features.edge in TOKEN_EDGES:
        scores, teleport = score_answers(candidates, features, graph)
    else:
        settings = cluster_settings(cluster, cluster_options or {}, seed, width=features.vectors.shape[1])
        scores, teleport, labels = score_and_cluster(candidates, features, graph, settings)
    ranks = rank_within(scores, group)
    clusters = cluster_answers(
        candidates,
        features.vectors,
        scores,
        ranks,
        cluster=cluster,
        options=cluster_options,
        seed=seed,
        backend=graph.backend,
        labels=labels,
    )
    return Explainer(
        candidates=candidates,
        features=features,
        settings=graph,
        clusters=clusters,
        scores=scores,
        ranks=ranks,
        teleport=teleport,
        cosine_ranks=rank_within(features.cosine, group),
    )


def _rows(ranking: Explainer) -> list[dict[str, Any]]:
    candidates, clusters = ranking.candidates, ranking.clusters
    known = ranking.features.has_demonstration
    return [
        {
            "prompt": candidates.prompts[prompt_index],
            "completion": candidates.texts[at],
            "rank": int(ranking.ranks[at]),
            "score": float(ranking.scores[at]),
            "cluster": int(clusters.label[at]),
            "representative": bool(clusters.representative[at]),
            "prompt_index": int(prompt_index),
            "response_index": int(candidates.response_index[at]),
            "cluster_size": int(clusters.size[at]),
            "cosine_to_demonstration": float(ranking.features.cosine[at]) if known[at] else None,
            "cosine_rank": int(ranking.cosine_ranks[at]) if known[at] else None,
        }
        for at, prompt_index in enumerate(candidates.prompt_index)
    ]


def _pairs(
    rows: list[dict[str, Any]], ranking: Explainer, settings: PairSettings
) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """All pairs, and why each prompt without pairs has none."""
    pairs: list[dict[str, Any]] = []
    skipped = dict(ranking.candidates.skipped)
    offsets = ranking.candidates.offsets
    for p, prompt in enumerate(ranking.candidates.prompts):
        if p in skipped:
            continue
        answers = rows[offsets[p] : offsets[p + 1]]
        kept = sorted((row for row in answers if row["representative"]), key=lambda row: row["rank"])
        made = make_pairs(prompt, kept, [row["completion"] for row in answers], settings)
        if not made:
            skipped[p] = _why_no_pairs(answers, len(kept), settings)
        pairs += made
    return pairs, skipped


def _why_no_pairs(answers: list[dict[str, Any]], num_kept: int, settings: PairSettings) -> str:
    if len({row["completion"] for row in answers}) == 1:
        return "all responses are equal"
    if num_kept < 2:
        return "all responses fell into one cluster: m' < 2"
    return f"rank_interval {settings.rank_interval} leaves no pair among m' = {num_kept} representatives"
