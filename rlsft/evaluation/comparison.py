"""A finished comparison of two models: rows, verdicts, and the same as JSON, Markdown and a rich table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rlsft.errors import DataError
from rlsft.metrics import Interval
from rlsft.metrics.bootstrap import Better

if TYPE_CHECKING:
    from rich.console import Group

_COLOUR = {"better": "green", "worse": "bold red", "higher": "cyan", "lower": "cyan"}


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One metric before and after on the same prompts."""

    key: str  # stable name: "bleu", "meteor", "reward", …
    label: str  # with the variant: "METEOR (nltk, exact+stem)"
    unit: str  # "%", "tokens", "nats" or ""
    better: Better | None  # None: neither direction is good in itself
    digits: int
    before: Interval
    after: Interval
    difference: Interval  # after - before, paired by prompt
    verdict: str

    def cells(self) -> tuple[str, str, str, str, str, str]:
        """Label, before, after, difference, n and verdict, as text."""
        label = f"{self.label} [{self.unit}]" if self.unit else self.label
        texts = [interval.format(self.digits) for interval in (self.before, self.after, self.difference)]
        if math.isfinite(self.difference.mean) and self.difference.mean > 0:
            texts[2] = f"+{texts[2]}"
        counts = (self.difference.n, self.after.n, self.before.n)
        return (label, *texts, str(next((n for n in counts if n), 0)), self.verdict)  # type: ignore[return-value]

    @property
    def name(self) -> str:
        """The label without its variant, for a sentence."""
        return self.label.split(" (")[0]

    def change(self) -> str:
        """`name +0.12 [0.01, 0.23]`, for a sentence."""
        return f"{self.name} {self.cells()[3]}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same held-out prompts, metric by metric. `table.json` of a run is its `to_json`."""

    before: str  # label of the first model
    after: str
    language: str
    num_prompts: int
    rows: tuple[MetricRow, ...]
    sentence: str  # what may be said of the whole, the bad first
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    corpus: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # name -> before, after, signature
    kpi_reward: Mapping[str, Interval] = field(default_factory=dict)  # "before", "after": Spearman
    versions: Mapping[str, str] = field(default_factory=dict)

    def row(self, key: str) -> MetricRow:
        """The row of one metric; `KeyError` lists the metrics there are."""
        for row in self.rows:
            if row.key == key:
                return row
        raise KeyError(f"no metric {key!r}; there are {', '.join(row.key for row in self.rows)}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; `from_json` is the inverse."""
        return asdict(self) | {
            "rows": [asdict(row) for row in self.rows],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Comparison:
        """The comparison that `to_json` wrote.

        Raises:
            DataError: a key is missing or unknown.
        """
        try:
            rows = tuple(
                MetricRow(**dict(row) | {k: _interval(row[k]) for k in ("before", "after", "difference")})
                for row in value["rows"]
            )
            kpi_reward = {side: _interval(item) for side, item in value.get("kpi_reward", {}).items()}
            texts = {key: tuple(value.get(key, ())) for key in ("warnings", "notes")}
            return cls(**dict(value) | texts | {"rows": rows, "kpi_reward": kpi_reward})
        except (KeyError, TypeError) as error:
            raise DataError(f"not a comparison table: {error}; write it again with Comparison.to_json") from error

    def header(self) -> tuple[str, str, str, str, str, str]:
        """Column titles of `MetricRow.cells`."""
        return ("Metric", self.before, self.after, "Difference", "n", "Verdict")

    def to_markdown(self) -> str:
        """A GitHub table, the sentence before it, warnings and notes after it."""
        lines = [self.sentence, "", _markdown_line(self.header()), "|---|---|---|---|--:|---|"]
        lines += [_markdown_line(row.cells()) for row in self.rows]
        lines += ["", *(f"**Warning:** {text}\n" for text in self.warnings)]
        lines += [f"- {text}" for text in self.footnotes()]
        return "\n".join(lines).rstrip() + "\n"

    def footnotes(self) -> list[str]:
        """Corpus scores with their signatures, correlations and notes, one sentence each."""
        corpus = [
            f"{name}: {item['before']:.2f} ({self.before}), {item['after']:.2f} ({self.after}); {item['signature']}."
            for name, item in self.corpus.items()
        ]
        correlations = [
            f"Spearman correlation of KPI and reward, {getattr(self, side)}: {value.format(2)}, n = {value.n}."
            for side, value in self.kpi_reward.items()
        ]
        return corpus + correlations + list(self.notes)

    def to_rich(self) -> Group:
        """The table with coloured verdicts, then the sentence, warnings and notes; for `rich.print`."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(title=f"{self.before} and {self.after} on {self.num_prompts} held-out prompts")
        for title in self.header():
            table.add_column(title, justify="right" if title == "n" else "left", overflow="fold")
        for row in self.rows:
            *cells, verdict = row.cells()
            table.add_row(*(Text(cell) for cell in cells), Text(verdict, style=_COLOUR.get(verdict, "")))
        return Group(
            table,
            Text(self.sentence, style="bold"),
            *(Text(f"Warning: {text}", style="yellow") for text in self.warnings),
            *(Text(text, style="dim") for text in self.footnotes()),
        )


def _interval(value: Mapping[str, Any]) -> Interval:
    # JSON has no NaN: artefacts hold null instead
    numbers: dict[str, Any] = {key: math.nan if item is None else item for key, item in value.items()}
    return Interval(**numbers)


def _markdown_line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
