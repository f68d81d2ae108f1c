"""The proxy of human agreement, on geometry whose answer is known."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from rlsft.errors import DataError
from rlsft.ranking import agreement_with_second_reply, render_agreement
from tests.ranking.fakes import hash_encoder

# Replies to one prompt share their first word, so `hash_encoder` puts them close together.
EXAMPLES = [(f"prompt {i}", [f"topic{i} one", f"topic{i} two", f"topic{i} two"]) for i in range(30)]


def values(report: dict, method: str, measure: str) -> dict:
    (row,) = [row for row in report["rows"] if (row["method"], row["measure"]) == (method, measure)]
    return row


def test_a_close_second_reply_is_found_with_the_first_and_not_without() -> None:
    report = agreement_with_second_reply(EXAMPLES, encoder=hash_encoder, num_distractors=9)
    assert report["num_prompts"] == 30
    assert report["mean_candidates"] == 10.0
    assert values(report, "plain_cosine", "top1")["mean"] == 1.0
    assert values(report, "textrank_teleport", "top1")["mean"] > 0.9
    # Without the first reply nothing speaks for the second one: no other answer is near it.
    assert values(report, "textrank_paper", "top1")["high"] < 0.3
    assert values(report, "textrank_paper", "top1")["chance"] == pytest.approx(0.1)


def test_chance_is_the_expectation_of_a_random_order() -> None:
    report = agreement_with_second_reply(EXAMPLES, encoder=hash_encoder, num_distractors=3)
    assert values(report, "plain_cosine", "reciprocal_rank")["chance"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert values(report, "plain_cosine", "percentile")["chance"] == 0.5


def test_with_no_information_every_ranker_is_at_chance() -> None:
    """All answers alike: the order falls to position, and the second reply's position is random."""

    def blind(texts: Sequence[str]) -> NDArray[np.float32]:
        return np.ones((len(texts), 3), np.float32)

    examples = [(f"prompt {i}", [f"reply {i}a", f"reply {i}b"]) for i in range(200)]
    report = agreement_with_second_reply(examples, encoder=blind, num_distractors=4)
    for method in ("textrank_teleport", "textrank_paper", "plain_cosine"):
        row = values(report, method, "percentile")
        assert row["low"] < 0.5 < row["high"]
    gain = values(report, "teleport_minus_cosine", "reciprocal_rank")
    assert (gain["mean"], gain["low"], gain["high"], gain["chance"]) == (0.0, 0.0, 0.0, None)


def test_intervals_resample_prompts() -> None:
    report = agreement_with_second_reply(EXAMPLES, encoder=hash_encoder)
    assert {row["n"] for row in report["rows"]} == {30}  # not the 60 lists
    row = values(report, "textrank_paper", "reciprocal_rank")
    assert row["low"] < row["mean"] < row["high"]


def test_model_samples_may_be_the_competitors() -> None:
    samples = [[f"other{i} a", f"other{i} b", f"topic{i} one", " "] for i in range(30)]
    report = agreement_with_second_reply(EXAMPLES, samples=samples, encoder=hash_encoder)
    assert report["distractors"] == "model samples"
    assert report["mean_candidates"] == 3.0  # two samples that are no reply, and the second reply


def test_the_report_is_labelled_seeded_and_json() -> None:
    first, again, other = (
        agreement_with_second_reply(EXAMPLES[:8], seed=seed, num_distractors=3) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
    assert first["proxy"] is True
    assert first["description"].startswith("Proxy of human agreement")
    assert json.loads(json.dumps(first)) == first


def test_the_table_shows_chance_and_what_the_graph_adds() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(render_agreement(agreement_with_second_reply(EXAMPLES, encoder=hash_encoder)))
    text = console.export_text()
    for part in ("Rank agreement (proxy)", "random order", "plain cosine", "what the graph adds", "Not a human"):
        assert part in text


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(DataError, match="no prompt with two distinct replies"):
        agreement_with_second_reply([("p", ["only one", "only one"])])
    with pytest.raises(DataError, match="samples must have one entry an example: got 1 for 30"):
        agreement_with_second_reply(EXAMPLES, samples=[["a"]])


@pytest.mark.demo
def test_real_dialogues_give_a_report() -> None:
    if importlib.util.find_spec("chitchat_dataset") is None:
        pytest.skip("pip install --no-deps chitchat-dataset==0.9.0")
    from rlsft.data import chitchat

    examples = chitchat.several_replies("test")
    report = agreement_with_second_reply(examples)  # word overlap: no claim about the numbers
    assert report["num_prompts"] == len(examples) > 100
    assert report["mean_candidates"] == 16.0
