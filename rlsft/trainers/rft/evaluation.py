"""What RFT shows at the end of a run beside the table: its rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlsft.trainers.chain.evaluation import comparison_of, finished_json, side_by_side
from rlsft.trainers.rft.monitors import KINDS

# monitors of a round, with their titles in the table
COLUMNS = {
    "reward/accuracy": "reward right",
    "reward/margin": "margin",
    "reward/saturation": "pairs solved",
    "policy/reward_before": "reward before",
    "policy/reward_after": "after",
    "policy/kl": "KL (nats)",
}


def rounds_of(run_dir: Path) -> list[dict[str, Any]]:
    """One row of monitors a round, of a finished run."""
    rounds = finished_json(run_dir, "run.json")["rounds"]
    return [rounds[name] for name in sorted(rounds)]


def summary_renderables(run_dir: Path) -> list[Any]:
    """What the terminal shows at the end: the table, the rounds, five prompts side by side."""
    return [
        comparison_of(run_dir).to_rich(),
        rounds_table(rounds_of(run_dir)),
        side_by_side(run_dir, 5, after="RFT"),
    ]


def rounds_table(rounds: Sequence[Mapping[str, Any]]) -> Any:
    """Monitors of every round, and where its time went."""
    from rich.table import Table

    table = Table("round", *COLUMNS.values(), *(f"{kind} [s]" for kind in KINDS), title="rounds")
    for row in rounds:
        cells = [f"{row[name]:.2f}" if name in row else "" for name in COLUMNS]
        times = [f"{row[f'seconds/{kind}']:.0f} ({row[f'share/{kind}']:.0%})" for kind in KINDS]
        table.add_row(str(row["step"]), *cells, *times)
    return table
