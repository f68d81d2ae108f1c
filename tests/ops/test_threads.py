"""The native thread pool: as many workers as asked for and no more, idle without CPU time, right for many callers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from rlsft_kernels import _backend, isodata, textrank

pytestmark = [
    pytest.mark.skipif(not _backend.native_status()[0], reason="needs the native core"),
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc"),
]
ROOT = Path(__file__).resolve().parents[2]

IN_A_FRESH_PROCESS = """
import os, threading, time
import numpy as np, torch
from rlsft_kernels import isodata, textrank

def threads():
    return len(os.listdir("/proc/self/task"))

groups = np.random.default_rng(0).standard_normal((400, 32, 256)).astype(np.float32)
torch.set_num_threads(1)
textrank(embeddings=groups)
before = threads()
textrank(embeddings=groups, threads=1)
assert threads() == before, "one thread needs no worker"
torch.set_num_threads(3)
textrank(embeddings=groups)
isodata(groups)
assert threads() - before <= 2, "three threads are the caller and two workers"
callers = [threading.Thread(target=textrank, kwargs={"embeddings": groups}) for _ in range(6)]
for caller in callers: caller.start()
for caller in callers: caller.join()
time.sleep(0.1)  # join() returns a moment before the kernel forgets the thread
assert threads() - before <= 2, "callers at once do not multiply the workers"
time.sleep(0.2)
spent = time.process_time()
time.sleep(0.5)
assert time.process_time() - spent < 0.05, "idle workers sleep"
pid = os.fork()
if pid == 0:
    textrank(embeddings=groups, threads=2)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0, "a child of fork() makes workers of its own"
print("fine")
"""


def test_the_pool_in_a_fresh_process() -> None:
    path = os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_FRESH_PROCESS],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.strip() == "fine", done.stderr


def test_many_callers_at_once_get_what_one_gets() -> None:
    groups = [np.random.default_rng(seed).standard_normal((60, 20, 64)).astype(np.float32) for seed in range(4)]
    alone = [(textrank(embeddings=x).scores, isodata(x).labels) for x in groups]
    wrong: list[int] = []

    def call(at: int) -> None:
        for _ in range(5):
            scores, labels = textrank(embeddings=groups[at], threads=2).scores, isodata(groups[at], threads=3).labels
            if not (np.array_equal(scores, alone[at][0]) and np.array_equal(labels, alone[at][1])):
                wrong.append(at)

    callers = [threading.Thread(target=call, args=(at % 4,)) for at in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_torch_keeps_its_threads_and_the_ops_follow_them() -> None:
    before = torch.get_num_threads()
    x = torch.randn(200, 16, 64)
    expected = textrank(embeddings=x, threads=1).scores
    for threads in (1, 2, before):
        torch.set_num_threads(threads)
        begin = time.perf_counter()
        assert torch.equal(textrank(embeddings=x).scores, expected)
        assert time.perf_counter() - begin < 20
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
