"""Padding by length: what is real, what is trained, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlsft.data import DemonstrationCollator, PairCollator, PromptCollator
from rlsft.errors import DataError

ROWS = [
    {"input_ids": [5, 2, 7, 2], "completion_mask": [False, False, True, True]},
    {"input_ids": [9, 2], "completion_mask": [False, True], "ignored": "x"},
]


def test_right_padding_by_hand() -> None:
    batch = DemonstrationCollator(pad_token_id=2)(ROWS)
    assert batch["input_ids"].tolist() == [[5, 2, 7, 2], [9, 2, 2, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["completion_mask"].tolist() == [[False, False, True, True], [False, True, False, False]]
    assert set(batch) == {"input_ids", "attention_mask", "completion_mask"}
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    assert batch["completion_mask"].dtype == torch.bool


def test_left_padding_by_hand() -> None:
    batch = DemonstrationCollator(pad_token_id=2, padding_side="left")(ROWS)
    assert batch["input_ids"].tolist() == [[5, 2, 7, 2], [2, 2, 9, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [0, 0, 1, 1]]
    assert batch["completion_mask"].tolist() == [[False, False, True, True], [False, False, False, True]]


@pytest.mark.parametrize(("multiple", "width"), [(None, 4), (4, 4), (8, 8), (3, 6)])
def test_widths_are_rounded_up(multiple: int | None, width: int) -> None:
    assert DemonstrationCollator(2, pad_to_multiple_of=multiple)(ROWS)["input_ids"].shape == (2, width)


def test_pairs_share_one_width_and_carry_margins() -> None:
    rows: list[dict[str, Any]] = [
        {"chosen_input_ids": [1, 2, 3], "rejected_input_ids": [1], "margin": 0.5},
        {"chosen_input_ids": [1], "rejected_input_ids": [1, 2, 3, 4], "margin": 2},
    ]
    batch = PairCollator(pad_token_id=0)(rows)
    assert batch["chosen_input_ids"].tolist() == [[1, 2, 3, 0], [1, 0, 0, 0]]
    assert batch["rejected_input_ids"].tolist() == [[1, 0, 0, 0], [1, 2, 3, 4]]
    assert batch["rejected_attention_mask"].tolist() == [[1, 0, 0, 0], [1, 1, 1, 1]]
    assert batch["margin"].tolist() == [0.5, 2.0]
    assert set(batch) == {
        *(f"{a}_{b}" for a in ("chosen", "rejected") for b in ("input_ids", "attention_mask")),
        "margin",
    }
    del rows[1]["margin"]
    for row in rows:
        for side in ("chosen", "rejected"):
            row[f"{side}_completion_mask"] = [True] * len(row[f"{side}_input_ids"])
    batch = PairCollator(pad_token_id=0, padding_side="left")(rows)
    assert "margin" not in batch
    assert batch["chosen_completion_mask"].tolist() == [[False, True, True, True], [False, False, False, True]]


def test_prompts_are_padded_on_the_left_and_other_columns_pass() -> None:
    batch = PromptCollator(pad_token_id=2)([{"input_ids": [5, 6], "topic": "a"}, {"input_ids": [7], "topic": "b"}])
    assert batch["input_ids"].tolist() == [[5, 6], [2, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1], [0, 1]]
    assert batch["topic"] == ["a", "b"]


@pytest.mark.parametrize("collator", [DemonstrationCollator, PairCollator, PromptCollator])
def test_a_missing_pad_token_and_a_wrong_side_are_named(collator: Any) -> None:
    with pytest.raises(DataError, match="pad_token_id must be a token id, got None"):
        collator(None)
    with pytest.raises(DataError, match="padding_side must be 'left' or 'right', got 'middle'"):
        collator(0, padding_side="middle")
