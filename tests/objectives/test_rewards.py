"""Shaping of scores: by hand, by prompt and by batch, degenerate groups, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlsft.objectives import center_scores, penalize_missing_eos, whiten_scores


def test_missing_eos_is_subtracted_from_unfinished_answers_alone() -> None:
    scores = torch.tensor([0.5, -0.5, 2.0])
    shaped = penalize_missing_eos(scores, torch.tensor([True, False, False]), 1.0)
    assert shaped.tolist() == [0.5, -1.5, 1.0]
    assert scores.tolist() == [0.5, -0.5, 2.0]


def test_whitening_by_hand() -> None:
    """(1, 2, 3) has mean 2 and unbiased deviation 1; (0, 4) has mean 2 and deviation sqrt(8)."""
    torch.testing.assert_close(whiten_scores(torch.tensor([1.0, 2, 3])), torch.tensor([-1.0, 0, 1]))
    torch.testing.assert_close(
        whiten_scores(torch.tensor([0.0, 4, 1, 3]), group_size=2), torch.tensor([-1.0, 1, -1, 1]) / math.sqrt(2)
    )


def test_centring_by_hand() -> None:
    scores = torch.tensor([1.0, 3, 10, 20])
    assert center_scores(scores).tolist() == [-7.5, -5.5, 1.5, 11.5]
    assert center_scores(scores, group_size=2).tolist() == [-1, 1, -5, 5]


def test_a_prompt_does_not_see_the_others() -> None:
    first, second = torch.randn(4), 100 + 50 * torch.randn(4)
    together = whiten_scores(torch.cat((first, second)), group_size=4)
    torch.testing.assert_close(together, torch.cat((whiten_scores(first), whiten_scores(second))))


def test_shift_and_scale_do_not_change_whitened_scores() -> None:
    scores = torch.randn(8, dtype=torch.float64)
    torch.testing.assert_close(whiten_scores(5 * scores - 3), whiten_scores(scores), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scores", [torch.full((3,), 0.1), torch.tensor([5.0]), torch.zeros(0)], ids=str)
def test_nothing_to_tell_apart_is_zero(scores: Tensor) -> None:
    assert torch.equal(whiten_scores(scores), torch.zeros_like(scores))


def test_one_answer_a_prompt_is_zero() -> None:
    assert whiten_scores(torch.tensor([1.0, 2.0]), group_size=1).tolist() == [0, 0]


@pytest.mark.parametrize("shape_scores", [center_scores, whiten_scores])
def test_scores_and_groups_are_checked(shape_scores: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="group_size must divide the number of scores, got 2 for 3 scores"):
        shape_scores(torch.zeros(3), group_size=2)
    with pytest.raises(ValueError, match=r"scores must be \[S\] float, one an answer, got \[2, 2\]"):
        shape_scores(torch.zeros(2, 2))


def test_penalty_is_checked() -> None:
    scores = torch.zeros(2)
    with pytest.raises(ValueError, match="ended must be bool and shaped like scores"):
        penalize_missing_eos(scores, torch.tensor([1, 0]), 1.0)
    with pytest.raises(ValueError, match=r"penalty must be >= 0 \(it is subtracted\), got -1.0"):
        penalize_missing_eos(scores, torch.tensor([True, False]), -1.0)
