"""Triton row kernels of the head: run as ordinary Python by Triton's interpreter, which needs a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("head_triton_rows_interpreted.py")


LOSSES = "loss or masked or without"


@pytest.mark.parametrize(
    ("chosen", "at_least"),
    [("test_every", 20), (LOSSES, 30), (f"not test_every and not ({LOSSES})", 18)],
    ids=["widths-and-settings", "token-losses", "edges"],
)
def test_the_interpreted_kernels_pass_their_cases(chosen: str, at_least: int) -> None:
    pytest.importorskip("triton", reason="Triton is an optional dependency")
    env = os.environ | {"TRITON_INTERPRET": "1", "TRITON_DEFAULT_FP_FUSION": "1"}
    # NumPy warns where the kernels rely on IEEE arithmetic: exp2 that underflows, -inf - -inf in a row of only -inf
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += ["-W", "ignore::RuntimeWarning", "-k", chosen, str(CASES)]
    done = subprocess.run(command, env=env, cwd=CASES.parents[2], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout[-2000:]
    assert int(passed[1]) >= at_least, done.stdout[-2000:]
    assert "skipped" not in done.stdout, done.stdout[-2000:]
