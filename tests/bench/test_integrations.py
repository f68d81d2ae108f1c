"""The bench of TRL's trainers on a tiny model: both variants train the same thing, the table has the latest pair."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rlsft.integrations.trl as bridge
from bench.integrations import __main__ as bench
from bench.integrations.table import markdown
from bench.integrations.trainers import JOBS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # TRL's own


def in_this_process(job: str, name: str, dtype: str, sizes: Any, options: Any) -> dict[str, Any]:
    options.dtype = (dtype,)
    try:
        return json.loads(json.dumps(bench.trained(job, name, sizes, options)))
    finally:
        bridge.unpatch()


@pytest.mark.parametrize("job", list(JOBS))
def test_both_variants_train_and_are_compared(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, Any]] = []
    monkeypatch.setattr(bench, "in_child", in_this_process)
    monkeypatch.setattr(bench, "print_pair", lambda *arguments: rows.extend(arguments[-1]))
    assert bench.main([job, "--quick", "--threads", "1", "--dtype", "fp32"]) == 0
    assert "run on rlsft_kernels.linear_logprob" in capsys.readouterr().err
    assert [row["provider"] for row in rows] == ["TRL", "TRL + rlsft"]
    for row in rows:
        assert row["step_median"] > 0
        assert row["peak_mib"] > 100
        assert len(row["step_seconds"]) == 1
        assert row["step_cpu_median"] > 0
    assert rows[0]["first_loss"] == pytest.approx(rows[1]["first_loss"], abs=1e-5)


def test_different_trainings_are_not_compared() -> None:
    with pytest.raises(AssertionError, match=r"the first loss is 1 without the patch and 1\.001 with it"):
        bench.check_losses("sft", [{"first_loss": 1.0}, {"first_loss": 1.001}], "float32")


def test_the_table_shows_the_latest_pair(tmp_path: Path) -> None:
    shape = {"batch": 8, "length": 512, "dtype": "bfloat16", "threads": 2, "peer_version": "1.16.0", "torch": "2.13"}
    rows = [
        {**shape, "step_cpu_median": step, "peak_mib": peak}
        for step, peak in ((9.0, 9000.0), (9.0, 9000.0), (12.0, 4000.0), (6.0, 1000.0))
    ]
    (tmp_path / "some-cpu").mkdir()
    file = tmp_path / "some-cpu" / "integrations.trl_dpo.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = markdown(list(JOBS), tmp_path)
    assert "some-cpu, bfloat16, trl 1.16.0, torch 2.13:" in found
    assert "| DPOTrainer | 8 x 512 | 2 | 12.00 | 6.00 | 2.00x | 4000 | 1000 | 0.25 |" in found
    assert found.count("Trainer") == 1


def test_an_unknown_trainer_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["ppo"])
    assert "no trainer named ppo; there are sft, dpo, kto, grpo, rloo" in capsys.readouterr().err
