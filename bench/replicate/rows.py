"""Rows of trainings: one JSON line each, written when its training is measured, so that a stopped run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from bench.measure import ROOT

RESULTS = ROOT / "bench" / "results"
TUNING_SEEDS = 100  # and above: for choosing settings, never in a report

Row = dict[str, Any]
Settings = TypeVar("Settings")


def rows_of(file: Path) -> Iterator[Row]:
    """What is on file."""
    if file.exists():
        for line in file.read_text().splitlines():
            yield json.loads(line)


def reported(file: Path) -> list[Row]:
    """The rows that a report may use."""
    return [row for row in rows_of(file) if row["seed"] < TUNING_SEEDS]


def on_file(file: Path, key: Row) -> bool:
    """Whether this training was measured before with the same settings."""
    return any(all(row.get(name) == value for name, value in key.items()) for row in rows_of(file))


def append(file: Path, row: Row) -> None:
    """One line, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps(row) + "\n")


def numbers(text: str) -> list[int]:
    """`0-2,7` as [0, 1, 2, 7]."""
    ranges = [part.split("-") for part in text.split(",")]
    return [number for ends in ranges for number in range(int(ends[0]), int(ends[-1]) + 1)]


def changed(settings: Settings, text: str) -> Settings:
    """The settings (a dataclass) with the changes of `beta=0.2,steps=100`."""
    changes = dict(part.split("=", 1) for part in text.split(",") if part)
    kinds = {name: type(value) for name, value in asdict(settings).items()}  # type: ignore[call-overload]
    unknown = sorted(set(changes) - set(kinds))
    if unknown:
        raise SystemExit(f"--set: no setting named {', '.join(unknown)}; there are {', '.join(kinds)}")
    return replace(settings, **{name: kinds[name](value) for name, value in changes.items()})  # type: ignore[type-var]
