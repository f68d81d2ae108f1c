"""Intervals: coverage, pairing, groups, determinism, and the verdicts they allow."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlsft.errors import ConfigError
from rlsft.metrics import Interval, bootstrap_mean, jackknife_interval, paired_bootstrap, verdict


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [bootstrap_mean(rng.exponential(size=40), num_resamples=400, seed=i) for i in range(400)]
    coverage = np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])
    # skewed data at n = 40: percentile intervals reach about 0.92; four standard errors of a share are 0.05
    assert 0.87 < coverage < 0.985


def test_interval_is_as_wide_as_the_standard_error_says() -> None:
    values = np.random.default_rng(1).normal(size=400)
    interval = bootstrap_mean(values, num_resamples=4000)
    width = 2 * 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert interval.high - interval.low == pytest.approx(width, rel=0.06)
    assert interval.mean == pytest.approx(values.mean())
    narrower = bootstrap_mean(values, level=0.5, num_resamples=4000)
    assert narrower.high - narrower.low == pytest.approx(width * 0.6745 / 1.96, rel=0.08)


def test_same_seed_same_interval_and_memory_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlsft.metrics import bootstrap

    values = np.random.default_rng(2).normal(size=50)
    whole = bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) == whole
    assert bootstrap_mean(values, seed=4) != whole
    monkeypatch.setattr(bootstrap, "_MAX_GATHERED", 700)
    assert bootstrap_mean(values, seed=3) == whole


def test_grouped_values_give_a_wider_interval() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(25), 8)
    values = rng.normal(size=25)[groups]  # all values of a group are equal: only 25 are independent
    loose, honest = bootstrap_mean(values), bootstrap_mean(values, groups=groups.tolist())
    assert (honest.n, honest.units) == (200, 25)
    assert honest.mean == pytest.approx(values.mean())
    assert (honest.high - honest.low) / (loose.high - loose.low) == pytest.approx(math.sqrt(8), rel=0.15)


def test_uneven_groups_keep_the_mean_of_all_values() -> None:
    interval = bootstrap_mean([0.0, 0.0, 0.0, 1.0], groups=["a", "a", "a", "b"])
    assert interval.mean == 0.25
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_paired_difference_is_narrower_than_the_two_sides() -> None:
    rng = np.random.default_rng(4)
    prompt_effect = rng.normal(scale=5.0, size=60)
    before = prompt_effect + rng.normal(scale=0.2, size=60)
    after = prompt_effect + 0.5 + rng.normal(scale=0.2, size=60)
    difference = paired_bootstrap(before, after)
    assert difference.low > 0.3
    assert difference.high < 0.7
    assert bootstrap_mean(before).high > bootstrap_mean(after).low  # apart they overlap


def test_paired_difference_changes_sign_with_the_sides() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 30))
    assert paired_bootstrap(x, y).mean == pytest.approx(-paired_bootstrap(y, x).mean)
    assert paired_bootstrap(x, x) == Interval(0.0, 0.0, 0.0, 30)


def test_no_values_and_one_value_have_no_bounds() -> None:
    empty, one = bootstrap_mean([]), bootstrap_mean([2.0])
    assert math.isnan(empty.mean)
    assert empty.n == 0
    assert one.mean == 2.0
    assert math.isnan(one.low)
    assert not one.is_known
    assert empty.format() == "–"
    assert one.format(1) == "2.0"
    assert Interval(1.0, 0.5, 1.5, 9).format(2) == "1.00 [0.50, 1.50]"


def test_jackknife_of_a_mean_is_the_standard_error() -> None:
    values = np.random.default_rng(6).normal(size=30)
    left_out = (values.sum() - values) / 29
    interval = jackknife_interval(float(values.mean()), left_out)
    error = values.std(ddof=1) / math.sqrt(30)
    assert interval.high - interval.mean == pytest.approx(1.959964 * error, rel=1e-6)
    assert interval.mean - interval.low == pytest.approx(1.959964 * error, rel=1e-6)


@pytest.mark.parametrize(
    ("low", "high", "better", "expected"),
    [
        (0.1, 0.5, "higher", "better"),
        (0.1, 0.5, "lower", "worse"),
        (-0.5, -0.1, "higher", "worse"),
        (-0.5, -0.1, "lower", "better"),
        (-0.1, 0.5, "higher", "no clear change"),
        (0.0, 0.5, "higher", "no clear change"),
        (0.1, 0.5, None, "higher"),
        (-0.5, -0.1, None, "lower"),
    ],
)
def test_verdicts(low: float, high: float, better: str | None, expected: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high, 50), better=better) == expected  # type: ignore[arg-type]


def test_no_verdict_from_few_units() -> None:
    clear = Interval(1.0, 0.9, 1.1, 19)
    assert verdict(clear, better="higher") == "too few to say"
    assert verdict(Interval(1.0, 0.9, 1.1, 200, units=19), better="higher") == "too few to say"
    assert verdict(Interval(1.0, 0.9, 1.1, 20), better="higher") == "better"


def test_a_difference_below_the_last_digit_shown_is_no_change() -> None:
    tiny = Interval(-7e-78, -1.5e-77, -1e-78, 96)
    assert verdict(tiny, better="higher") == "worse"
    assert verdict(tiny, better="higher", resolution=0.005) == "no clear change"
    assert verdict(Interval(-0.006, -0.01, -0.002, 96), better="higher", resolution=0.005) == "worse"


def test_bad_input_is_named() -> None:
    with pytest.raises(ConfigError, match="values must be finite, got nan at position 1"):
        bootstrap_mean([1.0, math.nan])
    with pytest.raises(ConfigError, match=r"values must be one row of numbers \[n\], got shape \[1, 2\]"):
        bootstrap_mean([[1.0, 2.0]])
    with pytest.raises(ConfigError, match="must be paired, got 2 and 3 values"):
        paired_bootstrap([1, 2], [1, 2, 3])
    with pytest.raises(ConfigError, match="groups must name one group a value, got 1 for 2"):
        bootstrap_mean([1.0, 2.0], groups=["a"])
    with pytest.raises(ConfigError, match="level must lie between 0 and 1"):
        bootstrap_mean([1.0, 2.0], level=95)
