"""No prompt on both sides of a split."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsft.errors import ConfigError, DataError
from rlsft.rewards import split_by_prompt


def rows_of(prompts: list[str]) -> list[dict[str, Any]]:
    return [{"prompt": p, "chosen": f"good {i}", "rejected": f"bad {i}"} for i, p in enumerate(prompts)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40).filter(lambda p: len(set(p)) > 1),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_sides_share_no_prompt_and_lose_no_row(prompts: list[str], fraction: float, seed: int) -> None:
    rows = rows_of(prompts)
    train, held_out = split_by_prompt(rows, eval_fraction=fraction, seed=seed)
    assert not {r["prompt"] for r in train} & {r["prompt"] for r in held_out}
    assert train
    assert held_out
    assert sorted([*train, *held_out], key=rows.index) == rows
    assert train == [row for row in rows if row in train]  # old order
    assert (train, held_out) == split_by_prompt(rows, eval_fraction=fraction, seed=seed)


def test_share_is_of_prompts_and_seed_matters() -> None:
    rows = rows_of([f"prompt {i % 20}" for i in range(100)])
    train, held_out = split_by_prompt(rows, 0.25)
    assert split_by_prompt(rows, 0.0) == (rows, [])
    assert (len(train), len(held_out)) == (75, 25)
    assert split_by_prompt(rows, eval_fraction=0.25, seed=1)[1] != held_out


def test_datasets_and_prompts_inside_the_chats() -> None:
    def chat(question: str, answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]

    rows = [{"chosen": chat(q, f"yes {i}"), "rejected": chat(q, f"no {i}")} for i, q in enumerate("aabbcc")]
    train, held_out = split_by_prompt(datasets.Dataset.from_list(rows), eval_fraction=0.34)
    assert isinstance(train, datasets.Dataset)
    assert (len(train), len(held_out)) == (4, 2)
    assert held_out[0]["chosen"][0]["content"] == held_out[1]["chosen"][0]["content"]


def test_wrong_input_is_named() -> None:
    with pytest.raises(ConfigError, match=r"eval_fraction must be at least 0 and below 1, got 1\.0"):
        split_by_prompt(rows_of(["a", "b"]), eval_fraction=1.0)
    with pytest.raises(DataError, match="at least two different prompts to split by prompt, got 1"):
        split_by_prompt(rows_of(["a", "a"]))
