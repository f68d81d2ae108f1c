"""PPO on two processes gives what one gives: answers, whitening, KL, losses, evaluation; rank 0 writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.ppo_two_ranks import train

ROOT = Path(__file__).parents[2]
SECONDS = 120  # a hang is a failure, not a wait


@pytest.mark.slow
def test_two_ranks_equal_one_process(tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *("-m", "tests.support.ppo_two_ranks", str(tmp_path)),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ranks = [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
    alone = train(tmp_path / "one", 16)
    assert sum("loss" in row for row in alone) == 4
    assert alone[0]["completions/max_length"] > alone[0]["completions/min_length"]
    for rank in ranks:
        for ours, reference in zip(rank, alone, strict=True):
            assert ours.keys() == reference.keys()
            for key, value in reference.items():
                np.testing.assert_allclose(ours[key], value, rtol=2e-5, atol=2e-6, err_msg=key)
    checkpoint = tmp_path / "two" / "checkpoint-1"
    assert {"rollout_buffer.safetensors", "rollout_buffer_1.safetensors"} <= {f.name for f in checkpoint.iterdir()}
