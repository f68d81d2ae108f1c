"""`import rlsft_kernels` is quick, and works without triton, the compiled core, transformers or POSIX calls."""

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
SECONDS = 0.15  # beyond torch and NumPy, in processor time: other processes of a busy machine do not count

# What the interpreter of a forked child measures; torch is imported once, by the parent.
TIMING = """
import json, os, sys, time
import numpy, torch
def measured(package):
    read, write = os.pipe()
    if os.fork() == 0:
        start = time.process_time()
        __import__(package)
        os.write(write, str(time.process_time() - start).encode())
        os._exit(0)
    os.close(write)
    os.wait()
    return float(os.read(read, 100))
print(json.dumps({p: [measured(p) for _ in range(7)] for p in ("rlsft_kernels", "rlsft")}))
"""

# An interpreter that lacks things; torch is imported before, as it has its own ways on every system.
BARE = """
import importlib.abc, json, os, sys, warnings
import numpy, torch
missing, system = json.loads(sys.argv[1]), sys.argv[2]
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if any(name == m or name.startswith(m + ".") for m in missing):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
for name in [n for n in sys.modules if any(n == m or n.startswith(m + ".") for m in missing)]:
    del sys.modules[name]
sys.meta_path.insert(0, Missing())
if system != "linux":
    sys.platform = system
    for name in ("sched_getaffinity", "fork", "getloadavg", "posix_fallocate", "sysconf"):
        if hasattr(os, name):
            delattr(os, name)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import rlsft, rlsft_kernels
    from rlsft_kernels._backend import doctor_report
    hidden, weight = torch.zeros(3, 4, requires_grad=True), torch.ones(7, 4)
    loss, stats = rlsft_kernels.linear_cross_entropy(hidden, weight, torch.tensor([1, 2, 3]))
    loss.backward()
    scores = rlsft_kernels.textrank(torch.rand(4, 4, dtype=torch.float64)).scores
    zeros = torch.zeros(1, 2)
    gae = rlsft_kernels.kl_shaped_gae(torch.ones(1), zeros, None, zeros, zeros == 0, kl_coef=0.0)
    report = doctor_report()
print(json.dumps({
    "loss": round(loss.item(), 4), "rank": round(float(scores.sum()), 6), "returns": gae.returns.tolist(),
    "native": report["native"], "triton": report["triton"],
    "warned": [str(w.message) for w in caught if "slower reference" in str(w.message)],
    "loaded": [m for m in ("transformers", "triton") if m in sys.modules],
}))
"""


def run(code: str, *arguments: str) -> Any:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, cwd=ROOT,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="measures in forked children")
def test_import_takes_little_time_beyond_torch() -> None:
    times = run(TIMING)
    assert statistics.median(times["rlsft_kernels"]) < SECONDS, times
    assert statistics.median(times["rlsft"]) < SECONDS, times


@pytest.mark.parametrize(
    ("missing", "system"),
    [
        (["triton"], "linux"),
        (["rlsft_kernels._C"], "linux"),
        (["transformers", "triton", "datasets", "accelerate", "scipy", "networkx"], "linux"),
        (["triton", "rlsft_kernels._C", "transformers", "fcntl", "resource", "termios"], "darwin"),
        (["triton", "rlsft_kernels._C", "transformers", "fcntl", "resource", "termios", "pwd", "grp"], "win32"),
    ],
)
def test_the_ops_run_where_things_are_missing(missing: list[str], system: str) -> None:
    found = run(BARE, json.dumps(missing), system)
    without_core = "rlsft_kernels._C" in missing
    assert found["loss"] == 1.9459  # ln 7
    assert found["rank"] == 1.0
    assert found["returns"] == [[pytest.approx(0.95), 1.0]]
    assert found["triton"] is False
    assert found["loaded"] == []
    if without_core:
        assert found["native"] is False
        assert found["warned"], "the slower reference must be said"
        assert all("is not available" in line and "to build it" in line for line in found["warned"])
    else:
        assert found["warned"] == ([] if found["native"] else found["warned"])
