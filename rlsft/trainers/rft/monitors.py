"""What a round says about itself: is the reward right, did the policy follow it, how far did it go, where time went."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlsft.artifacts import append_jsonl, write_text

STAGE = "round"  # the word under `stage` in metrics.jsonl
KINDS = ("generation", "scoring", "training")
SATURATION = 0.5  # share of pairs that the reward is sure of, above which a round's reward loss is called solved


class Clock:
    """Wall seconds of a stage by kind of work."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(KINDS, 0.0)

    @contextlib.contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Add the seconds of the block to `kind`, less what was added to other kinds within it."""
        begun, before = time.perf_counter(), self.total
        try:
            yield
        finally:
            self.seconds[kind] += time.perf_counter() - begun - (self.total - before)

    def add(self, kind: str, seconds: float) -> None:
        """Seconds that were measured elsewhere."""
        self.seconds[kind] += seconds

    @property
    def total(self) -> float:
        """All seconds so far."""
        return sum(self.seconds.values())

    def rounded(self) -> dict[str, float]:
        """Plain numbers for done.json."""
        return {kind: round(self.seconds[kind], 3) for kind in KINDS}


def round_row(
    number: int, reward: Mapping[str, Any], policy: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The row of a round in metrics.jsonl and run.json.

    Args:
        number: of the round, from 1.
        reward: done.json of its reward.
        policy: done.json of its policy.
        parts: done.json of all its stages, for the times.
    """
    seconds = {kind: sum(part.get("seconds", {}).get(kind, 0.0) for part in parts) for kind in KINDS}
    total = sum(seconds.values())
    row: dict[str, Any] = {"stage": STAGE, "step": number}
    for ours, theirs in (
        ("reward/accuracy", "eval_accuracy"),
        ("reward/margin", "eval_margin"),
        ("reward/loss", "eval_loss"),
        ("reward/saturation", "eval_saturation"),
        ("reward/train_saturation", "train_saturation"),
        ("reward/preference_accuracy", "eval_preference_accuracy"),
    ):
        if reward.get(theirs) is not None:
            row[ours] = reward[theirs]
    for name in ("reward_before", "reward_after", "kl", "length", "effective_share"):
        if name in policy:
            row[f"policy/{name}"] = policy[name]
    row |= {f"seconds/{kind}": round(value, 2) for kind, value in seconds.items()}
    return row | {f"share/{kind}": round(value / total, 4) if total else 0.0 for kind, value in seconds.items()}


def write_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append the row of a round, in place of one that an earlier attempt left for it."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if not _is_same(line, row)]
        if len(kept) != len(lines):
            write_text(path, "".join(f"{line}\n" for line in kept))
    append_jsonl(path, dict(row))


def _is_same(line: str, row: Mapping[str, Any]) -> bool:
    try:
        other = json.loads(line)
    except json.JSONDecodeError:
        return True  # what a kill cut in two
    return (other.get("stage"), other.get("step")) == (row["stage"], row["step"])


def oscillation_warning(args: Any, saturation: float | None) -> str | None:
    """What to say where rounds are about to swing, or None.

    A solved logistic reward is `log(p_data / pi_t)`. With a fixed reference, an exact policy step then multiplies the
    distance to the fixed point `(pi_ref^beta p_data)^(1 / (1 + beta))` by `-1 / beta` (in logarithms): rounds converge
    for beta > 1 only, swing for ever at 1 and run away below, unless the reward sees the answers of earlier rounds too.
    """
    at_risk = (
        args.pair_loss == "logistic"
        and args.reference == "initial"
        and args.kl_coef <= 1
        and not args.accumulate_negatives
        and args.rounds > 1
    )
    if not at_risk or saturation is None or saturation <= SATURATION:
        return None
    factor = f"-1/beta = {-1 / args.kl_coef:.2g}" if args.kl_coef > 0 else "-1/beta, without bound at beta = 0"
    return (
        f"the reward is sure of {saturation:.0%} of its pairs (its loss is solved), and rounds with kl_coef (beta) "
        f"{args.kl_coef:g} to the initial policy multiply the distance to their fixed point by {factor}: the policy "
        "will swing from round to round or run away. Set accumulate_negatives=True (which converges for any beta), "
        "reference='previous', kl_coef above 1, or train the reward less (K: reward_num_train_epochs, sample_prompts)."
    )
