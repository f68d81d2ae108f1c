"""Runs what is not on file yet; a row is appended as soon as its training is measured."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.measure import machine_facts
from bench.replicate.rows import Row, append, changed, on_file
from bench.replicate_str.judged import answers_file, verdicts
from bench.replicate_str.measure import answers, measured, text_measures
from bench.replicate_str.methods import METHODS, Outcome, Seed, reward_of
from bench.replicate_str.stages import OURS, improve
from bench.replicate_str.task import Budget, Task
from rlsft.artifacts import write_jsonl

SWEEP_REWARD_STEPS = (25, 100, 400)  # K
SWEEP_KL = (0.02, 0.1, 0.5)  # beta


def tasks() -> dict[str, tuple[Callable[[int, Budget, Path], Task], Budget]]:
    """How a task is built, and its budget."""
    from bench.replicate_str import dialogues, sorting, wordnet

    return {
        "sorting": (sorting.sorting, sorting.BUDGET),
        "wordnet": (wordnet.wordnet, wordnet.BUDGET),
        "dialogues": (dialogues.dialogues, dialogues.BUDGET),
    }


def run_task(name: str, seed: int, methods: list[str], changes: str, results: Path, work: Path) -> None:
    """Every method that has no row yet, from one pretrained model; the answers stay in the work folder."""
    build, budget = tasks()[name]
    budget = changed(budget, changes)
    file = results / f"{name}.jsonl"
    key = {"task": name, "seed": seed, "budget": asdict(budget)}
    missing = [method for method in methods if not on_file(file, {**key, "method": method})]
    if not missing:
        return
    with work_folder() as folder:
        shared = Seed(build(seed, budget, folder))
        baseline: list[str] | None = None
        if missing[0] != "full":
            baseline = answers(shared.task, shared.full, [row["prompt"] for row in shared.task.held_out])
        for method in missing:
            begun = time.monotonic()
            outcome = METHODS[method](shared)
            seconds = time.monotonic() - begun
            found, drawn = measured(shared.task, outcome, baseline)
            if method == "full":
                baseline = drawn
            write(file, {**key, "method": method}, found, seconds)
            write_jsonl(answers_file(work, {**key, "method": method}), answer_rows(shared.task, drawn))


def answer_rows(task: Task, drawn: list[str]) -> list[Row]:
    """What the judge reads."""
    return [{"prompt": row["prompt"], "answer": text} for row, text in zip(task.held_out, drawn, strict=True)]


def fingerprint(settings: dict[str, Any]) -> str:
    """Short hash of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]


def run_sweep(seed: int, changes: str, results: Path) -> None:
    """STR with our ranker over reward steps (K) and KL coefficient (beta), on the task with a known reward."""
    build, budget = tasks()["sorting"]
    budget = changed(budget, changes)
    file = results / "sweep.jsonl"
    key = {"task": "sweep", "seed": seed, "method": "str_ours", "budget": asdict(budget)}
    cells = [
        (steps, kl)
        for steps in SWEEP_REWARD_STEPS
        for kl in SWEEP_KL
        if not on_file(file, {**key, "reward_steps": steps, "kl_coef": kl})
    ]
    if not cells:
        return
    with work_folder() as folder:
        shared = Seed(build(seed, budget, folder))
        baseline = answers(shared.task, shared.full, [row["prompt"] for row in shared.task.held_out])
        start, _ = measured(shared.task, Outcome(shared.full), None)
        for steps in dict.fromkeys(steps for steps, _ in cells):
            reward = reward_of(shared, OURS, steps=steps)
            for kl in (kl for of, kl in cells if of == steps):
                begun = time.monotonic()
                policy = improve(shared.task, shared.sft_folder, reward.model, "policy", kl_coef=kl)
                seconds = time.monotonic() - begun
                found, _ = measured(shared.task, Outcome(policy, reward), baseline)
                found["start_reward"] = start["true_reward"]
                write(file, {**key, "reward_steps": steps, "kl_coef": kl}, found, seconds)


def run_smollm2(seed: int, methods: list[str], changes: str, results: Path, work: Path) -> None:
    """SFT, STR and STR with our ranker on SmolLM2-135M; trainings and answers stay in the work folder."""
    from bench.replicate_str import smollm2

    sizes = changed(smollm2.Sizes(), changes)
    file = results / "smollm2.jsonl"
    key = {"task": "smollm2", "seed": seed, "budget": asdict(sizes)}
    known = [method for method in smollm2.METHODS if method in methods]
    missing = [method for method in known if not on_file(file, {**key, "method": method})]
    if not missing:
        return
    for method, seconds, generations in smollm2.generate(seed, sizes, work / "smollm2", missing):
        found = text_measures([g.completion for g in generations], [g.references for g in generations])
        found |= {"ended": sum(bool(g.ended) for g in generations) / len(generations)}
        found |= smollm2.reward_facts(seed, sizes, work / "smollm2", method)
        write(file, {**key, "method": method}, found, seconds)
        rows = [{"prompt": g.prompt, "answer": g.completion} for g in generations]
        write_jsonl(answers_file(work, {**key, "method": method}), rows)


def run_judge(seeds: list[int], results: Path, work: Path) -> None:
    """The judge's verdict on every row of answers that has none."""
    begun = time.monotonic()
    for key, found in verdicts(results, work, seeds):
        write(results / "judged.jsonl", key, found, time.monotonic() - begun)
        begun = time.monotonic()


def write(file: Path, key: Row, found: dict[str, Any], seconds: float) -> None:
    """One row, on file and on the screen."""
    rounded = {name: round(float(value), 5) for name, value in found.items()}
    append(file, {**key, **rounded, "seconds": round(seconds, 2), **machine_facts()})
    shown = " ".join(f"{name} {value:.3f}" for name, value in rounded.items())
    place = " ".join(f"{name}={key[name]}" for name in ("reward_steps", "kl_coef") if name in key)
    print(f"{key['task']} seed {key['seed']} {key['method']} {place} {seconds:.0f} s: {shown}", flush=True)


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="rlsft_str_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
