"""ISODATA over all prompts in one call, and one real answer a cluster: its medoid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlsft.errors import ConfigError
from rlsft.ranking.inputs import Candidates, check_choice
from rlsft.ranking.scoring import Backend

CLUSTERS = ("ball_hall", "str")

# Distances to the centre closer than this are a tie: of two members both are equally near it.
_DISTANCE_TIE = 1e-6
NO_CLUSTER = -1


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """The cluster of each answer; numbers count from 0 within a prompt, by the rank of the best member."""

    label: NDArray[np.int64]  # [S]; NO_CLUSTER: discarded as noise
    size: NDArray[np.int64]  # [S] members of the answer's cluster
    center_distance: NDArray[np.float64]  # [S] Euclidean, to the mean of the cluster's unit vectors
    representative: NDArray[np.bool_]  # [S] medoid of its cluster

    def representatives_per_prompt(self, candidates: Candidates) -> NDArray[np.int64]:
        """[P] the number m' of answers that stay."""
        return np.bincount(
            candidates.prompt_index, weights=self.representative, minlength=len(candidates.prompts)
        ).astype(np.int64)


def cluster_answers(
    candidates: Candidates,
    vectors: NDArray[np.float64],  # [S, d] unit rows
    scores: NDArray[np.float64],  # [S]
    ranks: NDArray[np.int64],  # [S]
    *,
    cluster: str | None = "ball_hall",
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    backend: Backend = "auto",
    labels: NDArray[np.int64] | None = None,
) -> Clusters:
    """Cluster the answers of every prompt and pick the medoids, ties by the higher score.

    `cluster=None` keeps every answer as its own representative; `options` goes to `rlsft_kernels.isodata`. `labels`,
    when somebody has clustered with these settings already, saves doing it again.
    """
    group = candidates.prompt_index
    if cluster is None:
        labels = np.arange(len(group)) - candidates.offsets[group]
    elif labels is None:
        labels = _isodata_labels(candidates, vectors, cluster, dict(options or {}), seed, backend)
    labels = _by_best_rank(labels, group, ranks)
    flat, distance = _centre_distances(labels, group, vectors)
    representative = _medoids(flat, distance, scores, labels != NO_CLUSTER)
    return Clusters(
        label=labels,
        size=np.bincount(flat)[flat],
        center_distance=distance,
        representative=representative,
    )


def _isodata_labels(
    candidates: Candidates,
    vectors: NDArray[np.float64],
    cluster: str,
    options: dict[str, Any],
    seed: int,
    backend: Backend,
) -> NDArray[np.int64]:
    from rlsft_kernels import isodata

    settings = cluster_settings(cluster, options, seed, width=vectors.shape[1])
    result = isodata(vectors, groups=candidates.offsets, **{"backend": backend, **settings})
    return np.asarray(result.labels, dtype=np.int64)


def cluster_settings(cluster: str, options: Mapping[str, Any], seed: int, *, width: int) -> dict[str, Any]:
    """Keyword arguments of `rlsft_kernels.isodata` for vectors of this width.

    Raises:
        ConfigError: unknown variant, a name that isodata does not know or the pipeline sets, a value out of range.
    """
    from rlsft_kernels import isodata

    variant: Any = check_choice("cluster", cluster, CLUSTERS)
    for name in ("variant", "groups", "points", "seed"):
        if name in options:
            raise ConfigError(f"cluster_options must not set {name!r}: the pipeline sets it")
    settings = {"variant": variant, "seed": seed, **options}
    try:
        isodata(np.zeros((0, width)), groups=np.zeros(1, np.int64), **settings)  # checks, and has no rows to work on
    except TypeError as error:
        raise ConfigError(f"cluster_options: {error}") from error
    except ValueError as error:
        raise ConfigError(f"cluster={cluster!r} with cluster_options {dict(options)}: {error}") from error
    return settings


def _by_best_rank(labels: NDArray[np.int64], group: NDArray[np.int64], ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same clusters, numbered within each prompt by their best-ranked member."""
    flat = _flat(labels, group)
    best = np.full(flat.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(best, flat, ranks)
    # The position of each cluster's best rank among the distinct best ranks of its prompt.
    clustered = labels != NO_CLUSTER
    keys = np.unique(np.stack([group[clustered], best[flat[clustered]]], axis=1), axis=0)
    first_key = np.searchsorted(keys[:, 0], group)
    wide = int(ranks.max(initial=0)) + 1
    place = np.searchsorted(keys[:, 0] * wide + keys[:, 1], group * wide + best[flat]) - first_key
    return np.where(clustered, place, NO_CLUSTER)


def _flat(labels: NDArray[np.int64], group: NDArray[np.int64]) -> NDArray[np.int64]:
    """[S] one number a cluster of the whole batch; every discarded answer stands alone."""
    alone = np.where(labels == NO_CLUSTER, np.arange(len(labels)), -1)
    keys = np.stack([group, labels, alone], axis=1)
    return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def _centre_distances(
    labels: NDArray[np.int64], group: NDArray[np.int64], vectors: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    flat = _flat(labels, group)
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(flat.max(initial=-1) + 1))
    sums = np.add.reduceat(vectors[order], starts, axis=0) if len(starts) else vectors
    centres = sums / np.bincount(flat)[:, None]
    return flat, np.linalg.norm(vectors - centres[flat], axis=1)


def _medoids(
    flat: NDArray[np.int64],
    distance: NDArray[np.float64],
    scores: NDArray[np.float64],
    allowed: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """[S] the member nearest the centre of each cluster; ties by the higher score, then by position."""
    nearest = np.full(flat.max(initial=-1) + 1, np.inf)
    np.minimum.at(nearest, flat, distance)
    is_far = distance > nearest[flat] + _DISTANCE_TIE
    order = np.lexsort((np.arange(len(flat)), -np.round(scores, 9), is_far, flat))
    is_first = np.zeros(len(flat), bool)
    is_first[order] = np.r_[True, np.diff(flat[order]) != 0] if len(order) else True
    return is_first & allowed
