"""The judge's verdict on answers to dialogues, apart from the trainings: it is a larger model than those it judges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.replicate.judge import NAME
from bench.replicate.rows import Row, on_file, rows_of

BASELINES = {"dialogues": "full", "smollm2": "sft"}
JUDGED = {"dialogues": 220, "smollm2": 1100}  # prompts a row: 1,100 over the five seeds, and 1,100 a seed
FIRST = ("str_ours", "str_noise", "str_rloo", "full_more", "str")  # judged first: the claims hang on them


def verdicts(results: Path, work: Path, seeds: list[int]) -> Iterator[tuple[Row, dict[str, float]]]:
    """For each row of answers in the work folder, the share that the judge puts above the baseline's, in per cent.

    Args:
        results: folder of the rows; what `judged.jsonl` there holds is not judged again.
        work: folder of the answers.
        seeds: which seeds.
    """
    file = results / "judged.jsonl"
    for task, baseline in BASELINES.items():
        rows = [row for row in rows_of(results / f"{task}.jsonl") if row["seed"] in seeds]
        most, known = JUDGED[task], dict[str, Any]()
        for row in sorted(rows, key=urgency):
            key = {name: row[name] for name in ("task", "seed", "budget", "method")}
            theirs = {**key, "method": baseline}
            wanted = {**key, "most": most, "judge": NAME}
            if row["method"] == baseline or on_file(file, wanted):
                continue
            files = [answers_file(work, ours) for ours in (key, theirs)]
            if not all(path.exists() for path in files):
                continue
            if str(files[1]) not in known:
                known[str(files[1])] = scores(files[1], most)
            yield wanted, compared(scores(files[0], most), known[str(files[1])])


def urgency(row: Row) -> tuple[int, int]:
    """Smaller is sooner: method by method, so that a stopped run has all seeds of the first ones."""
    method = row["method"]
    return FIRST.index(method) if method in FIRST else len(FIRST), row["seed"]


def scores(file: Path, most: int) -> Any:
    """[n] the judge's scores of the first answers; an empty answer scores below all others."""
    from bench.replicate.judge import judge

    rows = list(rows_of(file))[:most]
    filled = [i for i, row in enumerate(rows) if row["answer"].strip()]
    found = np.full(len(rows), -np.inf)
    found[filled] = judge()([rows[i]["prompt"] for i in filled], [rows[i]["answer"] for i in filled])
    return found


def compared(ours: Any, theirs: Any) -> dict[str, float]:
    """Win rate in per cent, a tie being half a win, and how many prompts it rests on."""
    wins = np.where(ours > theirs, 1.0, np.where(ours == theirs, 0.5, 0.0))
    return {"win_rate": 100 * float(wins.mean()), "judged": len(wins)}


def answers_file(work: Path, key: Row) -> Path:
    """Where the answers of a row stand; other settings are another file."""
    from bench.replicate_str.run import fingerprint

    return work / f"{key['task']}_{key['seed']}_{key['method']}_{fingerprint(key['budget'])}.jsonl"
