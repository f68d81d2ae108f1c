"""The rows on file as a table for the documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.measure import ROOT

Row = dict[str, Any]
HEAD = (
    "| trainer | batch x tokens | threads | CPU s a step, TRL | patched | ratio | peak MiB, TRL | patched | share |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def markdown(jobs: list[str], results: Path | None = None) -> str:
    """The latest pair of rows of every trainer and shape, by device.

    Args:
        jobs: trainers, in the order of the table.
        results: folder of the rows; None = bench/results.
    """
    lines: list[str] = []
    for folder in sorted((results or ROOT / "bench" / "results").iterdir()):
        found = [line for job in jobs if (line := _lines(job, folder / f"integrations.trl_{job}.jsonl"))]
        if found:
            lines += [f"\n{folder.name}, {_setting(folder, jobs)}:\n\n{HEAD}" + "".join(found)]
    return "".join(lines).lstrip("\n")


def _pairs(file: Path) -> list[tuple[Row, Row]]:
    """Rows are written two at a time: without the patch, then with it."""
    if not file.is_file():
        return []
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return list(zip(rows[::2], rows[1::2], strict=True))


def _lines(job: str, file: Path) -> str:
    latest = {(before["batch"], before["length"], before["threads"]): (before, after) for before, after in _pairs(file)}
    return "".join(_line(job, *latest[shape]) for shape in sorted(latest))


def _line(job: str, before: Row, after: Row) -> str:
    ratio = before["step_cpu_median"] / after["step_cpu_median"]
    return (
        f"| {job.upper()}Trainer | {before['batch']} x {before['length']} | {before['threads']} "
        f"| {before['step_cpu_median']:.2f} | {after['step_cpu_median']:.2f} | {ratio:.2f}x "
        f"| {before['peak_mib']:.0f} | {after['peak_mib']:.0f} | {after['peak_mib'] / before['peak_mib']:.2f} |\n"
    )


def _setting(folder: Path, jobs: list[str]) -> str:
    pairs = next(found for job in jobs if (found := _pairs(folder / f"integrations.trl_{job}.jsonl")))
    row = pairs[-1][1]
    return f"{row['dtype']}, trl {row['peer_version']}, torch {row['torch']}"
