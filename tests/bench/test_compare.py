"""--compare: what counts as a regression, against filed rows and against a commit of a small repository."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench import compare
from bench.request import Request

REQUEST = Request()


def row(
    median: float, *, floor: float | None = 1.0, baseline: float | None = 4.0, provider: str = "rlsft"
) -> dict[str, Any]:
    return {
        "provider": provider, "shape": "N=1", "dtype": "float32", "threads": 2, "note": "job", "median_ms": median,
        "floor_ms": floor, "baseline_ms": baseline,
    }  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A commit that filed a row of 2.0 floors."""
    folder = tmp_path / "bench" / "results" / compare.device_name()
    folder.mkdir(parents=True)
    (folder / "op.jsonl").write_text(json.dumps(row(9.0)) + "\n" + json.dumps(row(2.0)) + "\n")
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "rows"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(compare, "ROOT", tmp_path)
    return tmp_path


def exit_code(rows: list[dict[str, Any]], commit: str = "HEAD") -> int:
    return compare.compare({"op": rows}, commit, REQUEST, rounds=None, threshold=1.15)


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize(
    ("now", "code"),
    [
        (row(2.0), 0),
        (row(2.2), 0),  # within the threshold
        (row(2.4), 1),
        (row(4.0, floor=2.0, baseline=8.0), 0),  # the machine is half as fast, ours is not
        (row(2.4, floor=1.0, baseline=4.8), 0),  # slower in one unit alone
        (row(1.0), 0),
    ],
)
def test_slower_in_both_units_beyond_the_threshold_is_a_regression(now: dict[str, Any], code: int) -> None:
    assert exit_code([now]) == code


@pytest.mark.usefixtures("repository")
def test_only_our_rows_count_and_the_slow_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code([row(2.0), row(99.0, provider="TRL")]) == 0
    assert exit_code([row(9.0)]) == 1
    assert "4.50  rlsft N=1 float32 2T, job  SLOWER" in capsys.readouterr().out


@pytest.mark.usefixtures("repository")
def test_a_shape_that_was_never_filed_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def again(commit: str, op: str, request: Request, rounds: int | None) -> list[dict[str, Any]]:
        asked.append(op)
        return [row(3.0) | {"shape": "N=2"}]

    monkeypatch.setattr(compare, "measured_again", again)
    assert exit_code([row(3.1) | {"shape": "N=2"}]) == 0
    assert exit_code([row(6.0) | {"shape": "N=2"}]) == 1
    assert asked == ["op", "op"]


@pytest.mark.usefixtures("repository")
def test_what_is_no_commit_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code([row(2.0)], commit="no-such-branch") == 2
    assert "--compare wants a commit of this repository, got 'no-such-branch'" in capsys.readouterr().err


def test_a_request_survives_the_way_through_the_command_line() -> None:
    from bench.run import _parser, _request

    wanted = Request(quick=True, shape={"N": 3, "H": 4, "V": 5}, dtypes=("bfloat16",), threads=(1, 2))
    options = _parser().parse_args(["linear_logprob", *compare.arguments(wanted, 7)])
    found = _request(options)
    assert (found.quick, found.shape, found.dtypes, found.threads) == (True, wanted.shape, ("bfloat16",), (1, 2))
    assert options.rounds == 7
