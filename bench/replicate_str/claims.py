"""The claims of the paper and of this project, each a paired difference over seeds with a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.replicate.intervals import Interval, interval, paired
from bench.replicate.rows import Row

# what a task is judged by, first the number nearest to what its user wants
MAIN: dict[str, tuple[str, ...]] = {
    "sorting": ("true_reward",),
    "wordnet": ("meteor",),
    "dialogues": ("win_rate", "meteor"),
    "smollm2": ("win_rate", "meteor"),
}


@dataclass(frozen=True, eq=False)
class Claim:
    """`method` is better than `control` by more than `least`."""

    text: str
    method: str
    control: str
    source: str  # who says so
    least: float = 0.0
    metrics: Mapping[str, tuple[str, ...]] | None = None  # per task; None = the main ones


LARGE = {"smollm2": ("win_rate", "meteor")}  # there fine-tuning is LoRA and called sft
CLAIMS = (
    Claim("STR with noise beats fine-tuning with LoRA", "str_noise", "sft", "paper", metrics=LARGE),
    Claim("STR with our ranker beats fine-tuning with LoRA", "str_ours", "sft", "project", metrics=LARGE),
    Claim("STR with noise beats full fine-tuning", "str_noise", "full", "paper"),
    Claim("STR without noise beats full fine-tuning", "str", "full", "paper"),
    Claim("STR with noise beats LoRA", "str_noise", "lora", "paper"),
    Claim("STR with noise beats adapters", "str_noise", "adapter", "paper"),
    Claim("STR with noise beats BitFit", "str_noise", "bitfit", "paper"),
    Claim("Noise helps STR", "str_noise", "str", "paper"),
    Claim("ISODATA helps STR", "str_noise", "str_no_isodata", "paper"),
    Claim("STR with noise beats as many more steps of fine-tuning", "str_noise", "full_more", "control"),
    Claim("STR with our ranker beats full fine-tuning", "str_ours", "full", "project"),
    Claim("STR with our ranker beats STR with the paper's", "str_ours", "str_noise", "project"),
    Claim(
        "… by at least 3 points of win rate",
        "str_ours",
        "str_noise",
        "project",
        least=3.0,
        metrics={"dialogues": ("win_rate",), "smollm2": ("win_rate",)},
    ),
    Claim("STR with our ranker beats as many more steps of fine-tuning", "str_ours", "full_more", "control"),
    Claim("Critic-free STR beats full fine-tuning", "str_rloo", "full", "project"),
    Claim("Critic-free STR beats STR with our ranker", "str_rloo", "str_ours", "project"),
    Claim("Critic-free STR beats as many more steps of fine-tuning", "str_rloo", "full_more", "control"),
)


@dataclass(frozen=True)
class Verdict:
    """A claim on one task."""

    claim: Claim
    task: str
    metric: str
    difference: Interval

    @property
    def word(self) -> str:
        """held: the whole interval lies above; did not hold: it lies below; undecided: it does not say."""
        if self.difference.mean == self.difference.half == 0:
            return "no difference at all"
        if self.difference.count < 2:
            return "undecided"
        if self.difference.low > self.claim.least:
            return "held"
        return "did not hold" if self.difference.high < self.claim.least else "undecided"


def verdicts_of(rows: Sequence[Row], claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """Every claim on every task that has rows of both methods."""
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        for claim in claims:
            for metric in (claim.metrics or MAIN).get(task, ()):
                difference = difference_of(rows, task, metric, claim.method, claim.control)
                if difference is not None:
                    found.append(Verdict(claim, task, metric, difference))
    return found


def difference_of(rows: Sequence[Row], task: str, metric: str, method: str, control: str) -> Interval | None:
    """Of `method - control`, seed by seed; None where a side is missing."""
    usable = [row for row in rows if row["task"] == task and metric in row and math.isfinite(row[metric])]
    seeds = [{row["seed"] for row in usable if row["method"] == name} for name in (method, control)]
    return paired(usable, metric, method, control) if seeds[0] & seeds[1] else None


def mean_of(rows: Sequence[Row], task: str, metric: str, method: str) -> Interval | None:
    """Over the seeds of a method; None where there is no row."""
    values = [row[metric] for row in rows if (row["task"], row["method"]) == (task, method) and metric in row]
    return interval(values) if values else None
