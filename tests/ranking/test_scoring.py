"""Scores, teleport and ranks against closed forms and planted orders."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlsft.errors import DataError
from rlsft.ranking import rank_responses
from rlsft.ranking.scoring import rank_within, teleport_weights
from tests.ranking.fakes import TableEncoder, planted_group

LEVELS = [0.3, 0.45, 0.6, 0.8, 1.0, 1.3]


def test_teleport_weights_by_hand() -> None:
    cosine = np.array([0.5, 0.0, np.nan, np.nan, np.nan])
    weights = teleport_weights(cosine, np.array([0, 0, 1, 1, 1]), 2, strength=4.0)
    e2 = math.exp(2.0)
    np.testing.assert_allclose(weights, [e2 / (e2 + 1), 1 / (e2 + 1), 1 / 3, 1 / 3, 1 / 3])


def test_a_huge_strength_does_not_overflow() -> None:
    weights = teleport_weights(np.array([0.9, 0.8]), np.zeros(2, np.int64), 1, strength=1e5)
    np.testing.assert_allclose(weights, [1.0, 0.0])


def test_ranks_start_anew_in_each_group_and_ties_keep_their_order() -> None:
    group = np.array([0, 0, 0, 1, 3, 3])
    values = np.array([0.2, 0.5, 0.2 + 1e-13, 0.1, np.nan, 0.0])
    assert rank_within(values, group).tolist() == [2, 1, 3, 1, 2, 1]
    assert rank_within(np.zeros(0), np.zeros(0, np.int64)).tolist() == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("teleport", ["demonstration", None])
def test_planted_order_is_recovered(seed: int, teleport: str | None) -> None:
    names, rows = planted_group(LEVELS, 3, seed=seed)
    order = np.random.default_rng(seed).permutation(len(names))
    shuffled = [names[index] for index in order]
    encoder = TableEncoder({**dict(zip(names, rows, strict=False)), "centre": rows[-1]})
    ranked = rank_responses(["p"], [shuffled], demonstrations=["centre"], encoder=encoder, teleport=teleport)  # type: ignore[arg-type]
    by_rank = [row["completion"] for row in sorted(ranked.rows, key=lambda row: row["rank"])]
    assert by_rank[: len(LEVELS)] == names[: len(LEVELS)]
    assert all(name.startswith("far") for name in by_rank[len(LEVELS) :])
    cosine_order = sorted(ranked.rows, key=lambda row: row["cosine_rank"])
    assert [row["completion"] for row in cosine_order][: len(LEVELS)] == names[: len(LEVELS)]


def test_stochastic_scores_solve_the_linear_system() -> None:
    names, rows = planted_group(LEVELS, 2, seed=9)
    encoder = TableEncoder(dict(zip(names, rows, strict=False)) | {"demo": rows[2]})
    ranked = rank_responses(["p"], [names], demonstrations=["demo"], encoder=encoder)
    unit = rows[:-1] / np.linalg.norm(rows[:-1], axis=1, keepdims=True)
    edges = 0.5 + 0.5 * unit @ unit.T
    np.fill_diagonal(edges, 0.0)
    transition = edges / edges.sum(axis=1, keepdims=True)
    teleport = np.exp(4.0 * unit @ unit[2])
    teleport /= teleport.sum()
    truth = np.linalg.solve(np.eye(len(names)) - 0.85 * transition.T, 0.15 * teleport)
    np.testing.assert_allclose([row["score"] for row in ranked.rows], truth, atol=1e-7)


def test_the_demonstration_decides_between_two_camps() -> None:
    rows = {"a1": [1, 0, 0.1], "a2": [1, 0, 0.2], "b1": [0, 1, 0.1], "b2": [0, 1, 0.2], "demo b": [0, 1, 0]}
    answers = ["a1", "a2", "b1", "b2"]
    ranked = rank_responses(["p"], [answers], demonstrations=["demo b"], encoder=TableEncoder(rows))
    best = min(ranked.rows, key=lambda row: row["rank"])
    assert best["completion"].startswith("b")
    paper = rank_responses(["p"], [answers], demonstrations=["demo b"], encoder=TableEncoder(rows), teleport=None)
    assert [row["score"] for row in paper.rows[:2]] == pytest.approx([row["score"] for row in paper.rows[2:]])


def test_strength_zero_is_the_papers_ranker() -> None:
    names, rows = planted_group(LEVELS, 2, seed=3)
    encoder = TableEncoder(dict(zip(names, rows, strict=False)) | {"demo": rows[5]})
    zero, paper = (
        rank_responses(["p"], [names], demonstrations=["demo"], encoder=encoder, **options)
        for options in ({"teleport_strength": 0.0}, {"teleport": None})
    )
    assert [row["score"] for row in zero.rows] == pytest.approx([row["score"] for row in paper.rows], abs=1e-12)


def test_negative_edges_are_refused_in_words() -> None:
    encoder = TableEncoder({"a": [1.0, 0.0], "b": [-1.0, 0.1], "c": [0.0, 1.0]})
    with pytest.raises(DataError, match="cannot be scored with similarity='cosine'"):
        rank_responses(["p"], [["a", "b", "c"]], encoder=encoder, similarity="cosine")
