"""Runs the experiments that are not on file yet, one row each, and writes the report.

    python -m bench.replicate_irl run   [--task sorting] [--seeds 0-4] [--methods sft_steps,irft_2] [--bad 0,0.2,0.4]
    python -m bench.replicate_irl report

A row is appended when its training is measured, so a run that was stopped goes on where it was. Seeds from 100 on are
for choosing settings; the report leaves them out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.measure import ROOT, machine_facts
from bench.replicate_irl.methods import METHODS, Budget, Task, sft

RESULTS = ROOT / "bench" / "results" / "replicate_irl"
TUNING_SEEDS = 100  # and above: never in the report
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Runs, or reports."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.replicate_irl", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--seeds", default="0-4", type=numbers)
    parser.add_argument("--bad", default="0,0.2,0.4", help="shares of bad demonstrations")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--set", default="", help="settings of the budget, as beta=0.2,steps=100")
    parser.add_argument("--results", default=str(RESULTS), help="folder of the rows")
    options = parser.parse_args(arguments)
    if options.command == "report":
        from bench.replicate_irl.report import write_report

        print(write_report(Path(options.results)))
        return 0
    unknown = sorted(set(options.methods.split(",")) - set(METHODS))
    if unknown:
        parser.error(f"no method named {', '.join(unknown)}; there are {', '.join(METHODS)}")
    torch.set_num_threads(1)
    file = Path(options.results) / "sorting.jsonl"
    for seed in options.seeds:
        for bad in (float(part) for part in options.bad.split(",")):
            run_sorting(file, seed, bad, options.methods.split(","), budget_of(options.set))
    return 0


def numbers(text: str) -> list[int]:
    """`0-2,7` as [0, 1, 2, 7]."""
    ranges = [part.split("-") for part in text.split(",")]
    return [number for ends in ranges for number in range(int(ends[0]), int(ends[-1]) + 1)]


def budget_of(text: str) -> Budget:
    """The settings with the user's changes."""
    changes = dict(part.split("=") for part in text.split(",") if part)
    kinds = {name: type(value) for name, value in asdict(Budget()).items()}
    return Budget(**{name: kinds[name](value) for name, value in changes.items()})


def run_sorting(file: Path, seed: int, bad: float, methods: list[str], budget: Budget) -> None:
    """Every method that has no row yet, from one fine-tuned policy."""
    from bench.replicate_irl.measure import measured
    from bench.replicate_irl.sorting import DIGITS, demonstrations, model, tokenizer

    key = {"task": "sorting", "seed": seed, "bad": bad, "budget": asdict(budget)}
    missing = [name for name in ("start", *methods) if not on_file(file, {**key, "method": name})]
    if not missing:
        return
    tokens, data = tokenizer(), demonstrations(seed, bad=bad, train=budget.demonstrations)
    folder = Path(tempfile.mkdtemp())
    blank = Task(model(seed), tokens, data.train, seed, budget, folder, max_length=32, max_completion_length=2 * DIGITS)
    start = sft(blank, steps=budget.warm_up_steps, name="start")
    task = Task(start, tokens, data.train, seed, budget, folder, max_length=32, max_completion_length=2 * DIGITS)
    for name in missing:
        begun = time.monotonic()
        policy = start if name == "start" else METHODS[name](task)
        seconds = time.monotonic() - begun
        found = measured(policy, tokens, data.held_out, seed=seed)
        row = {**key, "method": name, **found, "seconds": round(seconds, 2), **machine_facts()}
        append(file, row)
        print(f"seed {seed} bad {bad:.1f} {name:16} " + " ".join(f"{k} {v:.3f}" for k, v in found.items()), flush=True)
    shutil.rmtree(folder)


def rows_of(file: Path) -> Iterator[Row]:
    """What is on file."""
    if file.exists():
        for line in file.read_text().splitlines():
            yield json.loads(line)


def on_file(file: Path, key: Row) -> bool:
    """Whether this training was measured before with the same settings."""
    return any(all(row.get(name) == value for name, value in key.items()) for row in rows_of(file))


def append(file: Path, row: Row) -> None:
    """One line, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    sys.exit(main())
