"""What the experiments' reports stand on: rows that survive a stop, intervals over seeds, paired differences."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.replicate.intervals import interval, paired
from bench.replicate.rows import append, changed, numbers, on_file, reported


@pytest.mark.parametrize("count", [2, 3, 5, 31, 40])
def test_interval_is_students(count: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [math.sin(i) + 0.1 * i for i in range(count)]
    found = interval(values)
    expected = stats.t.interval(0.95, min(count - 1, 30), statistics.fmean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=2e-4, abs=1e-3)


def test_one_seed_has_no_interval() -> None:
    found = interval([0.5])
    assert not found.excludes_zero
    assert found.text() == "0.500"


def test_paired_difference_uses_the_seeds_that_both_have() -> None:
    scores = {"sft": {0: 1.0, 1: 5.0, 2: 9.0}, "irft": {1: 5.5, 2: 9.7, 3: 100.0}, "spin": {0: 7.0}}
    rows = [
        {"method": method, "seed": seed, "reward": reward}
        for method, by_seed in scores.items()
        for seed, reward in by_seed.items()
    ]
    found = paired(rows, "reward", "irft", "sft")
    assert found.count == 2
    assert found.mean == pytest.approx(0.6)


def test_rows_are_found_again_and_tuning_seeds_are_not_reported(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "rows.jsonl"
    append(file, {"seed": 0, "method": "sft", "budget": {"steps": 10}})
    append(file, {"seed": 100, "method": "sft", "budget": {"steps": 10}})
    assert on_file(file, {"seed": 0, "budget": {"steps": 10}})
    assert not on_file(file, {"seed": 0, "budget": {"steps": 11}})
    assert [row["seed"] for row in reported(file)] == [0]


@dataclass(frozen=True)
class Settings:
    steps: int = 1
    beta: float = 0.1


def test_settings_keep_their_kind_and_refuse_unknown_names() -> None:
    assert changed(Settings(), "steps=20,beta=1") == Settings(20, 1.0)
    with pytest.raises(SystemExit, match="no setting named betta; there are steps, beta"):
        changed(Settings(), "betta=1")
    assert numbers("0-2,7") == [0, 1, 2, 7]
