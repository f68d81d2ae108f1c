"""Trains what is not on file yet and appends a row when it is measured, so that a stopped run goes on."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from bench.measure import machine_facts
from bench.replicate.rows import Row, append, on_file
from bench.replicate_irl.likelihood import GapCurve
from bench.replicate_irl.methods import METHODS, fine_tuned
from bench.replicate_irl.task import START, Budget, Condition, Task

CURVES = ("sft_steps", "spin", "irft_2", "irft_5", "irft_2_sft")  # methods that Figure 1 is drawn of
POINTS = 8


def run(
    name: str, condition: Condition, seed: int, methods: Sequence[str], budgets: Sequence[Budget], *, results: Path,
    work: Path,
) -> None:  # fmt: skip
    """Every method with every budget from one fine-tuned policy; nothing is trained when all rows are on file.

    Args:
        name: of the experiment: its rows go to `results`/`name`.jsonl.
        condition: of the experiment.
        seed: of data, model and training.
        methods: by name; the start itself is measured too.
        budgets: that differ in what comes after the start.
        results: folder of the rows.
        work: folder of the answers that are judged later; they are not screened and stay out of the rows.
    """
    if any(getattr(budget, field) != getattr(budgets[0], field) for budget in budgets for field in START):
        raise SystemExit(f"--variants start from one policy: leave {', '.join(START)} to --set")
    file = results / f"{name}.jsonl"
    missing: list[tuple[Row, Budget]] = []
    for budget in budgets:
        for method in ("start", *(name for name in methods if name in (condition.methods or METHODS))):
            key = {"task": name, "seed": seed, **condition.facts, "budget": budget.of(method), "method": method}
            if not on_file(file, key) and all(key != known for known, _ in missing):
                missing.append((key, budget))
    if not missing:
        return
    folder = work / f"{name}_{fingerprint([seed, condition.facts, budgets[0].of('start')])}"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was stopped
    folder.mkdir(parents=True)
    start = fine_tuned(condition.build(seed, budgets[0], folder))
    for place, (key, budget) in enumerate(missing):
        task = replace(start, budget=budget, folder=folder / fingerprint(asdict(budget)))
        measure(task, key, file, work, label=f"{place + 1}/{len(missing)}")
    shutil.rmtree(folder)


def measure(task: Task, key: Row, file: Path, work: Path, *, label: str) -> None:
    """Trains one method and appends its row."""
    curve = GapCurve(task, every=max(1, task.budget.steps // POINTS))
    wanted = key["method"] in CURVES and not key.get("bad")  # Figure 1 trains on right answers only
    begun = time.monotonic()
    trained = key["method"] != "start"
    policy = METHODS[key["method"]](replace(task, callbacks=(curve,) if wanted else ())) if trained else task.policy
    seconds = round(time.monotonic() - begun, 2)
    found = task.measure(task, policy)
    if found.answers is not None:
        lines = [json.dumps(answer) for answer in found.answers]
        answers_file(work, key).write_text("\n".join(lines) + "\n")
    append(file, {**key, **found.numbers, "curve": curve.points, "seconds": seconds, **machine_facts()})
    text = " ".join(f"{name} {value:.3f}" for name, value in found.numbers.items())
    facts = " ".join(str(value) for name, value in key.items() if name not in ("budget", "method"))
    print(f"{label} {facts} {key['method']:12} {text} ({seconds:.0f} s)", flush=True)
    del policy
    gc.collect()


def answers_file(work: Path, key: Row) -> Path:
    """Where the answers of a row stand; other settings are another file."""
    return work / f"answers_{key['task']}_{key['seed']}_{key['method']}_{fingerprint(key['budget'])}.jsonl"


def fingerprint(settings: object) -> str:
    """Short hash of what decides a result."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
