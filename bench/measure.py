"""Interleaved timing: every provider once, then every provider again, so that a clock that drifts hurts all alike.

The samples are pytest-benchmark's: its timer, its pause of garbage collector and tracers, its statistics. Its own
loop runs one function to the end before the next begins, so the interleaving is ours: one `pedantic` round a sample.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from pytest_benchmark.fixture import BenchmarkFixture
from pytest_benchmark.stats import Stats
from pytest_benchmark.timers import default_timer
from pytest_benchmark.utils import NameWrapper
from threadpoolctl import threadpool_limits

import rlsft_kernels

ROOT = Path(__file__).resolve().parents[1]
SHORTEST_SAMPLE = 1e-3  # seconds: a shorter call is repeated within a sample, or the pause before it would weigh more


@dataclass
class Provider:
    """One way to compute the result: ours, or a peer's."""

    name: str
    run: Callable[[], Any]
    threads: int = 1
    scale: float = 1.0  # a slow peer may run on 1/scale of the groups; its time is multiplied and the row says so
    package: str | None = None  # whose version the row records
    slow: bool = False  # takes seconds: the check was its warm-up, and few samples must do
    unavailable: str | None = None  # why it cannot run here: its row has that in place of a time
    samples_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return float(_stats_of(self.samples_ms).median) if self.samples_ms else math.nan


def our_provider(
    op: str, run: Callable[[Any], Any], *, threads: int, backend: str = "auto", slow: bool = False
) -> Provider:
    """A row of ours: `run` gets the public op; an op that this version lacks keeps its row and says so."""
    function = getattr(rlsft_kernels, op, None)
    name = "rlsft" if backend == "auto" else f"rlsft {backend}"
    missing = None if function else f"this version has no {op}"
    return Provider(
        name, lambda: run(partial(function, backend=backend)), threads=threads, slow=slow, unavailable=missing
    )


def time_interleaved(providers: list[Provider], rounds: int, *, seconds_each: float = 8.0) -> None:
    """Fills samples_ms of every provider, up to `rounds` samples within a time limit for each.

    Each round has its own order, and a short call is made twice and timed once after a pause: what ran before it (a
    neighbour's cache lines, a used-up time slice) would otherwise always fall on the same provider.
    """
    shuffle = random.Random(0).shuffle
    order = [provider for provider in providers if provider.unavailable is None]
    seconds = {provider.name: _expected(provider) for provider in order}
    spent = dict.fromkeys((provider.name for provider in order), 0.0)
    for _ in range(rounds):
        shuffle(order)
        for provider in order:
            enough = 1 if provider.slow else 4
            if len(provider.samples_ms) >= enough and spent[provider.name] > seconds_each:
                continue
            latest = _sample(provider, seconds[provider.name])
            seconds[provider.name] = min(latest, seconds[provider.name])
            spent[provider.name] += latest
            provider.samples_ms.append(latest * 1e3 * provider.scale)
    torch.set_num_threads(1)


def _expected(provider: Provider) -> float:
    """Seconds of a warm call."""
    if provider.slow:
        return math.inf
    first = _seconds(provider, 1)
    return first if first > 0.1 else min(first, _seconds(provider, 1))


def _sample(provider: Provider, expected: float) -> float:
    """Seconds of one call, of which `expected` says how long it should take."""
    if expected < 0.1:
        _seconds(provider, 1)
        time.sleep(0.005)
    return _seconds(provider, max(1, math.ceil(SHORTEST_SAMPLE / expected)))


def _seconds(provider: Provider, calls: int) -> float:
    torch.set_num_threads(provider.threads)
    with threadpool_limits(provider.threads):  # NumPy's BLAS too
        fixture = _benchmark(provider.name)
        fixture.pedantic(provider.run, rounds=1, iterations=calls)
        return float(fixture.stats.stats.mean)


def _benchmark(name: str) -> BenchmarkFixture:
    """pytest-benchmark's fixture outside pytest; it serves once, so each sample has its own."""
    return BenchmarkFixture(
        SimpleNamespace(name=name, nodeid=name), add_stats=lambda stats: None, logger=logging, warner=None,
        timer=NameWrapper(default_timer), disable_gc=True, disabled=False,
        min_rounds=1, min_time=0, max_time=0, warmup=False, warmup_iterations=0, calibration_precision=1,
        precision=None, confidence=None, cprofile=False, cprofile_loops=None, cprofile_dump=None,
    )  # fmt: skip


def _stats_of(samples: list[float]) -> Stats:
    stats = Stats()
    for sample in samples:
        stats.update(sample)
    return stats


def machine_facts() -> dict[str, Any]:
    """What a row must say about where it was measured."""
    return {
        "device": device_name(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _git("rev-parse", "--short", "HEAD"),
        "clean": _git("status", "--porcelain", "--", ":!bench/results") == "",
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def device_name() -> str:
    """The CPU's model as a folder name, or "cpu" where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "cpu"
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    words = "".join(c if c.isalnum() else " " for c in (models or ["cpu"])[0]).lower().split()
    return "-".join(word for word in words if word not in ("r", "tm", "cpu", "processor")) or "cpu"


def append_rows(op: str, rows: list[dict[str, Any]], device: str | None = None) -> Path:
    """One JSON line a measurement, appended to bench/results/<device>/<op>.jsonl."""
    path = ROOT / "bench" / "results" / (device or device_name()) / f"{op}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def version_of(package: str | None) -> str | None:
    """The installed version of a peer."""
    return metadata.version(package) if package else None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
