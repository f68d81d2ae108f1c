"""Runs the experiments that are not on file yet, one row each, and writes the report.

    python -m bench.replicate_irl run   [--task sorting] [--seeds 0-4] [--methods sft_steps,irft_2] [--bad 0,0.2,0.4]
    python -m bench.replicate_irl report

A row is appended when its training is measured, so a run that was stopped goes on where it was. Seeds from 100 on are
for choosing settings; the report leaves them out.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import torch

from bench.measure import machine_facts
from bench.replicate.rows import RESULTS, append, changed, numbers, on_file
from bench.replicate_irl.methods import METHODS, Budget, Task, sft


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
    parser.add_argument("--results", default=str(RESULTS / "replicate_irl"), help="folder of the rows")
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
            run_sorting(file, seed, bad, options.methods.split(","), changed(Budget(), options.set))
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
