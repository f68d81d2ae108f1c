"""Two processes give what one gives: losses, gradient norms, statistics, evaluation, and one common stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.two_ranks import train_both

ROOT = Path(__file__).parents[2]
SECONDS = 200  # a hang is a failure, not a wait; alone on two cores the run takes some 12


@pytest.mark.slow
def test_two_ranks_of_four_equal_one_of_eight(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *("-m", "tests.support.two_ranks", str(tmp_path)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ranks = [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
    alone = train_both(tmp_path / "one", 8)
    for stage, rows in alone.items():
        trained = [row for row in rows if "loss" in row]
        assert len(trained) == 3
        assert any("eval_loss" in row for row in rows)
        for rank in ranks:
            assert [row.keys() for row in rank[stage]] == [row.keys() for row in rows]
            for ours, reference in zip(rank[stage], rows, strict=True):
                for key, value in reference.items():
                    np.testing.assert_allclose(ours[key], value, rtol=3e-6, atol=1e-6, err_msg=f"{stage} {key}")
    assert [rank["stopped_after"] for rank in ranks] == [2, 2]  # the signal reached rank 1 alone
    assert (tmp_path / "stopped" / "checkpoint-2" / "trainer_state.json").exists()
    lines = (tmp_path / "two" / "sft" / "metrics.jsonl").read_text().splitlines()
    assert sum("grad_norm" in line for line in lines) == 3  # rank 0 alone writes
