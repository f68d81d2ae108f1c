"""Triton kernels of the element-wise losses under Triton's interpreter: runs the checks beside it.

TRITON_INTERPRET is read when triton is imported, and compiled kernels must stay possible here: hence another process.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKS = {
    "pairwise_reward_loss": "triton_loss_checks.py",
    "policy_value_loss": "triton_loss_checks.py",
    "kl_shaped_gae": "triton_loss_checks.py",
    "pair_loss": "triton_pair_loss_checks.py",
}


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("op", CHECKS)
def test_kernels_under_the_interpreter(op: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(HERE / CHECKS[op]), "-k", op]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    run = subprocess.run(
        command, cwd=HERE.parents[1], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
