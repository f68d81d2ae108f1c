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


_ROW_KERNELS = """
import json, torch
from pathlib import Path
from tests.gpu_evidence.traffic import counted
from bench.gpu_evidence.jobs import JOBS
from rlsft_kernels._head.rows import start_fold
from rlsft_kernels._head.triton_launch import fold_tile_, gradient_tile_

def passes(launch, kind, what="issued"):
    return launch.total(what, kind, "tile_ptr") / tile_bytes

torch.manual_seed(0)
rows, vocab = 4, 50257  # odd: the last block of every row is cut
tile_bytes = rows * vocab * 2
tile = torch.randn(rows, vocab).bfloat16()
targets = torch.randint(0, vocab, (rows,))
state = start_fold(rows, frozenset({"logprob"}), device=tile.device, dtype=torch.float32)
with counted() as launches:
    fold_tile_(tile, 0, targets, state=state)
(fold,) = launches
assert fold.total("issued", "load", "tile_ptr") == tile_bytes + 2 * rows, fold.as_json()  # the targets once more
assert passes(fold, "load", "unique") == 1
assert passes(fold, "store") == 0

logsum = torch.log_softmax(tile.float(), 1).gather(1, targets[:, None])[:, 0]
with counted() as launches:
    gradient_tile_(
        tile, 0, targets, row_max_R=tile.float().amax(1), log_sum_R=torch.ones(rows), logprob_R=logsum,
        grad_logprob_R=torch.ones(rows),
    )
(gradient,) = launches
for kind in ("load", "store"):
    assert passes(gradient, kind) == passes(gradient, kind, "unique") == 1, gradient.as_json()

committed = json.loads(Path("bench/results/gpu_evidence/traffic.json").read_text())
for job in JOBS:
    if job.provider != "rlsft":
        continue
    with counted() as launches:
        assert job.run() < 1e-3
    (row,) = [r for r in committed if (r["work"], r["provider"]) == (job.work, job.provider)]
    found = json.loads(json.dumps([launch.as_json() for launch in launches]))
    assert found == row["launches"], (job.work, found, row["launches"])
    (loss,) = launches
    tile_bytes, of_targets = job.tile_bytes, 2 * loss.grid[0]  # and each row's target alone
    assert loss.total("issued", "load", "tile_ptr") == 2 * tile_bytes + of_targets
    assert passes(loss, "store") == passes(loss, "load", "unique") == 1
print("all held")
"""


def test_the_row_kernels_touch_their_tile_as_often_as_the_committed_table_says() -> None:
    """Log-probabilities: one read; a gradient in place: one read, one write; a loss with it: two reads, one write."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _ROW_KERNELS], cwd=root, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TRITON_DEFAULT_FP_FUSION": "1"},
    )  # fmt: skip
    assert "all held" in done.stdout, done.stderr[-3000:]
