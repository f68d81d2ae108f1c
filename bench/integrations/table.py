"""The rows on file as a table for the documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.measure import ROOT

Row = dict[str, Any]
HEAD = (
    "| trainer | batch x tokens | s a step, TRL | patched | speed-up | peak MiB, TRL | patched | share |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def markdown(jobs: list[str], results: Path | None = None) -> str:
    """One line a trainer: the latest pair of rows with times and the latest of all, by device.

    Args:
        jobs: trainers, in the order of the table.
        results: folder of the rows; None = bench/results.
    """
    lines: list[str] = []
    for folder in sorted((results or ROOT / "bench" / "results").iterdir()):
        found = [line for job in jobs if (line := _line(job, folder / f"integrations.trl_{job}.jsonl"))]
        if found:
            lines += [f"\n{folder.name}, {_setting(folder, jobs)}:\n\n{HEAD}" + "".join(found)]
    return "".join(lines).lstrip("\n")


def _pairs(file: Path) -> list[tuple[Row, Row]]:
    """Rows are written two at a time: without the patch, then with it."""
    if not file.is_file():
        return []
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return list(zip(rows[::2], rows[1::2], strict=True))


def _line(job: str, file: Path) -> str:
    pairs = _pairs(file)
    if not pairs:
        return ""
    before, after = next((pair for pair in reversed(pairs) if pair[0]["step_median"] is not None), pairs[-1])
    times = "| - | - | - "
    if before["step_median"] is not None:
        ratio = before["step_median"] / after["step_median"]
        times = f"| {before['step_median']:.2f} | {after['step_median']:.2f} | {ratio:.2f}x "
    share = after["peak_mib"] / before["peak_mib"]
    return (
        f"| {job.upper()}Trainer | {before['batch']} x {before['length']} {times}| {before['peak_mib']:.0f} "
        f"| {after['peak_mib']:.0f} | {share:.2f} |\n"
    )


def _setting(folder: Path, jobs: list[str]) -> str:
    pairs = next(found for job in jobs if (found := _pairs(folder / f"integrations.trl_{job}.jsonl")))
    row = pairs[-1][1]
    return f"{row['dtype']}, {row['threads']} threads, trl {row['peer_version']}, torch {row['torch']}"
