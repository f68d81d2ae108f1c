"""The head's ops on their Triton rows: the same passes as on a GPU, run by the interpreter in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("head_triton_ops_interpreted.py")


def test_the_ops_pass_their_cases_on_triton_rows() -> None:
    pytest.importorskip("triton", reason="Triton is an optional dependency")
    env = os.environ | {"TRITON_INTERPRET": "1", "TRITON_DEFAULT_FP_FUSION": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-W", "ignore::RuntimeWarning", str(CASES)]
    done = subprocess.run(command, env=env, cwd=CASES.parents[2], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= 12, done.stdout[-2000:]
