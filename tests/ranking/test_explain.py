"""Explanations: the parts are the score, and the words are true."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlsft.errors import DataError
from rlsft.ranking import RankedResponses, rank_responses
from rlsft.ranking.explain import stochastic_parts
from tests.ranking.fakes import TableEncoder, hash_encoder

ANSWERS = [
    "Hi there, how are you?",
    "Hi! How are you today?",
    "I like pizza a lot, and cheese too, and more of it.",
    "Well, I do not know.",
    "Hi friend.",
    "Zzz",
]


def parts_sum(parts: dict[str, Any]) -> float:
    given = sum(neighbour["contribution"] for neighbour in parts["neighbours"])
    return parts["base"] + given + parts["other_answers"] + parts["answers_without_edges"]


OPTIONS: dict[str, dict[str, Any]] = {
    "shifted": {"encoder": hash_encoder},
    "relu": {"encoder": hash_encoder, "similarity": "relu_cosine"},
    "undamped": {"encoder": hash_encoder, "damping": 0.0},
    "eigenvector": {"encoder": hash_encoder, "form": "eigenvector", "teleport": None},
    "directed-eigenvector": {"encoder": None, "similarity": "bm25", "form": "eigenvector", "teleport": None},
    "directed": {"encoder": hash_encoder, "similarity": "bm25"},
    "one-without-edges": {"encoder": None},  # "Zzz" shares no word with any
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_parts_sum_to_the_score(options: dict[str, Any]) -> None:
    ranked = rank_responses(["p", "q"], [ANSWERS, ANSWERS[2:]], demonstrations=["Hi, how are you?", None], **options)
    for row in ranked.rows:
        reason = ranked.explain(row["prompt_index"], row["response_index"])
        assert parts_sum(reason.json["parts"]) == pytest.approx(row["score"], abs=1e-6)
        assert reason.json["score"] == row["score"]


def test_directed_edges_pass_score_along_their_direction() -> None:
    """0 -> 1 -> 2 and 2 -> 0, 2 -> 1: by hand, with every score 1/3."""
    edges = np.array([[0.0, 5.0, 0.0], [0.0, 0.0, 2.0], [1.0, 3.0, 0.0]])
    parts = stochastic_parts(edges, np.full(3, 1 / 3), np.array([0.2, 0.5, 0.3]), 0.9, 1)
    assert parts.base == pytest.approx(0.05)
    np.testing.assert_allclose(parts.from_answers, [0.3, 0.0, 0.225])
    assert parts.dangling == 0.0
    parts = stochastic_parts(np.zeros((2, 2)), np.array([0.25, 0.75]), np.array([0.25, 0.75]), 0.8, 1)
    assert (parts.base, parts.dangling) == pytest.approx((0.15, 0.6))


def test_the_base_is_the_teleport_share() -> None:
    ranked = rank_responses(["p"], [ANSWERS], demonstrations=[ANSWERS[2]], encoder=hash_encoder)
    cosine = np.array([row["cosine_to_demonstration"] for row in ranked.rows])
    weights = np.exp(4 * cosine) / np.exp(4 * cosine).sum()
    base = [ranked.explain(0, i).json["parts"]["base"] for i in range(len(ANSWERS))]
    np.testing.assert_allclose(base, 0.15 * weights, atol=1e-12)


def test_eigenvector_of_two_answers_is_katz() -> None:
    """With m = 2 the damped update has no growing direction, so the constant term stays."""
    encoder = TableEncoder({"a": [1.0, 0.0], "b": [0.6, 0.8]})
    ranked = rank_responses(["p"], [["a", "b"]], encoder=encoder, form="eigenvector", teleport=None)
    parts = ranked.explain(0, 0).json["parts"]
    # Edge 0.8: both scores are 1 after scaling, of which 0.85 * 0.8 comes from the other answer.
    assert parts["neighbours"][0]["contribution"] == pytest.approx(0.68)
    assert parts["base"] == pytest.approx(0.32)


def test_a_neighbour_gives_its_score_times_its_share() -> None:
    ranked = rank_responses(["p"], [ANSWERS[:3]], encoder=hash_encoder, teleport=None)
    rows = np.stack([hash_encoder([text])[0] for text in ANSWERS[:3]]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    edges = 0.5 + 0.5 * rows @ rows.T
    np.fill_diagonal(edges, 0)
    by_index = {one["response_index"]: one for one in ranked.explain(0, 0).json["parts"]["neighbours"]}
    for j in (1, 2):
        share = edges[j, 0] / edges[j].sum()
        assert by_index[j]["edge"] == pytest.approx(edges[j, 0], abs=1e-6)
        assert by_index[j]["contribution"] == pytest.approx(0.85 * share * ranked.rows[j]["score"], abs=1e-8)


@pytest.fixture(scope="module")
def camps() -> RankedResponses:
    rows = {
        "a0": [1.0, 0.1, 0.0],
        "a1": [1.0, 0.0, 0.0],
        "a2": [1.0, -0.1, 0.0],
        "b": [0.0, 0.0, 1.0],
        "demo": [1.0, 0.3, 0.0],
    }
    return rank_responses(
        ["p"],
        [["a0", "a1", "", "a2", "b"]],
        demonstrations=["demo"],
        encoder=TableEncoder(rows),
        cluster_options={"n_clusters": 2},
    )


def test_the_words_name_score_neighbours_cluster_and_reason(camps: RankedResponses) -> None:
    text = str(camps.explain(0, 0))
    assert text.startswith("Answer 0 is ranked 1 of 4, score 0.")
    assert "Its cosine to the demonstration is 0.982; by that alone it would be ranked 1." in text
    assert "from its closeness to the demonstration; answer 1 gives" in text
    assert "Nearest answers: 1 (cosine 0.995), 3 (cosine 0.980), 4 (cosine 0.000)." in text
    assert "Cluster 0 has 3 of the 4 answers; answer 1 represents the cluster instead: it is nearer" in text
    assert "it represents its cluster because no member is nearer" in camps.explain(0, 1).text
    assert "Cluster 1 has 1 of the 4 answers; it represents its cluster because it is alone" in camps.explain(0, 4).text


def test_json_has_the_same_facts(camps: RankedResponses) -> None:
    cluster = camps.explain(0, 3).json["cluster"]
    assert cluster["members"] == [0, 1, 3]
    assert cluster["size"] == 3
    assert cluster["representative"] is False
    assert cluster["representative_index"] == 1


def test_a_tie_with_the_medoid_is_said() -> None:
    encoder = TableEncoder({"x": [1.0, 0.0], "y": [0.6, 0.8]})
    ranked = rank_responses(
        ["p"], [["x", "y"]], encoder=encoder, cluster="str", cluster_options={"n_clusters": 1, "var_threshold": 1.0}
    )
    assert "answer 0 represents the cluster instead: it is as near to the centre" in ranked.explain(0, 1).text


def test_an_answer_that_was_not_ranked_is_named(camps: RankedResponses) -> None:
    with pytest.raises(DataError, match=r"prompt 0 has no ranked response 2: ranked are \[0, 1, 3, 4\] \(empty"):
        camps.explain(0, 2)
    with pytest.raises(DataError, match="prompt_index must be 0 to 0, got 1"):
        camps.explain(1, 0)
