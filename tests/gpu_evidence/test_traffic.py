"""Counted bytes of kernels whose traffic is known by hand, and the repaired interpreter; in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed (pip install 'rlsft[test]')")

_CHECKS = """
from tests.gpu_evidence.traffic import counted
from tests.gpu_evidence import interpreter
import torch, triton, triton.language as tl
from tests.gpu_evidence.sample_kernels import linear_lse, masked_softmax
from tests.gpu_evidence.interpreter_kernels import bf16_arithmetic, run_bf16

torch.manual_seed(0)
x = torch.randn(6, 703).bfloat16()
with counted() as launches:
    masked_softmax(x)
(softmax,) = launches
assert softmax.grid == (6, 1, 1), softmax.grid
for kind in ("load", "store"):
    assert softmax.total("issued", kind) == softmax.total("unique", kind) == 6 * 703 * 2, (kind, softmax.as_json())
    assert 6 * 703 * 2 <= softmax.total("sectors", kind) <= 6 * (703 * 2 + 64)
assert softmax.dot_flops == 0

a, w = torch.randn(64, 64).bfloat16(), torch.randn(128, 64).bfloat16()
with counted() as launches:
    lse = linear_lse(a, w)
(launch,) = launches
assert launch.dot_flops == 2 * 64 * 128 * 64
assert launch.total("unique", "load", "a_ptr") == 64 * 64 * 2
assert launch.total("issued", "load", "a_ptr") == 2 * 64 * 64 * 2  # once for each tile of the vocabulary
assert launch.total("unique", "load", "w_ptr") == 128 * 64 * 2
assert (lse - torch.logsumexp(a.float() @ w.float().T, 1)).abs().max() < 1e-5

x, y = torch.randn(256).bfloat16(), torch.randn(256).bfloat16()
for name, actual in run_bf16(x, y).items():
    expected = bf16_arithmetic(x, y)[name]
    assert torch.equal(actual, expected), (name, (actual.float() - expected.float()).abs().max())
print("all held")
"""


def test_counts_and_the_repaired_interpreter() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _CHECKS], cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "all held" in done.stdout, done.stderr[-3000:]
