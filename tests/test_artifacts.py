"""Files are written whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from rlsft import artifacts
from rlsft.errors import DataError, RunError


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = artifacts.write_text(tmp_path / "a.txt", "old")

    def fail_half_way() -> None:
        with artifacts.atomic_path(path) as partial:
            partial.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    path = artifacts.write_text(tmp_path / "a.txt", "old")

    def fill_the_disk() -> None:
        with artifacts.atomic_path(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match=r"no space left on the disk while writing .*a\.txt"):
        fill_the_disk()
    assert path.read_text() == "old"


def test_a_really_full_device_is_reported() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with pytest.raises(RunError, match="no space left on the disk while appending to /dev/full"):
        artifacts.append_jsonl(full, {"a": 1})


def test_jsonl_round_trip_and_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    artifacts.write_jsonl(path, [{"x": float("nan"), "t": "日本"}, {"x": np.float32(1.5), "y": torch.tensor([1, 2])}])
    artifacts.append_jsonl(path, {"z": path})
    assert artifacts.read_jsonl(path) == [{"x": None, "t": "日本"}, {"x": 1.5, "y": [1, 2]}, {"z": str(path)}]
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(DataError, match=r"rows.jsonl, line 3: not valid JSON"):
        artifacts.read_jsonl(path)
    path.write_text("[1]\n")
    with pytest.raises(DataError, match="line 1: expected a JSON object, got list"):
        artifacts.read_jsonl(path)
