"""Runs the trainings, each in a process of its own, interleaved; prints the tables and files the rows.

    python -m bench.training [sft] [pairs] [ppo_update] [scoring] [--dtype bf16] [--rounds 3] [--quick]

A step's time is that between the ends of two steps, so that it holds everything: data, forward, backward, optimizer.
`whole` counts all tokens over the whole call of `train()`, with what is done before the first step. Peak memory is the
high-water mark of the process's pages, weights, optimizer and libraries included. The first loss of everybody must be
that of the plain loop, or of TRL where there is none.
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
from statistics import median
from typing import Any

import torch

from bench.measure import ROOT, append_rows, machine_facts, version_of
from bench.memory import MIB, read_status
from bench.request import parse_dtypes
from bench.training.inputs import Sizes
from bench.training.trainers import JOBS, PACKAGES

QUICK = Sizes(hidden=32, intermediate=64, layers=2, heads=4, kv_heads=2, vocabulary=512, batch=2, length=32, steps=2)
TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}  # of the first loss
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and files the rows; a child process trains once."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", nargs="*", default=list(JOBS), help=f"some of {', '.join(JOBS)}")
    parser.add_argument("--dtype", default=("bfloat16",), type=parse_dtypes)
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--length", type=int, help="tokens of a row (256)")
    parser.add_argument("--batch", type=int, help="rows a step (4)")
    parser.add_argument("--peers", default="", help="only these beside ours, by name or a part of it; between ;")
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round, no rows")
    parser.add_argument("--child", metavar="PROVIDER", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.jobs) - set(JOBS))
    if unknown:
        parser.error(f"no job named {', '.join(unknown)}; there are {', '.join(JOBS)}")
    changes = {name: value for name in ("length", "batch") if (value := getattr(options, name)) is not None}
    sizes = replace(QUICK if options.quick else Sizes(), **changes)
    if options.child is not None:
        print(json.dumps(trained(options.jobs[0], options.child, sizes, options.dtype[0], options.threads)))
        return 0
    for job in options.jobs:
        for dtype in options.dtype:
            rows = rows_of(job, dtype, sizes, options)
            if not options.quick:
                append_rows(f"training.{job}", rows)
    return 0


def trained(job: str, provider: str, sizes: Sizes, dtype: str, threads: int) -> Row:
    """In the child: one training and what it took."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        timeline = JOBS[job][provider](sizes, getattr(torch, dtype), folder)
    ends = timeline.ended
    steps = [after - before for before, after in pairwise(ends)]
    return {
        "step_seconds": [round(step, 4) for step in steps],
        "whole_seconds": round(ends[-1] - timeline.began, 4),
        "peak_mib": round(read_status("VmHWM") / MIB, 1),
        "first_loss": timeline.losses[0],
    }


def rows_of(job: str, dtype: str, sizes: Sizes, options: argparse.Namespace) -> list[Row]:
    """Every provider's trainings, in a new order each round, as one row a provider."""
    names = [name for name in JOBS[job] if "rlsft" in name or is_wanted(name, options.peers, list(JOBS[job]))]
    runs: dict[str, list[Row]] = {name: [] for name in names}
    order, chance = list(names), random.Random(0)
    for _ in range(1 if options.quick else options.rounds):
        chance.shuffle(order)
        for name in order:
            runs[name].append(in_child(job, name, dtype, options))
    rows = [row_of(job, name, dtype, sizes, options.threads, found) for name, found in runs.items()]
    check_losses(rows, dtype)
    print_table(job, dtype, sizes, rows)
    return rows


def is_wanted(name: str, asked: str, names: list[str]) -> bool:
    """Whether `asked`, parts of names or whole ones between semicolons, takes in `name`; nothing asked is all."""
    parts = [part.strip().lower() for part in asked.split(";") if part.strip()]
    whole = {part for part in parts if part in (known.lower() for known in names)}
    return not parts or name.lower() in whole or any(part in name.lower() for part in parts if part not in whole)


def in_child(job: str, name: str, dtype: str, options: argparse.Namespace) -> Row:
    """One training in a fresh process."""
    command = [sys.executable, "-m", "bench.training", job, "--child", name, "--dtype", dtype]
    command += ["--threads", str(options.threads)] + (["--quick"] if options.quick else [])
    for flag in ("length", "batch"):
        if getattr(options, flag) is not None:
            command += [f"--{flag}", str(getattr(options, flag))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{job} by {name}: {done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def row_of(job: str, name: str, dtype: str, sizes: Sizes, threads: int, runs: list[Row]) -> Row:
    """The medians of a provider's trainings."""
    sequences = 2 if job == "pairs" else 1
    tokens = sizes.batch * sizes.length * sequences
    step = median(step for run in runs for step in run["step_seconds"])
    whole = median(run["whole_seconds"] for run in runs)
    package = next((package for word, package in PACKAGES.items() if word in name), None)
    return {
        "op": f"training.{job}", "provider": name, "dtype": dtype, "threads": threads, **asdict(sizes),
        "tokens_per_step": tokens, "step_seconds": [run["step_seconds"] for run in runs], "step_median": step,
        "tokens_per_second": round(tokens / step, 1), "whole_tokens_per_second": round(tokens * sizes.steps / whole, 1),
        "peak_mib": median(run["peak_mib"] for run in runs), "first_loss": runs[0]["first_loss"],
        "peer_version": version_of(package), **machine_facts(),
    }  # fmt: skip


def check_losses(rows: list[Row], dtype: str) -> None:
    """Everybody must have trained the same thing."""
    truth = rows[-1]["first_loss"]
    for row in rows:
        if not abs(row["first_loss"] - truth) <= TOLERANCE[dtype] * max(abs(truth), 0.1):
            raise AssertionError(
                f"{row['provider']}: the first loss is {row['first_loss']:.6g}, that of {rows[-1]['provider']} is "
                f"{truth:.6g}; they train different things"
            )


def print_table(job: str, dtype: str, sizes: Sizes, rows: list[Row]) -> None:
    """Tokens a second and memory; how many times as fast ours is."""
    ours = rows[0]
    print(f"\n{job} {dtype}, batch {sizes.batch} x {sizes.length} tokens, threads {ours['threads']}")
    print(f"  {'provider':34} {'s a step':>9} {'tokens/s':>9} {'whole':>8} {'ours is':>9} {'peak MiB':>9} {'loss':>9}")
    for row in rows:
        ratio = ours["tokens_per_second"] / row["tokens_per_second"]
        print(
            f"  {row['provider']:34} {row['step_median']:9.3f} {row['tokens_per_second']:9.1f} "
            f"{row['whole_tokens_per_second']:8.1f} {ratio:8.2f}x {row['peak_mib']:9.1f} {row['first_loss']:9.4f}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
