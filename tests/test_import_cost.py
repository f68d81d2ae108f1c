"""`import rlsft_kernels` is quick, and works without triton, the compiled core or transformers."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SECONDS = 0.15  # beyond torch and NumPy, on a machine that does nothing else
SLACK = 2.0  # two busy processes on one core slow even processor time down
WITHOUT: dict[str, tuple[list[str], str]] = {
    "triton": (["triton"], "linux"),
    "the compiled core": (["rlsft_kernels._C"], "linux"),
    "what is not needed": (["transformers", "triton", "datasets", "accelerate", "scipy"], "linux"),
    "all of it": (["triton", "rlsft_kernels._C", "transformers"], "linux"),
}
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks one interpreter that has imported torch")


@pytest.fixture(scope="module")
def found() -> Any:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "tests.support.bare_interpreters", json.dumps(WITHOUT)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("package", ["rlsft_kernels", "rlsft"])
def test_import_takes_little_time_beyond_torch(package: str, found: Any) -> None:
    assert statistics.median(found["times"][package]) < SLACK * SECONDS, found["times"]


@pytest.mark.parametrize("case", WITHOUT)
def test_the_ops_run_where_things_are_missing(case: str, found: Any) -> None:
    answer = found["answers"][case]
    assert isinstance(answer, dict), answer
    assert answer["loss"] == pytest.approx(1.9459, abs=1e-4)  # ln 7
    assert answer["rank"] == pytest.approx(1.0)
    assert answer["returns"] == [[pytest.approx(0.95), 1.0]]
    assert answer["triton"] is False
    assert answer["loaded"] == []
    if "rlsft_kernels._C" in WITHOUT[case][0]:
        assert answer["native"] is False
        assert answer["warned"], "the slower reference must be said"
        assert all("is not available" in line and "to build it" in line for line in answer["warned"])
