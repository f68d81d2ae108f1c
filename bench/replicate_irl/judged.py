"""The judge's verdict on answers to dialogues, apart from the trainings: it is a larger model than those it judges."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from bench.replicate.judge import judge, wins
from bench.replicate.rows import append, on_file, rows_of
from bench.replicate_irl.run import answers_file

BASELINE = "sft_steps"
TASKS = ("smollm2", "dialogues")


def judge_all(results: Path, work: Path, seeds: list[int], most: int) -> None:
    """Appends to judged.jsonl the share of prompts on which each method's answer scores above the baseline's.

    Args:
        results: folder of the rows.
        work: folder of the answers; a row whose answers are not there (another machine trained it) is left out.
        seeds: which seeds.
        most: judged prompts a row at most, the same for all methods.
    """
    file = results / "judged.jsonl"
    rows = [row for task in TASKS for row in rows_of(results / f"{task}.jsonl") if row["seed"] in seeds]
    baselines = {(row["task"], row["seed"]): row for row in rows if row["method"] == BASELINE}
    for row in sorted(rows, key=lambda row: row["seed"]):
        key = {name: row[name] for name in ("task", "seed", "budget", "method")}
        baseline = baselines.get((row["task"], row["seed"]))
        files = [answers_file(work, ours) for ours in (key, baseline) if ours]
        missing = len(files) < 2 or not all(map(Path.exists, files))
        if missing or key["method"] == BASELINE or on_file(file, {**key, "most": most}):
            continue
        ours, theirs = (scores(path, most) for path in files)
        found = {"win_rate": 100 * wins(ours, theirs), "judged": len(ours), "score": finite_mean(ours)}
        append(file, {**key, "most": most, **found, "accuracy": judge().accuracy})
        print(f"{key['task']} {key['seed']} {key['method']:12} {found}", flush=True)


@cache
def scores(file: Path, most: int) -> Any:
    """[n] the judge's scores of the first answers; an empty answer scores below all others."""
    import numpy as np

    rows = list(rows_of(file))[:most]
    filled = [i for i, row in enumerate(rows) if row["answer"].strip()]
    found = np.full(len(rows), -1e9)
    found[filled] = judge()([rows[i]["prompt"] for i in filled], [rows[i]["answer"] for i in filled])
    return found


def finite_mean(values: Any) -> float:
    """Of the answers that hold something."""
    kept = values[values > -1e9]
    return float(kept.mean()) if len(kept) else float("nan")
