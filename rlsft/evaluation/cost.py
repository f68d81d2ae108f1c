"""Time, tokens, labels avoided and money: what a run took, at the user's own prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlsft.errors import ConfigError

STAGES = ("sft", "samples", "ranked", "reward", "ppo", "evaluation")


@dataclass(frozen=True)
class Prices:
    """The user's own prices; None = not given, and then no amount is shown."""

    per_hour: float | None = None  # of the machine
    per_label: float | None = None  # of one human judgement of a pair
    currency: str = "USD"

    def __post_init__(self) -> None:
        for name in ("per_hour", "per_label"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"price_{name} must be at least 0 {self.currency}, got {value}")

    def amount(self, value: float) -> str:
        """`USD 1.23`, with four decimals below one cent."""
        return f"{self.currency} {value:,.4f}" if 0 < value < 0.01 else f"{self.currency} {value:,.2f}"


@dataclass(frozen=True)
class StageCost:
    """One line of the table of stages, as text."""

    name: str
    time: str
    tokens: str
    speed: str
    cost: str
    is_total: bool = False


def stage_costs(seconds: Mapping[str, Any], tokens: Mapping[str, Any], prices: Prices) -> list[StageCost]:
    """A line a stage in the order they run, and their total; empty without times."""
    known = {name: float(value) for name, value in seconds.items() if isinstance(value, (int, float))}
    if not known:
        return []
    order = [name for name in STAGES if name in known] + [name for name in known if name not in STAGES]
    counts = {name: int(tokens.get(name) or 0) for name in order}
    lines = [_line(name, known[name], counts[name], prices) for name in order]
    return [*lines, _line("all", sum(known.values()), sum(counts.values()), prices, is_total=True)]


def cost_notes(total_seconds: float, num_pairs: int | None, num_noisy: int, prices: Prices) -> list[str]:
    """Sentences on labels avoided and on what both would have cost."""
    notes = []
    if num_pairs is not None:
        natural = num_pairs - num_noisy
        added = f" ({num_noisy:,} further pairs hold added noise and would need none)" if num_noisy else ""
        notes.append(f"{natural:,} ranked pairs would each have needed a human label{added}.")
        if prices.per_label is not None:
            saved = prices.amount(natural * prices.per_label)
            notes.append(f"At {prices.amount(prices.per_label)} a label that is {saved} not spent on labels.")
    if prices.per_hour is not None and total_seconds > 0:
        spent = prices.amount(total_seconds / 3600 * prices.per_hour)
        notes.append(f"At {prices.amount(prices.per_hour)} an hour the machine cost {spent}.")
    if prices.per_hour is None or prices.per_label is None:
        notes.append("Give price_per_hour and price_per_label to see amounts: prices are yours, none is assumed.")
    return notes


def duration(seconds: float) -> str:
    """`1 h 02 min`, `3 min 05 s` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _line(name: str, seconds: float, tokens: int, prices: Prices, *, is_total: bool = False) -> StageCost:
    return StageCost(
        name=name,
        time=duration(seconds),
        tokens=f"{tokens:,}" if tokens else "–",
        speed=f"{tokens / seconds:,.0f}" if tokens and seconds > 0 and not is_total else "–",
        cost=prices.amount(seconds / 3600 * prices.per_hour) if prices.per_hour is not None else "–",
        is_total=is_total,
    )
