"""IRFT on two processes gives what one gives: answers, scores, losses, rounds, evaluation; rank 0 writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.irft_two_ranks import both

ROOT = Path(__file__).parents[2]
SECONDS = 120  # a hang is a failure, not a wait


@pytest.mark.slow
def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *("-m", "tests.support.irft_two_ranks", str(tmp_path)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ranks = [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
    alone = both(tmp_path / "one", 4, 1)
    assert max(row["round"] for row in alone["adaptive"] if "round" in row) >= 2
    for rank in ranks:
        for name, reference in alone.items():
            for ours, theirs in zip(rank[name], reference, strict=True):
                assert ours.keys() == theirs.keys()
                for key, value in theirs.items():
                    np.testing.assert_allclose(ours[key], value, rtol=5e-5, atol=1e-5, err_msg=f"{name}: {key}")
    files = {path.name for path in (tmp_path / "two" / "per_step" / "negatives").iterdir()}
    assert {"round_00.jsonl", "round_00_rank_1.jsonl"} <= files
    assert (tmp_path / "two" / "adaptive" / "checkpoint-3" / "irft_pairs.jsonl").is_file()
