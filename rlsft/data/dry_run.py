"""What training would see: decoded examples with their loss mask, lengths, what is cut, what is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from rlsft.data.dataset import EncodingReport, encode_dataset
from rlsft.data.formats import detect_format

if TYPE_CHECKING:
    from rich.console import RenderableType

OPEN, CLOSE = "⟦", "⟧"  # around trained tokens, so that the mask is readable without colour


@dataclass(frozen=True)
class PreviewExample:
    """One sequence as runs of text: `(text, is_trained)`."""

    label: str
    runs: list[tuple[str, bool]]
    num_tokens: int
    num_trained: int

    def plain(self) -> str:
        """The text with trained parts between ⟦ and ⟧."""
        return "".join(f"{OPEN}{text}{CLOSE}" if trained else text for text, trained in self.runs)


@dataclass(frozen=True)
class Preview:
    """The dry run of a dataset; `print(preview.plain())`, or print it with rich."""

    format: str
    examples: list[PreviewExample]
    lengths: dict[str, dict[str, float]]  # "sequence", "completion" -> min, median, p95, max in tokens
    max_length: int
    report: EncodingReport

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, after cutting."""
        return int(self.lengths["sequence"]["max"])

    def plain(self) -> str:
        """The whole preview as text without colour."""
        head = f"{self.report.num_rows} rows, format {self.format}, max_length {self.max_length}"
        lengths = [
            f"{name} tokens: " + ", ".join(f"{label} {value:g}" for label, value in numbers.items())
            for name, numbers in self.lengths.items()
        ]
        body = [f"--- {e.label} ({e.num_tokens} tokens, {e.num_trained} trained)\n{e.plain()}" for e in self.examples]
        legend = [f"{OPEN}…{CLOSE} = trained tokens"] if any(e.num_trained for e in self.examples) else []
        return "\n".join([head, *lengths, *(self.report.lines() or ["nothing is cut or skipped"]), *legend, *body])

    def __rich__(self) -> RenderableType:
        """Tables and panels for a terminal; trained tokens are green and marked."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        table = Table("tokens", "min", "median", "p95", "max", title=f"{self.report.num_rows} rows, {self.format}")
        for name, numbers in self.lengths.items():
            table.add_row(name, *(f"{value:g}" for value in numbers.values()))
        panels = []
        for example in self.examples:
            text = Text()
            for run, trained in example.runs:
                text.append(f"{OPEN}{run}{CLOSE}" if trained else run, style="bold green" if trained else "dim")
            panels.append(
                Panel(text, title=f"{example.label}: {example.num_tokens} tokens, {example.num_trained} trained")
            )
        notes = [Text(line, style="yellow") for line in self.report.lines()]
        return Group(table, *(notes or [Text("nothing is cut or skipped")]), *panels)


def preview(
    examples: Iterable[Mapping[str, Any]],
    tokenizer: Any,
    *,
    max_length: int,
    system_prompt: str | None = None,
    truncate_prompt: bool = False,
    num_examples: int = 3,
) -> Preview:
    """Encode `examples` as training would and show the first of them; bad rows are counted, not raised.

    Args:
        examples: rows of any known format (a Dataset or a list of dicts).
        tokenizer: see `encode_demonstration`.
        max_length: most tokens a sequence.
        system_prompt: see `encode_demonstration`.
        truncate_prompt: see `encode_demonstration`.
        num_examples: how many rows to show in full.

    Raises:
        DataError: unknown columns, or no usable row at all.
    """
    rows = list(examples)
    name = detect_format(rows[0] if rows else ())
    kind = {"preference": "pair", "prompt": "prompt"}.get(name, "demonstration")
    encoded, report = encode_dataset(
        rows,
        tokenizer,
        kind=kind,  # type: ignore[arg-type]
        max_length=max_length,
        system_prompt=system_prompt,
        truncate_prompt=truncate_prompt,
        skip_bad_rows=True,
    )
    sides = ("chosen_", "rejected_") if kind == "pair" else ("",)
    ids = {side: encoded[f"{side}input_ids"] for side in sides}
    masks = {side: encoded[f"{side}completion_mask"] for side in sides} if kind != "prompt" else {}
    shown = []
    for number in range(min(num_examples, len(encoded))):
        for side in sides:
            sequence = list(ids[side][number])
            mask = list(masks[side][number]) if masks else [False] * len(sequence)
            label = f"example {number + 1}{' ' + side.rstrip('_') if side else ''}"
            shown.append(PreviewExample(label, _runs(sequence, mask, tokenizer), len(sequence), sum(mask)))
    lengths = {"sequence": _numbers([len(row) for side in sides for row in ids[side]])}
    if masks:
        lengths["completion"] = _numbers([sum(row) for side in sides for row in masks[side]])
    return Preview(name, shown, lengths, max_length, report)


def _runs(ids: list[int], mask: list[bool], tokenizer: Any) -> list[tuple[str, bool]]:
    runs = []
    for trained, group in groupby(zip(ids, mask, strict=True), key=lambda pair: bool(pair[1])):
        text = tokenizer.decode([token for token, _ in group], skip_special_tokens=False)
        runs.append((text, trained))
    return runs


def _numbers(lengths: list[int]) -> dict[str, float]:
    values = np.asarray(lengths)
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        "max": float(values.max()),
    }
