"""Progress with the time left for work that is not a trainer's loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_SECONDS = 15.0


class Meter:
    """Counts finished units; `advance` moves the bar, or prints a line now and then where there is no terminal."""

    def __init__(self, label: str, total: int, console: Console, bar: Progress | None) -> None:
        self.label, self.total, self.console, self.bar = label, total, console, bar
        self.done = 0
        self._task = bar.add_task(label, total=total) if bar else None
        self._start = self._last = time.monotonic()
        self._skipped = 0

    def advance(self, count: int = 1, *, skipped: bool = False) -> None:
        """`skipped` units were there before this process started and say nothing about its speed."""
        self.done += count
        self._skipped += count if skipped else 0
        if self.bar is not None and self._task is not None:
            self.bar.advance(self._task, count)
            return
        now = time.monotonic()
        if now - self._last >= LINE_EVERY_SECONDS and self.done > self._skipped:
            self._last = now
            left = (now - self._start) / (self.done - self._skipped) * (self.total - self.done)
            self.console.print(f"{self.label}: {self.done}/{self.total}, about {left:.0f} s left", highlight=False)


@contextmanager
def meter(label: str, total: int, *, show: bool | None = None, console: Console | None = None) -> Iterator[Meter]:
    """A progress meter on standard error: a bar on a terminal, a line every 15 s otherwise; `show=False`: silent."""
    console = console or Console(stderr=True, quiet=show is False)
    if not console.is_terminal or show is False:
        yield Meter(label, total, console, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield Meter(label, total, console, bar)
