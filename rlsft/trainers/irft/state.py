"""What a run of IRFT must remember between two steps, and how a checkpoint holds it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlsft.artifacts import read_jsonl, write_json, write_jsonl
from rlsft.errors import RunError
from rlsft.trainers.irft.pairs import Pair
from rlsft.trainers.irft.refresh import StepSignal

STATE_FILE = "irft_state.json"
PAIRS_FILE = "irft_pairs.jsonl"


@dataclass
class RoundState:
    """The round in progress: number, first step, its pairs, and what later rounds replay."""

    number: int = -1  # none has begun
    first_step: int = 0
    pairs: list[Pair] = field(default_factory=list)
    past: list[list[Pair]] = field(default_factory=list)  # own answers of earlier rounds, the newest first
    own: int = 0  # how many of `pairs` are the round's own
    held_out: dict[str, list[Pair]] = field(default_factory=dict)
    signals: list[StepSignal] = field(default_factory=list)  # of the round's newest steps

    def save(self, folder: str | os.PathLike[str], *, num_rows: int) -> None:
        """Write the state into a checkpoint; `num_rows` is the size of the data set, whose rows the pairs name."""
        rows: list[dict[str, Any]] = [{"of": "pairs", **pair.to_row()} for pair in self.pairs]
        for age, pairs in enumerate(self.past):
            rows += [{"of": f"past {age}", **pair.to_row()} for pair in pairs]
        for name, pairs in self.held_out.items():
            rows += [{"of": f"held_out {name}", **pair.to_row()} for pair in pairs]
        write_jsonl(Path(folder) / PAIRS_FILE, rows)
        counters = {"number": self.number, "first_step": self.first_step, "own": self.own, "num_rows": num_rows}
        signals = [asdict(signal) for signal in self.signals]
        write_json(Path(folder) / STATE_FILE, {**counters, "past": len(self.past), "signals": signals})

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, num_rows: int) -> RoundState:
        """What `save` wrote, bit for bit.

        Raises:
            RunError: the checkpoint is not one of IRFT, was made with `save_only_model`, or with a data set of another
                size, in which its pairs would name other rows.
        """
        for name in (STATE_FILE, PAIRS_FILE):
            if not (Path(folder) / name).is_file():
                raise RunError(
                    f"{folder} has no {name}: it is no IRFT checkpoint, or was written with save_only_model=True, and "
                    "cannot be resumed"
                )
        values = json.loads((Path(folder) / STATE_FILE).read_text(encoding="utf-8"))
        if values["num_rows"] != num_rows:
            raise RunError(
                f"{folder} was made with a train_dataset of {values['num_rows']} rows, and this one has {num_rows}: "
                "its pairs would name other demonstrations. Resume with the same data, or take another output_dir"
            )
        groups: dict[str, list[Pair]] = {"pairs": []}
        for row in read_jsonl(Path(folder) / PAIRS_FILE):
            groups.setdefault(row.pop("of"), []).append(Pair.from_row(row))
        held_out = {name.removeprefix("held_out "): p for name, p in groups.items() if name.startswith("held_out ")}
        signals = [StepSignal(s["accuracy"], math.nan if s["kl"] is None else s["kl"]) for s in values["signals"]]
        return cls(
            number=values["number"],
            first_step=values["first_step"],
            own=values["own"],
            pairs=groups["pairs"],
            past=[groups.get(f"past {age}", []) for age in range(values["past"])],
            held_out=held_out,
            signals=signals,
        )
