"""What the paper claims, each claim a paired difference over seeds with a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.replicate.intervals import Interval, interval, paired
from bench.replicate.rows import Row

NAMES = {
    "start": "start", "sft_steps": "SFT, equal steps", "sft_tokens": "SFT, equal tokens", "spin": "SPIN = IRFT T = 1",
    "irft_2": "IRFT T = 2", "irft_5": "IRFT T = 5", "irft_2_sft": "IRFT T = 2 + SFT term",
    "dpo": "DPO on SPIN's pairs (TRL)",
    "rft": "RFT, weighted SFT", "rft_ppo": "RFT, PPO",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where a claim is tried: an experiment under one condition."""

    title: str
    short: str
    facts: Mapping[str, object]
    metric: str  # what it is judged by first: the number nearest to what its user wants

    def metric_of(self, rows: Sequence[Row]) -> str:
        """Answers that were not judged are compared by the likelihood of people's replies."""
        return self.metric if any(self.metric in row for row in self.rows(rows)) else "loglik"

    def rows(self, rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if all(row.get(name) == value for name, value in self.facts.items())]


REGIMES = {"early": "an undertrained start", "late": "a start trained longer"}
SORTING = [
    Place(
        f"Sorting from {start}, {bad:.0%} of the demonstrations bad".replace("%", " %"),
        f"sorting, {regime}, {100 * bad:.0f} % bad", {"task": "sorting", "regime": regime, "bad": bad}, "reward",
    )
    for regime, start in REGIMES.items()
    for bad in (0.0, 0.2, 0.4)
]  # fmt: skip
DIALOGUES = [
    Place("Dialogues, small model from scratch", "dialogues", {"task": "dialogues"}, "win_rate"),
    Place("Dialogues, SmolLM2-135M with LoRA", "SmolLM2", {"task": "smollm2"}, "win_rate"),
]
PLACES = [*SORTING, *DIALOGUES]


@dataclass(frozen=True, eq=False)
class Claim:
    """`method` is better than `control`."""

    text: str
    method: str
    control: str
    metric: str | None = None  # None: the place's own


CLAIMS = (
    Claim("SPIN beats SFT", "spin", "sft_steps"),
    Claim("IRFT with T = 2 beats SFT", "irft_2", "sft_steps"),
    Claim("IRFT with T = 5 beats SFT", "irft_5", "sft_steps"),
    Claim("… also SFT on as many tokens", "irft_5", "sft_tokens"),
    Claim("More rounds are better: T = 2 beats T = 1", "irft_2", "spin"),
    Claim("More rounds are better: T = 5 beats T = 1", "irft_5", "spin"),
    Claim("IRFT with T = 2 and an SFT term beats SFT", "irft_2_sft", "sft_steps"),
    Claim("… also SFT on as many tokens", "irft_2_sft", "sft_tokens"),
    Claim("RFT (weighted SFT) beats SFT", "rft", "sft_steps"),
    Claim("… also SFT on as many tokens", "rft", "sft_tokens"),
    Claim("RFT (PPO) beats SFT", "rft_ppo", "sft_steps"),
    Claim("… also SFT on as many tokens", "rft_ppo", "sft_tokens"),
    Claim("Figure 1: SPIN widens the gap of right and wrong answers beyond SFT", "spin", "sft_steps", "gap"),
    Claim("Figure 1: IRFT with T = 2 does", "irft_2", "sft_steps", "gap"),
    Claim("Figure 1: IRFT with T = 5 does", "irft_5", "sft_steps", "gap"),
)
ROBUST = ("sft_tokens", "spin", "irft_2", "irft_5", "irft_2_sft", "dpo", "rft", "rft_ppo")


def verdict(difference: Interval) -> str:
    """held: the whole interval lies above 0; did not hold: it lies below; undecided: it contains 0, or one seed."""
    if difference.count < 2 or not difference.excludes_zero:
        return "undecided"
    return "held" if difference.low > 0 else "did not hold"


def difference_of(rows: Sequence[Row], metric: str, method: str, control: str) -> Interval | None:
    """Of `method - control`, seed by seed; None where a side is missing."""
    usable = [row for row in rows if metric in row and math.isfinite(row[metric])]
    seeds = [{row["seed"] for row in usable if row["method"] == name} for name in (method, control)]
    return paired(usable, metric, method, control) if seeds[0] & seeds[1] else None


def mean_of(rows: Sequence[Row], metric: str, method: str) -> Interval | None:
    """Over the seeds of a method; None where there is no row."""
    values = [row[metric] for row in rows if row["method"] == method and metric in row]
    return interval(values) if values else None


def robustness(rows: Sequence[Row], regime: str, method: str, bad: float) -> Interval | None:
    """How much more the method gains over SFT when a share of the demonstrations is bad than when none is."""
    gains: list[dict[int, float]] = []
    for share in (bad, 0.0):
        by_seed = {
            (row["method"], row["seed"]): row["reward"]
            for row in rows
            if (row["task"], row.get("regime"), row.get("bad")) == ("sorting", regime, share)
        }
        seeds = [seed for name, seed in by_seed if name == method and ("sft_steps", seed) in by_seed]
        gains.append({seed: by_seed[method, seed] - by_seed["sft_steps", seed] for seed in seeds})
    common = sorted(gains[0].keys() & gains[1].keys())
    return interval([gains[0][seed] - gains[1][seed] for seed in common]) if common else None


def robust_verdict(rows: Sequence[Row], regime: str, method: str, bad: float) -> str:
    """held: with bad demonstrations the method beats SFT, by more than without; did not hold: it is below SFT there."""
    place = [row for row in rows if (row["task"], row.get("regime"), row.get("bad")) == ("sorting", regime, bad)]
    there = difference_of(place, "reward", method, "sft_steps")
    more = robustness(rows, regime, method, bad)
    if there is None or more is None or verdict(there) == "undecided":
        return "undecided"
    return verdict(more) if verdict(there) == "held" else "did not hold"
