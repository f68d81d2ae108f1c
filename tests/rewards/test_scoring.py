"""Scores of texts: the encoding of training, the order of the input, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlsft.data.encoding import encode_demonstration
from rlsft.errors import DataError
from rlsft.rewards import RewardModel, score_texts
from tests.support.models import tiny_tokenizer
from tests.support.rewarding import tiny_classifier

PROMPTS = ["Hello!", "What did you do?", [{"role": "user", "content": "Was it fun?"}], "Hello!"]
COMPLETIONS = [
    "I am fine, thank you.",
    "We went to the park and played football.",
    "No.",
    "Rice, but I also like noodles.",
]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_scores_are_those_of_single_sequences_in_the_order_given(batch_size: int) -> None:
    model = RewardModel(tiny_classifier("gpt2"))
    finished: list[int] = []
    scores = score_texts(
        model, tiny_tokenizer(), PROMPTS, COMPLETIONS, batch_size=batch_size, max_length=64, on_batch=finished.append
    )
    for prompt, completion, score in zip(PROMPTS, COMPLETIONS, scores, strict=True):
        row = encode_demonstration({"prompt": prompt, "completion": completion}, tiny_tokenizer(), max_length=64)
        ids = torch.tensor([row["input_ids"]])
        assert ids[0, -1] == tiny_tokenizer().eos_token_id  # the end token is part of what is scored
        with torch.no_grad():
            assert score == pytest.approx(model.score(ids, torch.ones_like(ids)).item(), abs=1e-6)
    assert len(set(np.round(scores, 5))) == 4
    assert sum(finished) == 4
    assert max(finished) <= batch_size


def test_mode_and_gradients_are_left_alone() -> None:
    model = RewardModel(tiny_classifier("llama", attention_dropout=0.5)).train()
    first, again = (score_texts(model, tiny_tokenizer(), PROMPTS, COMPLETIONS) for _ in range(2))
    assert np.array_equal(first, again)  # no dropout while scoring
    assert model.training
    assert model.backbone.training
    assert all(p.grad is None for p in model.parameters())


def test_normalised_scores_and_none_at_all() -> None:
    model = RewardModel(tiny_classifier("llama"))
    raw = score_texts(model, tiny_tokenizer(), PROMPTS, COMPLETIONS)
    model.set_normalizer(raw.mean(), raw.std())
    scaled = score_texts(model, tiny_tokenizer(), PROMPTS, COMPLETIONS, normalized=True)
    assert scaled.mean() == pytest.approx(0, abs=1e-5)
    assert scaled.std() == pytest.approx(1, abs=1e-4)
    assert score_texts(model, tiny_tokenizer(), [], []).shape == (0,)


def test_wrong_input_is_named() -> None:
    model = RewardModel(tiny_classifier("llama"))
    with pytest.raises(DataError, match="prompts and completions must have one length, got 4 and 1"):
        score_texts(model, tiny_tokenizer(), PROMPTS, ["Yes."])
    with pytest.raises(DataError, match="row 1: column 'completion' is empty"):
        score_texts(model, tiny_tokenizer(), PROMPTS[:2], ["Yes.", ""])
    with pytest.raises(DataError, match="batch_size must be at least 1, got 0"):
        score_texts(model, tiny_tokenizer(), PROMPTS, COMPLETIONS, batch_size=0)
