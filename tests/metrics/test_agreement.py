"""Agreement of rankings and raters: scipy's and scikit-learn's values, published tables, cases by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rlsft.errors import ConfigError
from rlsft.metrics import (
    average_ranks,
    cohen_kappa,
    correlate,
    exact_order_rate,
    fleiss_kappa,
    is_exact_order,
    kendall_tau_b,
    pearson,
    spearman,
    top1_agreement,
)


def test_tau_b_equals_scipy_with_and_without_ties() -> None:
    rng = np.random.default_rng(0)
    for size in (2, 5, 16, 60):
        for levels in (3, 1000):
            x, y = rng.integers(levels, size=(2, size)).astype(float)
            expected = stats.kendalltau(x, y).statistic if np.ptp(x) and np.ptp(y) else math.nan
            assert kendall_tau_b(x, y) == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_tau_by_hand() -> None:
    # of six pairs only (3rd, 4th) is discordant: (5 - 1) / 6
    assert kendall_tau_b([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert kendall_tau_b([1, 2, 3], [3, 2, 1]) == -1.0
    assert math.isnan(kendall_tau_b([1.0], [2.0]))
    assert math.isnan(kendall_tau_b([1, 1, 1], [1, 2, 3]))


def test_top1_breaks_ties_at_random() -> None:
    assert top1_agreement([3, 1, 2], [9, 0, 1]) == 1.0
    assert top1_agreement([3, 1, 2], [0, 9, 1]) == 0.0
    # first is {0, 1} against {0}: the same one with probability 1/2
    assert top1_agreement([5, 5, 1], [9, 0, 1]) == 0.5
    assert top1_agreement([1, 1, 1, 1], [1, 1, 1, 1]) == 0.25


def test_exact_order() -> None:
    assert is_exact_order([0.1, 0.5, 0.3], [1, 30, 2])
    assert not is_exact_order([0.1, 0.5, 0.3], [1, 2, 30])
    assert not is_exact_order([1, 1], [1, 2])  # a tie is an order of its own
    assert exact_order_rate([([1, 2], [1, 2]), ([1, 2], [2, 1]), ([1, 2], [5, 9])]) == pytest.approx(2 / 3)


def test_chance_of_exact_order_is_one_in_factorial() -> None:
    rng = np.random.default_rng(1)
    rate = exact_order_rate([(rng.permutation(3), rng.permutation(3)) for _ in range(3000)])
    assert rate == pytest.approx(1 / 6, abs=0.025)


def test_cohen_kappa_equals_scikit_learn() -> None:
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(2)
    first = rng.integers(4, size=80).tolist()
    second = [a if rng.random() < 0.6 else int(rng.integers(4)) for a in first]
    assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    assert math.isnan(cohen_kappa(["a", "a"], ["a", "a"]))


def test_fleiss_kappa_of_the_published_example() -> None:
    # Fleiss (1971): 10 subjects, 14 raters, 5 categories; kappa 0.210
    counts = [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
    assert fleiss_kappa(counts) == pytest.approx(0.210, abs=5e-4)
    assert math.isnan(fleiss_kappa([[3, 0], [3, 0]]))


def test_correlations_equal_scipy() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(6, size=70).astype(float)
    y = x + rng.normal(scale=3, size=70)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    np.testing.assert_allclose(average_ranks(x), stats.rankdata(x))


def test_correlation_interval_holds_the_value_and_narrows_with_data() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=400)
    y = x + rng.normal(size=400)
    few, many = correlate(x[:40], y[:40]), correlate(x, y)
    assert many.low < many.mean < many.high
    assert many.low < 0.69 < many.high  # Spearman of a bivariate normal with r = sqrt(1/2)
    assert (few.high - few.low) > 2 * (many.high - many.low)
    assert correlate(x, y, seed=1) == correlate(x, y, seed=1)


def test_correlation_of_a_constant_is_unknown() -> None:
    constant = correlate([0.1 + 0.2] * 10, range(10))
    assert math.isnan(constant.mean)
    assert not constant.is_known


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match=r"must rank the same items, got shapes \[2\] and \[3\]"):
        kendall_tau_b([1, 2], [1, 2, 3])
    with pytest.raises(ConfigError, match="must not hold NaN"):
        top1_agreement([1, math.nan], [1, 2])
    with pytest.raises(ConfigError, match=r"same number of raters, at least 2, got \[2.0, 3.0\]"):
        fleiss_kappa([[1, 1], [2, 1]])
    with pytest.raises(ConfigError, match="same items, got 1 and 2"):
        cohen_kappa([1], [1, 2])
    with pytest.raises(ConfigError, match=r"one length, got \[2\] and \[3\]"):
        pearson([1, 2], [1, 2, 3])
