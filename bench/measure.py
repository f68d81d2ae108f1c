"""Interleaved timing: every provider once, then every provider again, so that a clock that drifts hurts all alike."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Provider:
    """One way to compute the result: ours, or a peer's."""

    name: str
    run: Callable[[], Any]
    threads: int = 1
    scale: float = 1.0  # a slow peer may run on 1/scale of the groups; its time is multiplied and the row says so
    package: str | None = None  # whose version the row records
    samples_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        return statistics.median(self.samples_ms)


def time_interleaved(providers: list[Provider], rounds: int, *, seconds_each: float = 8.0) -> None:
    """Fills samples_ms of every provider, up to `rounds` samples within a time limit for each.

    Each round has its own order, and a short call is made twice and timed once after a pause: what ran before it (a
    neighbour's cache lines, a used-up time slice) would otherwise always fall on the same provider.
    """
    shuffle = random.Random(0).shuffle
    order = list(providers)
    spent = dict.fromkeys((provider.name for provider in providers), 0.0)
    for round_number in range(rounds + 1):
        shuffle(order)
        for provider in order:
            if round_number > 3 and spent[provider.name] > seconds_each:
                continue
            if provider.samples_ms and provider.samples_ms[-1] / provider.scale < 100:
                _seconds(provider)
                time.sleep(0.005)
            seconds = _seconds(provider)
            spent[provider.name] += seconds
            if round_number > 0:
                provider.samples_ms.append(seconds * 1e3 * provider.scale)
    torch.set_num_threads(1)


def _seconds(provider: Provider) -> float:
    torch.set_num_threads(provider.threads)
    with threadpool_limits(provider.threads):  # NumPy's BLAS too
        begin = time.perf_counter()
        provider.run()
        return time.perf_counter() - begin


def machine_facts() -> dict[str, Any]:
    """What a row must say about where it was measured."""
    return {
        "device": device_name(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _git("rev-parse", "--short", "HEAD"),
        "clean": _git("status", "--porcelain") == "",
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


def append_rows(op: str, rows: list[dict[str, Any]]) -> Path:
    """One JSON line a measurement, appended to bench/results/<device>/<op>.jsonl."""
    path = ROOT / "bench" / "results" / device_name() / f"{op}.jsonl"
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
