"""RolloutBatch: where prompts and completions meet, masks from lengths, trimming."""

from __future__ import annotations

import pytest
import torch

from rlsft.rollouts import Completion, RolloutBatch, pad_rollouts

PAD = 2  # also the end token


def batch() -> RolloutBatch:
    return pad_rollouts(
        [[5, 6, 7], [8], [9, 2]],
        [
            Completion([10, 2], "stop", [-0.5, -0.25]),
            Completion([11, 12, 13], "length", [-1.0, -2.0, -3.0]),
            Completion([2], "stop", [-4.0]),
        ],
        pad_token_id=PAD,
        temperature=0.7,
    )


def test_prompts_left_completions_right() -> None:
    b = batch()
    assert b.input_ids.tolist() == [[5, 6, 7, 10, 2, 2], [2, 2, 8, 11, 12, 13], [2, 9, 2, 2, 2, 2]]
    assert b.attention_mask.long().tolist() == [[1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0]]
    assert b.sequence_mask.long().tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 0, 0]]
    assert b.lengths.tolist() == [2, 3, 1]
    assert b.ended.tolist() == [True, False, True]
    assert b.sampler_logprobs.tolist() == [[-0.5, -0.25, 0], [-1, -2, -3], [-4, 0, 0]]
    assert b.temperature == 0.7
    assert b.token_lists() == [[10, 2], [11, 12, 13], [2]]


def test_select_drops_the_columns_nobody_needs() -> None:
    part = batch().with_(scores=torch.tensor([1.0, 2.0, 3.0])).select(torch.tensor([2, 0]))
    assert part.input_ids.tolist() == [[2, 9, 2, 2, 2], [5, 6, 7, 10, 2]]
    assert part.attention_mask.long().tolist() == [[0, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert part.scores.tolist() == [3.0, 1.0]
    assert part.sampler_logprobs.tolist() == [[-4, 0], [-0.5, -0.25]]
    assert batch().select(torch.tensor([1])).input_ids.tolist() == [[8, 11, 12, 13]]


def test_engine_without_logprobs() -> None:
    b = pad_rollouts([[1]], [Completion([3], "length")], pad_token_id=0, temperature=1.0)
    assert b.sampler_logprobs is None
    assert "sampler_logprobs" not in b.tensors()


def test_missing_fields_are_named() -> None:
    with pytest.raises(ValueError, match=r"RolloutBatch\.values has not been computed"):
        batch().need("prompt_ids", "values")


@pytest.mark.parametrize(
    ("prompts", "completions", "message"),
    [
        ([[1]], [], "equally many and at least one, got 1 and 0"),
        ([[1], []], [Completion([3], "stop"), Completion([3], "stop")], r"prompt_ids\[1\] and completions\[1\]"),
        ([[1]], [Completion([], "length")], r"prompt_ids\[0\] and completions\[0\]"),
    ],
)
def test_bad_input_is_named(prompts: list, completions: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pad_rollouts(prompts, completions, pad_token_id=0, temperature=1.0)
