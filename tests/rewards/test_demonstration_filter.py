"""The filter finds planted bad demonstrations with a trained reward, and is honest about how they stand apart."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from rlsft.artifacts import read_jsonl
from rlsft.errors import ConfigError, DataError
from rlsft.rewards import ImplicitReward, rank_demonstrations, score_texts
from rlsft.rewards.demonstration_filter import bell_curve_separation, separation_of
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.rewarding import reward_trainer, tiny_classifier
from tests.support.training import WORDS, sft_trainer

GOOD = ("I like the {} a lot.", "The {} was great.", "We saw the {} yesterday.")
BAD = ("{0} {0} {0} {0}", "no no no {}", "asdf {} qwer")


def planted(count: int, *, seed: int) -> list[dict[str, Any]]:
    """Demonstrations of which every fifth is bad; prompts say nothing about it."""
    draw = random.Random(seed)
    rows = []
    for i in range(count):
        is_bad = i % 5 == 0
        completion = draw.choice(BAD if is_bad else GOOD).format(draw.choice(WORDS))
        rows.append({"prompt": f"What about {draw.choice(WORDS)}?", "completion": completion, "bad": is_bad})
    return rows


def auc(rows: list[dict[str, Any]], scores: Any) -> float:
    """Chance that a bad row scores below a good one."""
    return float(roc_auc_score([row["bad"] for row in rows], -np.asarray(scores)))


def texts(rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    return [row["prompt"] for row in rows], [row["completion"] for row in rows]


def test_a_trained_reward_model_finds_the_planted_fifth(tmp_path: Path) -> None:
    draw = random.Random(1)
    pairs = [
        {
            "prompt": f"What about {draw.choice(WORDS)}?",
            "chosen": draw.choice(GOOD).format(draw.choice(WORDS)),
            "rejected": draw.choice(BAD).format(draw.choice(WORDS)),
        }
        for _ in range(64)
    ]
    trainer = reward_trainer(tiny_classifier("llama"), tmp_path, pairs, max_steps=30)
    trainer.train()
    rows = planted(100, seed=2)
    scores = score_texts(trainer.reward_model, tiny_tokenizer(), *texts(rows), max_length=128)
    assert auc(rows, scores) > 0.95
    ranked = rank_demonstrations(rows, scores, keep=0.8)
    dropped = [row for row, kept in zip(rows, ranked.kept, strict=True) if not kept]
    assert sum(row["bad"] for row in dropped) >= 18  # of 20
    assert ranked.verdict() == "the dropped ones stand apart from the rest"


def test_the_implicit_reward_of_sft_on_the_soiled_set_finds_them_too(tmp_path: Path) -> None:
    """The realistic case: the model was fine-tuned on the very data, bad rows and all; the mean a token ranks."""
    rows = planted(60, seed=3)
    base, tuned = tiny_model("llama", seed=1), tiny_model("llama", seed=1)
    sft_trainer(tuned, tmp_path, rows, max_steps=30, per_device_train_batch_size=16).train()
    reward = ImplicitReward(tuned, base, tiny_tokenizer(), max_length=128)
    assert auc(rows, reward.score(*texts(rows), per_token=True)) > 0.9


def test_ranks_percentiles_and_files(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "completion": f"c{i}\n# not a heading", "id": i} for i in range(5)]
    ranked = rank_demonstrations(rows, [3.0, -1.0, 2.0, 2.0, 5.0], keep=0.6)
    assert ranked.percentiles.tolist() == [75.0, 0.0, 37.5, 37.5, 100.0]
    assert ranked.kept.tolist() == [True, False, True, False, True]  # of equal scores the earlier one stays
    assert ranked.worst(2) == [1, 2]
    paths = ranked.save(tmp_path, worst=2)
    assert set(paths) == {"demonstrations", "kept", "worst", "summary"}
    assert read_jsonl(paths["kept"]) == [rows[0], rows[2], rows[4]]
    assert read_jsonl(paths["demonstrations"])[3] == {**rows[3], "score": 2.0, "percentile": 37.5, "kept": False}
    page = paths["worst"].read_text()
    assert "## 1. row 2: score -1, percentile 0.0 (dropped)" in page
    assert "> # not a heading" in page
    assert "c0" not in page
    assert ranked.verdict().startswith("too few")
    everything = rank_demonstrations(rows, [3.0, -1.0, 2.0, 2.0, 5.0], keep=1.0)
    assert everything.kept.all()
    assert everything.summary_text().endswith("Nothing was dropped.")
    assert everything.save(tmp_path / "all")["summary"].exists()


def test_separation_by_hand_and_its_limits() -> None:
    """0, 0, 1, 1 at keep 1/2: means 1 apart, deviation 1/2. A bell curve gives 2 phi(0) * 2 = 1.596."""
    assert separation_of(np.array([0.0, 0.0, 1.0, 1.0]), 0.5).mean == pytest.approx(2.0)
    assert bell_curve_separation(0.5) == pytest.approx(1.5957691)
    even = np.random.default_rng(0).normal(size=4000)
    assert separation_of(even, 0.8).mean == pytest.approx(bell_curve_separation(0.8), abs=0.05)
    two = np.where(np.arange(200) % 5 == 0, 0.0, 1.0)
    assert separation_of(two, 0.8).mean == pytest.approx(1 / np.sqrt(0.8 * 0.2))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (np.random.default_rng(1).normal(size=400) - 5 * (np.arange(400) % 5 == 0), "stand apart"),
        (np.random.default_rng(2).normal(size=400), "nothing says"),
        (np.exp(np.random.default_rng(3).normal(size=400)), "fade out evenly"),  # few very good ones, no bad group
    ],
    ids=["two-groups", "one-bell", "long-upper-tail"],
)
def test_the_verdict_needs_more_than_a_cut(scores: np.ndarray, expected: str) -> None:
    rows = [{"prompt": "p", "completion": "c"}] * len(scores)
    ranked = rank_demonstrations(rows, scores)
    assert expected in ranked.verdict()
    assert ranked.separation.low < ranked.separation.mean < ranked.separation.high
    assert expected in ranked.summary_text()


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_rows_are_named(count: int) -> None:
    with pytest.raises(DataError, match=f"at least two demonstrations to rank, got {count}"):
        rank_demonstrations([{"prompt": "p", "completion": "c"}] * count, np.zeros(count))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, float("nan"), 2.0], r"the reward of row 2 is nan \(1 of 3 are not finite\)"),
        ([1.0, 2.0, float("-inf")], "the reward of row 3 is -inf"),
        ([1.0, 1.0, 1.0], r"every demonstration has the same reward, 1: nothing can be ranked"),
        ([1.0, 2.0], r"one number a demonstration, 3, got shape \[2\]"),
    ],
)
def test_unusable_scores_are_named(scores: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rank_demonstrations([{"prompt": "p", "completion": "c"}] * 3, scores)


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.01, float("nan")])
def test_keep_out_of_range_is_named(keep: float) -> None:
    with pytest.raises(ConfigError, match="keep must be above 0 and at most 1"):
        rank_demonstrations([{"prompt": "p", "completion": "c"}] * 3, [1.0, 2.0, 3.0], keep=keep)
