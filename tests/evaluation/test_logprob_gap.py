"""The gap of chosen and rejected: by hand from full logits, independent of batches, moved by training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlsft.data import encode_demonstration
from rlsft.errors import DataError
from rlsft.evaluation import logprob_gap
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.training import sft_trainer

TOKENIZER = tiny_tokenizer()
PAIRS: list[dict[str, Any]] = [
    {"prompt": "Hello!", "chosen": "I am fine, thank you.", "rejected": "No."},
    {"prompt": "Was it fun?", "chosen": "Yes.", "rejected": "We went to the park and played football."},
    {"prompt": [{"role": "user", "content": "Hello!"}], "chosen": "Hi.", "rejected": "Rice, but also noodles."},
]


def logprob(model: Any, prompt: Any, completion: Any, mean: bool) -> float:
    row = encode_demonstration({"prompt": prompt, "completion": completion}, TOKENIZER, max_length=64)
    ids = torch.tensor([row["input_ids"]])
    with torch.no_grad():
        logs = model(ids).logits[0, :-1].double().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    logs = logs[torch.tensor(row["completion_mask"])[1:]]
    return float(logs.mean() if mean else logs.sum())


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_gap_accuracy_and_sides_are_those_of_full_logits(per_token: bool, batch_size: int) -> None:
    model = tiny_model("gpt2", seed=3, initializer_range=0.2)
    found = logprob_gap(model, TOKENIZER, PAIRS, batch_size=batch_size, max_length=64, per_token=per_token)
    sides = np.array([[logprob(model, p["prompt"], p[s], per_token) for p in PAIRS] for s in ("chosen", "rejected")])
    gaps = sides[0] - sides[1]
    np.testing.assert_allclose(found.gaps, gaps, atol=1e-4)
    assert found.gap.mean == pytest.approx(gaps.mean(), abs=1e-4)
    assert found.chosen.mean == pytest.approx(sides[0].mean(), abs=1e-4)
    assert found.rejected.mean == pytest.approx(sides[1].mean(), abs=1e-4)
    assert found.accuracy.mean == pytest.approx((gaps > 0).mean())
    if not per_token:
        assert (gaps > 0).tolist() == [False, True, True]  # the shorter answer wins a sum


def test_pairs_of_one_prompt_are_resampled_together() -> None:
    """The chat with one user turn is the same prompt as the string."""
    found = logprob_gap(tiny_model("llama"), TOKENIZER, PAIRS, max_length=64)
    assert found.gap.n == 3
    assert found.gap.units == 2
    assert found.to_json()["prompts"] == 2


def test_swapped_sides_mirror_the_gap() -> None:
    model = tiny_model("llama", initializer_range=0.2)
    swapped = [{"prompt": p["prompt"], "chosen": p["rejected"], "rejected": p["chosen"]} for p in PAIRS]
    one, other = (logprob_gap(model, TOKENIZER, rows, max_length=64) for rows in (PAIRS, swapped))
    np.testing.assert_allclose(one.gaps, -other.gaps)
    assert one.accuracy.mean == pytest.approx(1 - other.accuracy.mean)


def test_training_on_the_chosen_answers_widens_it(tmp_path: Path) -> None:
    model = tiny_model("llama", seed=1)
    before = logprob_gap(model, TOKENIZER, PAIRS, max_length=64)
    rows = [
        {"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in PAIRS if isinstance(pair["prompt"], str)
    ]
    sft_trainer(model, tmp_path, rows, max_steps=30).train()
    after = logprob_gap(model, TOKENIZER, PAIRS, max_length=64)
    change = after.change_from(before)
    assert change.mean == pytest.approx((after.gaps - before.gaps).mean())
    assert change.low > 0
    assert after.gap.mean > before.gap.mean
    other = logprob_gap(model, TOKENIZER, PAIRS[:2], max_length=64)
    with pytest.raises(DataError, match="same pairs in the same order"):
        after.change_from(other)


def test_bad_rows_are_named() -> None:
    model = tiny_model("llama")
    with pytest.raises(DataError, match="at least one pair of chosen and rejected, got none"):
        logprob_gap(model, TOKENIZER, [])
    with pytest.raises(DataError, match="row 2 has no 'rejected'"):
        logprob_gap(model, TOKENIZER, [PAIRS[0], {"prompt": "a", "chosen": "b"}])
    with pytest.raises(DataError, match="row 1: column 'chosen' is empty"):
        logprob_gap(model, TOKENIZER, [{"prompt": "a", "chosen": " ", "rejected": "b"}])
    with pytest.raises(DataError, match="row 1: chosen and rejected are the same answer"):
        logprob_gap(model, TOKENIZER, [{"prompt": "a", "chosen": "b", "rejected": "b"}])
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DataError, match="log-probabilities of row 1 are not finite"):
        logprob_gap(model, TOKENIZER, PAIRS)
