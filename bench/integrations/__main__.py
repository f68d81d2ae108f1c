"""TRL's trainers before and after one line, each in a process of its own, interleaved; prints a table and files rows.

    python -m bench.integrations [sft] [dpo] [kto] [grpo] [rloo] [--rounds 1] [--steps 3] [--quick]
    python -m bench.integrations --table docs/trl_table.md          # from the rows on file, measures nothing

A step's time is that between the ends of two steps, so that it holds everything: generation, references, forward,
backward, optimizer. Beside the clock's stand CPU seconds, which on one thread say what a step costs whoever else uses
the machine (`--threads 1 --no-clock`). Peak memory is the high-water mark of the process's pages, weights, optimizer
and libraries included. Before and after must start from the same loss.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.integrations.table import markdown
from bench.integrations.trainers import JOBS
from bench.measure import ROOT, append_rows, machine_facts, version_of
from bench.memory import MIB, read_status
from bench.request import parse_dtypes
from bench.training.inputs import Sizes

SHAPE = Sizes(batch=4, length=512, steps=3)
QUICK = Sizes(hidden=32, intermediate=64, layers=2, heads=4, kv_heads=2, vocabulary=512, batch=2, length=32, steps=2)
VARIANTS = ("TRL", "TRL + rlsft")
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}  # of the first loss
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and files the rows; a child process trains once."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.integrations", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", nargs="*", default=list(JOBS), help=f"some of {', '.join(JOBS)}")
    parser.add_argument("--dtype", default=("bfloat16",), type=parse_dtypes)
    parser.add_argument("--rounds", type=int, default=1, help="trainings of each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-budget", type=int, default=0, help="MiB of logits to keep, see patch()")
    for name in ("length", "batch", "steps"):
        parser.add_argument(f"--{name}", type=int, help=f"default {getattr(SHAPE, name)}")
    parser.add_argument("--no-clock", action="store_true", help="rows without times by the clock, for a busy machine")
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round, no rows")
    parser.add_argument("--table", metavar="FILE", help="write the table of the latest rows into FILE, measure nothing")
    parser.add_argument("--child", metavar="VARIANT", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.jobs) - set(JOBS))
    if unknown:
        parser.error(f"no trainer named {', '.join(unknown)}; there are {', '.join(JOBS)}")
    if options.table is not None:
        Path(options.table).write_text(markdown(list(JOBS)), encoding="utf-8")
        return 0
    changes = {name: value for name in ("length", "batch", "steps") if (value := getattr(options, name)) is not None}
    sizes = replace(QUICK if options.quick else SHAPE, **changes)
    if options.child is not None:
        print(json.dumps(trained(options.jobs[0], options.child, sizes, options)))
        return 0
    for job in options.jobs:
        for dtype in options.dtype:
            rows = rows_of(job, dtype, sizes, options)
            if not options.quick:
                append_rows(f"integrations.trl_{job}", rows)
    return 0


def trained(job: str, variant: str, sizes: Sizes, options: argparse.Namespace) -> Row:
    """In the child: one training and what it took."""
    torch.set_num_threads(options.threads)
    if variant != VARIANTS[0]:
        import rlsft.integrations.trl as bridge

        bridge.patch(memory_budget=options.memory_budget * int(MIB))
    with tempfile.TemporaryDirectory() as folder:
        timeline = JOBS[job](sizes, getattr(torch, options.dtype[0]), folder)
    ends = timeline.ended
    return {
        "step_seconds": [round(after - before, 4) for before, after in pairwise(ends)],
        "step_cpu_seconds": [round(after - before, 4) for before, after in pairwise(timeline.ended_cpu)],
        "whole_seconds": round(ends[-1] - timeline.began, 4),
        "peak_mib": round(read_status("VmHWM") / MIB, 1),
        "first_loss": timeline.losses[0],
    }


def rows_of(job: str, dtype: str, sizes: Sizes, options: argparse.Namespace) -> list[Row]:
    """Both variants' trainings, in a new order each round, as one row a variant."""
    runs: dict[str, list[Row]] = {name: [] for name in VARIANTS}
    order, chance = list(VARIANTS), random.Random(0)
    for _ in range(1 if options.quick else options.rounds):
        chance.shuffle(order)
        for name in order:
            runs[name].append(in_child(job, name, dtype, sizes, options))
    rows = [row_of(job, name, dtype, sizes, options, found) for name, found in runs.items()]
    check_losses(job, rows, dtype)
    print_pair(job, dtype, sizes, rows)
    return rows


def in_child(job: str, name: str, dtype: str, sizes: Sizes, options: argparse.Namespace) -> Row:
    """One training in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.integrations", job, "--child", name, "--dtype", dtype]
    command += ["--threads", str(options.threads), "--memory-budget", str(options.memory_budget)]
    command += ["--quick"] if options.quick else []
    for flag in ("length", "batch", "steps"):
        command += [f"--{flag}", str(getattr(sizes, flag))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{job} by {name}: {done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def row_of(job: str, name: str, dtype: str, sizes: Sizes, options: argparse.Namespace, runs: list[Row]) -> Row:
    """The medians of a variant's trainings."""
    is_timed = not options.no_clock
    steps = [run["step_seconds"] for run in runs]
    cpu = [run["step_cpu_seconds"] for run in runs]
    return {
        "op": f"integrations.trl_{job}", "provider": name, "dtype": dtype, "threads": options.threads, **asdict(sizes),
        "memory_budget_mib": options.memory_budget, "step_seconds": steps if is_timed else [],
        "step_median": median(step for run in steps for step in run) if is_timed else None,
        "step_cpu_seconds": cpu, "step_cpu_median": median(step for run in cpu for step in run),
        "peak_mib": median(run["peak_mib"] for run in runs), "first_loss": runs[0]["first_loss"],
        "peer_version": version_of("trl"), **machine_facts(),
    }  # fmt: skip


def check_losses(job: str, rows: list[Row], dtype: str) -> None:
    """Both must have trained the same thing."""
    before, after = (row["first_loss"] for row in rows)
    if not abs(after - before) <= TOLERANCE[dtype] * max(abs(before), 0.1):
        raise AssertionError(f"{job}: the first loss is {before:.6g} without the patch and {after:.6g} with it")


def print_pair(job: str, dtype: str, sizes: Sizes, rows: list[Row]) -> None:
    """Time and memory before and after."""
    before, after = rows
    print(f"{job:5} {dtype}, batch {sizes.batch} x {sizes.length}, threads {before['threads']}: ", end="")
    if before["step_median"] is not None:
        ratio = before["step_median"] / after["step_median"]
        print(f"{before['step_median']:.2f} -> {after['step_median']:.2f} s a step ({ratio:.2f}x), ", end="")
    cpu = before["step_cpu_median"] / after["step_cpu_median"]
    print(f"{before['step_cpu_median']:.2f} -> {after['step_cpu_median']:.2f} CPU s ({cpu:.2f}x), ", end="")
    share = after["peak_mib"] / before["peak_mib"]
    print(f"{before['peak_mib']:.0f} -> {after['peak_mib']:.0f} MiB ({share:.2f}x)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
