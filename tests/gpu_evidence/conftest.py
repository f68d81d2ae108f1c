"""Runs each mode and architecture once a session, whichever test process asks first."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Outcomes = dict[str, dict[str, Any]]
_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Outcomes]:
    """`evidence(mode, arch)`: outcomes of the worker, shared by all test processes through a file lock."""
    pytest.importorskip("triton", reason="triton is not installed (pip install 'rlsft[test]')")
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "gpu_evidence"
    shared.mkdir(exist_ok=True)

    def outcomes(mode: str, arch: str) -> Outcomes:
        out = shared / f"{mode}-{arch}.json"
        with (shared / f"{mode}-{arch}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not out.exists():
                _run_worker(mode, arch, out, shared / "triton")
        return json.loads(out.read_text())

    return outcomes


def _run_worker(mode: str, arch: str, out: Path, cache: Path) -> None:
    environment = {
        **os.environ, "TRITON_CACHE_DIR": str(cache), "TRITON_DEFAULT_FP_FUSION": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "tests.gpu_evidence.worker", mode, arch, str(out)]
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command[1:])} failed:\n{done.stderr[-3000:]}", pytrace=False)
