"""The tolerance rule catches every planted error and lets honest rounding pass: a ruler that is measured itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.support.closeness import assert_as_accurate_as_eager

SIZES = [1, 2, 7, 64, 1000, 40_000]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def sample(size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(truth, eager): a gradient-like vector of mixed magnitudes, and the same with an error of one rounding."""
    truth = torch.randn(size, dtype=torch.float64) * torch.rand(size, dtype=torch.float64).square() + 0.01
    return truth, truth.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_honest_rounding_passes(size: int, dtype: torch.dtype) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        truth, eager = sample(size, dtype)
        eps = torch.finfo(dtype).eps
        other_order = (truth * (1 + (torch.rand(size, dtype=torch.float64) - 0.5) * eps)).to(dtype)
        for actual in (eager, other_order):
            assert_as_accurate_as_eager(actual, eager, truth)


PLANTED: dict[str, Callable[[Tensor], Tensor]] = {
    "biased": lambda x: x + 0.02 * x.abs().mean(),
    "scaled by 1.01": lambda x: x * 1.01,
    "scaled by 1.002": lambda x: x * 1.002,
    "sign": lambda x: -x,
    "last element not written": lambda x: torch.cat((x[:-1], x[-1:] * 0)),
    "one NaN": lambda x: torch.cat((x[:-1], x[-1:] * torch.nan)),
    "one inf": lambda x: torch.cat((x[:-1], x[-1:] * torch.inf)),
    "last element dropped": lambda x: x[:-1],
    "extra axis": lambda x: x[None],
    "swapped ends": lambda x: torch.cat((x[-1:], x[1:-1], x[:1])),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("planted", PLANTED)
def test_planted_error_fails_at_every_size(planted: str, size: int, dtype: torch.dtype) -> None:
    if planted == "swapped ends" and size == 1:
        pytest.skip("one element has nothing to be swapped with")
    truth, eager = sample(size, dtype)
    truth[-1] += 0.5  # a last element that matters
    eager = truth.to(dtype)
    with pytest.raises(AssertionError, match="result: "):
        assert_as_accurate_as_eager(PLANTED[planted](eager), eager, truth)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("planted", ["biased", "scaled by 1.01", "scaled by 1.002"])
def test_systematic_error_fails_in_half_precision(planted: str, dtype: torch.dtype) -> None:
    """One bfloat16 number is rounded by up to 0.4 %; only many of them together show 0.2 %."""
    for seed in range(20):
        torch.manual_seed(seed)
        truth, eager = sample(1000, dtype)
        with pytest.raises(AssertionError, match=r"result: (scaled|mean|largest)"):
            assert_as_accurate_as_eager(PLANTED[planted](truth).to(dtype), eager, truth)


def test_error_in_zeros_fails() -> None:
    zeros = torch.zeros(5)
    with pytest.raises(AssertionError, match=r"largest error 1\.000e-30 at flat index 2"):
        assert_as_accurate_as_eager(torch.tensor([0, 0, 1e-30, 0, 0]), zeros, zeros.double())


def test_nothing_to_compare_fails() -> None:
    empty = torch.zeros(0)
    with pytest.raises(AssertionError, match="nothing was compared"):
        assert_as_accurate_as_eager(empty, empty, empty.double())


def test_dtype_and_truth_are_checked() -> None:
    ones = torch.ones(3)
    with pytest.raises(AssertionError, match=r"actual is torch\.float32, eager torch\.bfloat16"):
        assert_as_accurate_as_eager(ones, ones.bfloat16(), ones.double())
    with pytest.raises(AssertionError, match="truth must be float64"):
        assert_as_accurate_as_eager(ones, ones, ones)
    with pytest.raises(AssertionError, match="truth has NaN or inf"):
        assert_as_accurate_as_eager(ones, ones, ones.double() / 0)


def test_twice_as_wrong_is_the_limit() -> None:
    truth = torch.linspace(-1, 1, 1001, dtype=torch.float64)
    error = torch.where(torch.arange(1001) % 2 == 0, 1e-3, -1e-3).double()
    eager = (truth + error).float()
    assert_as_accurate_as_eager((truth + 1.9 * error).float(), eager, truth)
    with pytest.raises(AssertionError, match="largest error"):
        assert_as_accurate_as_eager((truth + 2.1 * error).float(), eager, truth)
