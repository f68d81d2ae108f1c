"""A ranking as rich tables for the terminal, with the reasons beneath."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rlsft.data import prompt_text
from rlsft.ranking.agreement import GAIN, MEASURES, METHODS
from rlsft.ranking.results import RankedResponses

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table


def render(ranked: RankedResponses, *, max_prompts: int = 5, explanations: int = 2) -> Group:
    """Tables of the first `max_prompts` prompts, best answer first, each with its best `explanations`; a summary.

    Print it with `rich.console.Console().print(...)`.
    """
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    parts: list[Any] = []
    by_prompt = [list(rows) for _, rows in groupby(ranked.rows, key=lambda row: row["prompt_index"])]
    for rows in by_prompt[:max_prompts]:
        best_first = sorted(rows, key=lambda row: row["rank"])
        parts.append(_table(best_first))
        for row in best_first[:explanations]:
            reason = ranked.explain(row["prompt_index"], row["response_index"])
            parts.append(Text(f"  {reason.text}", style="dim"))
        parts.append(Text())
    if len(by_prompt) > max_prompts:
        parts.append(Text(f"… and {len(by_prompt) - max_prompts} more prompts", style="dim"))
    parts.append(Panel(Text(str(ranked)), title="Summary"))
    return Group(*parts)


def _table(rows: list[dict[str, Any]]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    title = Text(f"Prompt {rows[0]['prompt_index']}: {_one_line(prompt_text(rows[0]['prompt']), 100)}")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    for name in ("rank", "answer", "score", "cluster"):
        table.add_column(name, justify="right")
    table.add_column("kept", justify="center")
    table.add_column("cosine (its rank)", justify="right")
    table.add_column("text", overflow="fold")
    for row in rows:
        cosine = row["cosine_to_demonstration"]
        table.add_row(
            str(row["rank"]),
            str(row["response_index"]),
            f"{row['score']:.4f}",
            f"{row['cluster']} ({row['cluster_size']})",
            "★" if row["representative"] else "",
            "–" if cosine is None else f"{cosine:.3f} ({row['cosine_rank']})",
            Text(_one_line(row["completion"], 90)),
            style="bold" if row["representative"] else None,
        )
    return table


def _one_line(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def render_agreement(report: Mapping[str, Any]) -> Table:
    """What `agreement_with_second_reply` found, as a rich table with chance beside each method."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title="Rank agreement (proxy)", caption=report["description"], box=SIMPLE_HEAD)
    table.add_column("ranker")
    for name in MEASURES.values():
        table.add_column(name, justify="right")
    cells: dict[str, list[str]] = {}
    chance: list[str] = []
    for row in report["rows"]:
        cells.setdefault(row["method"], []).append(_with_interval(row))
        if row["method"] == "plain_cosine":
            chance.append(f"{row['chance']:.3f}")
    for method, name in METHODS.items():
        table.add_row(name, *cells[method])
    table.add_row("random order", *chance)
    table.add_row("teleport minus plain cosine: what the graph adds", *cells[GAIN])
    return table


def _with_interval(row: Mapping[str, Any]) -> str:
    bounds = (row["mean"], row["low"], row["high"])
    if any(bound is None or not math.isfinite(bound) for bound in bounds):
        return "–" if row["mean"] is None else f"{row['mean']:.3f}"
    return "{:.3f} [{:.3f}, {:.3f}]".format(*bounds)
