"""A group lands on one side for ever."""

from __future__ import annotations

import pytest
from datasets import Dataset

from rlsft.data import split_by_group, split_of
from rlsft.errors import DataError


def test_sides_are_fixed_by_the_hash() -> None:
    # sha256 % 100 is 65, 82, 16 and 7; a change here would move every user's test set.
    sides = {name: split_of(name) for name in ("b", "元気", "c13", "x0")}
    assert sides == {"b": "train", "元気": "train", "c13": "validation", "x0": "test"}
    assert split_of("c13", test_percent=16, validation_percent=0) == "train"
    assert split_of("c13", test_percent=17, validation_percent=0) == "test"


def test_shares_are_about_ten_per_cent() -> None:
    sides = [split_of(str(number)) for number in range(5000)]
    assert 0.085 < sides.count("test") / 5000 < 0.115
    assert 0.085 < sides.count("validation") / 5000 < 0.115


def test_groups_are_not_torn_apart_and_nothing_is_lost() -> None:
    rows = Dataset.from_list([{"prompt": f"p{n}", "completion": "c", "user": f"u{n // 5}"} for n in range(500)])
    parts = split_by_group(rows, column="user", test_percent=20, validation_percent=20)
    users = {side: set(part["user"]) for side, part in parts.items()}
    assert sum(map(len, parts.values())) == 500
    assert all(users.values())
    assert not users["train"] & users["test"]
    assert not users["train"] & users["validation"]
    assert not users["validation"] & users["test"]


def test_without_a_column_equal_prompts_stay_together() -> None:
    chat = [{"role": "user", "content": "p"}]
    rows = Dataset.from_list([{"prompt": f"p{n % 40}", "completion": str(n)} for n in range(400)])
    parts = split_by_group(rows, test_percent=30)
    assert not set(parts["train"]["prompt"]) & set(parts["test"]["prompt"])
    messages = Dataset.from_list([{"messages": [*chat, {"role": "assistant", "content": str(n)}]} for n in range(10)])
    assert sorted(map(len, split_by_group(messages).values())) == [0, 0, 10]


def test_faults_are_named() -> None:
    rows = Dataset.from_list([{"prompt": "a"}])
    with pytest.raises(DataError, match="no column 'user'"):
        split_by_group(rows, column="user")
    with pytest.raises(DataError, match="at most 100 together, got 60 and 50"):
        split_by_group(rows, test_percent=60, validation_percent=50)
