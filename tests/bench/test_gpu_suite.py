"""The GPU suite on the CPU: its path, what it calls a failure, and the predictions it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import rlsft_kernels
from bench import gpu_suite
from bench.gpu_device import DryDevice, same_bits
from bench.measure import Provider


def rows_of(folder: Path, op: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{op}.jsonl").read_text().splitlines()]


def test_a_dry_run_walks_every_op(tmp_path: Path) -> None:
    assert gpu_suite.main(["--dry-run", "--output", str(tmp_path)]) == 0
    for op in gpu_suite.SHAPES:
        rows = rows_of(tmp_path, op)
        assert rows
        ours = [row for row in rows if row["provider"] == "rlsft"]
        if hasattr(rlsft_kernels, op):
            assert all(row["repeats"] is True and row["median_ms"] > 0 for row in ours)


def test_a_wrong_result_is_a_failure_and_the_suite_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = rlsft_kernels.pairwise_reward_loss
    monkeypatch.setattr(rlsft_kernels, "pairwise_reward_loss", lambda *a, **k: (right(*a, **k)[0] * 1.01, {}))
    options = ["--dry-run", "--output", str(tmp_path), "--ops", "pairwise_reward_loss", "policy_value_loss"]
    assert gpu_suite.main(options) == 1
    assert "FAILED pairwise_reward_loss P=64 float32: AssertionError: rlsft: " in capsys.readouterr().out
    assert rows_of(tmp_path, "policy_value_loss")


@pytest.mark.parametrize("check", gpu_suite.CHECKS)
def test_every_check_of_ours_that_fails_is_a_failure(check: str) -> None:
    assert gpu_suite.failed({"provider": "rlsft", check: False})
    assert not gpu_suite.failed({"provider": "rlsft", check: None})
    assert not gpu_suite.failed({"provider": "TRL", "failed": True})


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_suite.main([]) == 2
    assert "torch sees no GPU here" in capsys.readouterr().err


def test_a_result_that_differs_between_two_runs_is_seen() -> None:
    numbers = iter(range(9))
    assert DryDevice().repeats(lambda: {"x": torch.tensor(next(numbers))}) is False
    nan = torch.tensor([float("nan"), 1.0])
    assert same_bits({"x": nan}, {"x": nan.clone()})
    assert not same_bits({"x": nan}, {"y": nan})


def test_the_measured_to_predicted_ratio_is_in_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"op": "pairwise_reward_loss", "provider": "rlsft", "shape": "P=64", "dtype": "float32", "gpu": "dry run"}
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps([entry | {"lower_ms": 1e-3, "upper_ms": 2e-3}]))
    monkeypatch.setattr(gpu_suite, "PREDICTIONS", path)
    assert gpu_suite.main(["--dry-run", "--output", str(tmp_path), "--ops", "pairwise_reward_loss"]) == 0
    (row,) = [row for row in rows_of(tmp_path, "pairwise_reward_loss") if row["provider"] == "rlsft"]
    assert row["measured_to_predicted"] == pytest.approx(row["median_ms"] / 1e-3, rel=1e-3)
    assert row["predicted_upper_ms"] == 2e-3


def test_the_share_of_the_chip_takes_the_longer_of_products_and_bytes() -> None:
    from bench.elementwise import TokenCase
    from bench.gpu_device import LIMITS

    device: Any = DryDevice()
    case = TokenCase("op", "N=1", "", {}, [Provider("rlsft", list)], bytes_moved=3_350_000_000)
    assert gpu_suite.roofline_share(case, 2.0, device) is None
    device.limits = LIMITS["H100"]
    assert gpu_suite.roofline_share(case, 2.0, device) == pytest.approx(0.5)
    case.flops, case.dtype = 989_000_000_000_000 // 500, "bfloat16"
    assert gpu_suite.roofline_share(case, 4.0, device) == pytest.approx(0.5)
