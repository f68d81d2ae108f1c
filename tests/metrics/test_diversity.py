"""Diversity and calibration of rewards: by hand, and against definitions computed another way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlsft.errors import ConfigError
from rlsft.metrics import (
    distinct_n,
    distinct_n_leave_one_out,
    length_in_words,
    mean_margin,
    pair_calibration,
    repetition,
    reward_accuracy,
    self_bleu,
)
from tests.metrics.test_overlap import noisy_pairs

TEXTS = ["the cat sat", "the cat ran", "a dog sat", ""]


def test_distinct_by_hand() -> None:
    # 9 words: the, cat, sat, ran, a, dog; 6 bigrams, of which `the cat` comes twice
    assert distinct_n(TEXTS, 1) == pytest.approx(6 / 9)
    assert distinct_n(TEXTS, 2) == pytest.approx(5 / 6)
    assert distinct_n([], 1) == 0.0
    assert distinct_n(["one"], 2) == 0.0
    assert distinct_n(["Ja Ja", "ja"], 1) == pytest.approx(1 / 3)  # case does not make a word new
    assert distinct_n(["はいはい"], 1, language="ja") == 0.5


@pytest.mark.parametrize("n", [1, 2])
def test_leave_one_out_is_the_statistic_without_the_text(n: int) -> None:
    value, left_out = distinct_n_leave_one_out(TEXTS, n)
    assert value == distinct_n(TEXTS, n)
    expected = [distinct_n(TEXTS[:i] + TEXTS[i + 1 :], n) for i in range(len(TEXTS))]
    np.testing.assert_allclose(left_out, expected)


def test_leave_one_out_by_unit() -> None:
    value, left_out = distinct_n_leave_one_out(TEXTS, 1, units=["p", "q", "p", "q"])
    assert value == distinct_n(TEXTS, 1)
    np.testing.assert_allclose(left_out, [distinct_n(TEXTS[1::2], 1), distinct_n(TEXTS[0::2], 1)])


def test_self_bleu_tells_copies_from_variety() -> None:
    assert self_bleu(["i like to play chess"] * 4) == pytest.approx(1.0)
    varied = ["i like to play chess", "what do you do all day", "rain again in our town", "soup is best when hot"]
    assert self_bleu(varied) < 0.2
    assert math.isnan(self_bleu(["alone"]))
    assert self_bleu(varied * 3, max_texts=4, seed=1) == self_bleu(varied * 3, max_texts=4, seed=1)


def nltk_self_bleu(texts: list[str]) -> float:
    """Every text against all others, one call of nltk each."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    words = [text.split() for text in texts]
    scores = []
    for i, hypothesis in enumerate(words):
        others = [other for j, other in enumerate(words) if j != i and other]
        score = sentence_bleu(others, hypothesis, smoothing_function=SmoothingFunction().method3) if others else 0.0
        scores.append(score if hypothesis else 0.0)
    return float(np.mean(scores))


@pytest.mark.parametrize("core", ["with the core", "without the core"])
def test_self_bleu_equals_nltk(core: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if core == "without the core":
        monkeypatch.setattr("rlsft_kernels._backend.native_status", lambda: (False, "switched off"))
        monkeypatch.setattr("rlsft_kernels.similarity.tokens.native_status", lambda: (False, "switched off"))
    pairs = noisy_pairs(12)
    for texts in (
        [text for pair in pairs for text in pair],
        [pairs[0][0], pairs[0][1], "cat", "", "the cat", "  "],
        ["one two three", "", ""],  # two texts without words: no reference is left, and all score 0
        ["", ""],
        ["a", "b"],
    ):
        assert self_bleu(texts) == pytest.approx(nltk_self_bleu(texts), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_distinct_equals_a_set_of_nltk_ngrams(n: int) -> None:
    from nltk.util import ngrams

    texts = [text for pair in noisy_pairs() for text in pair]
    grams = [gram for text in texts for gram in ngrams(text.split(), n)]
    assert distinct_n(texts, n) == len(set(grams)) / len(grams)


def test_repetition_by_hand() -> None:
    assert repetition("a b c d e f g") == 0.0
    # 4-grams of "a b a b a b": abab, baba, abab: one of three was there before
    assert repetition("a b a b a b") == pytest.approx(1 / 3)
    assert repetition("too short") == 0.0
    assert repetition("no no no", n=1) == pytest.approx(2 / 3)


def test_length_counts_words_or_characters() -> None:
    assert length_in_words("Hello there, you!") == 5
    assert length_in_words("天気です。", language="ja") == 5
    with pytest.raises(ConfigError, match="n must be at least 1, got 0"):
        distinct_n(["a"], 0)


def test_accuracy_and_margin_by_hand() -> None:
    chosen, rejected = [2.0, 1.0, 0.5, 3.0], [1.0, 1.0, 1.5, 1.0]
    assert reward_accuracy(chosen, rejected) == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert mean_margin(chosen, rejected) == pytest.approx(0.5)
    assert math.isnan(reward_accuracy([], []))


def test_calibration_of_a_reward_that_is_right_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.5, 0.99, size=20_000)
    margin = np.log(probability / (1 - probability))
    is_right = rng.random(20_000) < probability
    signed = np.where(is_right, margin, -margin)
    honest = pair_calibration(signed, np.zeros_like(signed))
    assert honest.ece < 0.015
    assert honest.brier == pytest.approx(float((probability * (1 - probability)).mean()), abs=0.01)
    boastful = pair_calibration(4 * signed, np.zeros_like(signed))
    assert boastful.ece > 0.1
    assert boastful.brier > honest.brier
    assert sum(honest.count) == 20_000


def test_calibration_by_hand() -> None:
    # margins +ln3 and -ln3: both claim 3/4, one is right
    result = pair_calibration([math.log(3), 0.0], [0.0, math.log(3)])
    assert result.ece == pytest.approx(0.25)
    assert result.brier == pytest.approx((0.25**2 + 0.75**2) / 2)
    assert result.confidence == pytest.approx((0.75,))
    assert result.accuracy == (0.5,)


def test_extreme_margins_do_not_overflow() -> None:
    result = pair_calibration([1e4, 0.0], [0.0, 1e4])
    assert result.brier == pytest.approx(0.5)


def test_bad_rewards_are_named() -> None:
    with pytest.raises(ConfigError, match=r"two rows of one length, got \[1\] and \[2\]"):
        reward_accuracy([1.0], [1.0, 2.0])
    with pytest.raises(ConfigError, match="must be finite, pair 1 is not"):
        mean_margin([1.0, math.nan], [1.0, 2.0])
    with pytest.raises(ConfigError, match="at least one pair to calibrate"):
        pair_calibration([], [])
