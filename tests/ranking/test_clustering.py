"""Clusters, their numbers and their medoids."""

from __future__ import annotations

import numpy as np
import pytest

from rlsft.ranking import rank_responses
from rlsft.ranking.clustering import _by_best_rank, _medoids, cluster_answers
from rlsft.ranking.inputs import collect_candidates
from tests.ranking.fakes import TableEncoder

# Two tight groups and an outlier.
ROWS = {
    "a0": [1.0, 0.02, 0.0],
    "a1": [1.0, 0.0, 0.0],
    "a2": [1.0, -0.02, 0.0],
    "b0": [0.0, 1.0, 0.01],
    "b1": [0.0, 1.0, -0.01],
    "c0": [0.0, 0.0, 1.0],
}


@pytest.mark.parametrize("cluster", ["ball_hall", "str"])
def test_two_groups_and_an_outlier_keep_one_answer_each(cluster: str) -> None:
    ranked = rank_responses(
        ["p"], [list(ROWS)], encoder=TableEncoder(ROWS), cluster=cluster, cluster_options={"n_clusters": 3}
    )
    labels = {row["completion"]: row["cluster"] for row in ranked.rows}
    assert labels["a0"] == labels["a1"] == labels["a2"]
    assert labels["b0"] == labels["b1"]
    assert len(set(labels.values())) == 3
    kept = {row["completion"] for row in ranked.rows if row["representative"]}
    assert {"a1", "c0"} <= kept  # a1 lies at the centre of its cluster
    assert len(kept) == 3
    assert ranked.summary()["representatives"] == {"total": 3, "mean": 3.0, "min": 3, "max": 3}


def test_clusters_are_numbered_by_their_best_member() -> None:
    labels = np.array([7, 3, 7, 5, 2, 2])
    group = np.array([0, 0, 0, 0, 1, 1])
    ranks = np.array([4, 2, 3, 1, 1, 2])
    assert _by_best_rank(labels, group, ranks).tolist() == [2, 1, 2, 0, 0, 0]


def test_a_discarded_answer_has_no_cluster_and_no_number() -> None:
    labels = np.array([0, -1, 0, -1])
    assert _by_best_rank(labels, np.zeros(4, np.int64), np.array([2, 1, 3, 4])).tolist() == [0, -1, 0, -1]


def test_medoid_is_the_nearest_and_ties_go_to_the_higher_score() -> None:
    flat = np.array([0, 0, 0, 1, 1])
    distance = np.array([0.3, 0.1, 0.2, 0.25, 0.25 + 1e-9])
    scores = np.array([0.5, 0.1, 0.2, 0.1, 0.2])
    assert _medoids(flat, distance, scores, np.ones(5, bool)).tolist() == [False, True, False, False, True]


def test_of_two_members_the_higher_score_represents() -> None:
    candidates = collect_candidates(["p"], [["x", "y"]])
    vectors = np.array([[1.0, 0.0], [0.6, 0.8]])
    clusters = cluster_answers(
        candidates,
        vectors,
        np.array([0.4, 0.6]),
        np.array([2, 1]),
        cluster="str",
        options={"n_clusters": 1, "var_threshold": 1.0},
    )
    assert clusters.label.tolist() == [0, 0]
    assert clusters.representative.tolist() == [False, True]
    assert clusters.size.tolist() == [2, 2]
    np.testing.assert_allclose(clusters.center_distance, np.hypot(0.2, 0.4), atol=1e-12)


def test_without_clustering_every_answer_stays_and_nobody_is_warned() -> None:
    ranked = rank_responses(["p"], [list(ROWS)], encoder=TableEncoder(ROWS), cluster=None, teleport=None)
    assert all(row["representative"] for row in ranked.rows)
    assert ranked.summary()["warnings"] == []
    assert sorted(row["cluster"] for row in ranked.rows) == list(range(6))


def test_singleton_clusters_everywhere_are_warned_about() -> None:
    ranked = rank_responses(
        ["p"],
        [["a0", "b0", "c0"]],
        encoder=TableEncoder(ROWS),
        teleport=None,
        cluster="str",
        cluster_options={"n_clusters": 3},
    )
    (warning,) = ranked.summary()["warnings"]
    assert warning.startswith("every answer is its own cluster in all 1 ranked prompts")
    assert "raise var_threshold in cluster_options" in warning


def test_one_cluster_everywhere_is_warned_about_and_makes_no_pairs() -> None:
    options = {"n_clusters": 1, "var_threshold": 1.0}
    ranked = rank_responses(
        ["p"], [list(ROWS)], encoder=TableEncoder(ROWS), teleport=None, cluster="str", cluster_options=options
    )
    assert ranked.pairs == []
    summary = ranked.summary()
    assert summary["warnings"][0].startswith("all answers fall into one cluster in all 1 ranked prompts")
    assert summary["skipped"] == {"prompts": 1, "reasons": {"all responses fell into one cluster: m' < 2": 1}}
    assert "Prompts without pairs: 1 (all responses fell into one cluster" in str(ranked)
