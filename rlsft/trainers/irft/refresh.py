"""When answers are drawn anew, and for which prompts: functions of the seed and the counters, without state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from rlsft.errors import ConfigError
from rlsft.trainers.irft.config import IRFTConfig

_SHARDS, _WINDOW, _REDRAW = 11, 12, 13  # which of the independent random streams


@dataclass(frozen=True)
class StepSignal:
    """What one optimizer step says about how far the policy is from the generator; over all ranks."""

    accuracy: float  # share of the pairs whose demonstration has the higher log-ratio
    kl: float  # nats an answer; NaN where it is unknown


class Refresh(Protocol):
    """A schedule of drawing. Rounds and steps count from 0."""

    @property
    def draws_ahead(self) -> bool:
        """Whether a round's answers are drawn as it begins, not step by step."""
        ...

    @property
    def has_fixed_rounds(self) -> bool:
        """Whether a round takes its planned steps, no fewer and no more."""
        ...

    def prompts(self, round_number: int) -> list[int]:
        """Rows of the data whose answers the round learns from."""
        ...

    def redraws(self, step: int) -> bool:
        """Whether global step `step` draws all of its answers anew."""
        ...

    def is_due(self, signals: Sequence[StepSignal]) -> bool:
        """Whether a new round should begin now, given the steps of this one so far (the newest window of them)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Full:
    """All prompts in each round, or the next window of `limit` of them in one shuffled pass after another."""

    seed: int
    num_prompts: int
    limit: int | None = None
    draws_ahead: bool = True
    has_fixed_rounds: bool = True

    def prompts(self, round_number: int) -> list[int]:
        if self.limit is None or self.limit >= self.num_prompts:
            return list(range(self.num_prompts))
        turn, offset = divmod(round_number * self.limit, self.num_prompts)
        places: list[int] = []
        while len(places) < offset + self.limit:
            places += np.random.default_rng([self.seed, _WINDOW, turn]).permutation(self.num_prompts).tolist()
            turn += 1
        return places[offset : offset + self.limit]

    def redraws(self, step: int) -> bool:
        return False

    def is_due(self, signals: Sequence[StepSignal]) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class Shards(Full):
    """The data in `rounds` disjoint parts, one a round: every prompt is answered once in the run."""

    rounds: int

    def prompts(self, round_number: int) -> list[int]:
        order = np.random.default_rng([self.seed, _SHARDS]).permutation(self.num_prompts)
        return np.array_split(order, self.rounds)[round_number][: self.limit].tolist()


@dataclass(frozen=True, kw_only=True)
class PerStep(Full):
    """A step draws its answers anew with a probability; a prompt without an answer yet is answered anyway."""

    probability: float
    draws_ahead: bool = False

    def redraws(self, step: int) -> bool:
        return bool(np.random.default_rng([self.seed, _REDRAW, step]).random() < self.probability)


@dataclass(frozen=True, kw_only=True)
class Adaptive(Full):
    """A new round once the policy has left its generator: by KL, or because the reward tells nearly all pairs apart."""

    kl: float
    accuracy: float
    window: int
    has_fixed_rounds: bool = False

    def is_due(self, signals: Sequence[StepSignal]) -> bool:
        if len(signals) < self.window:
            return False
        newest = signals[-self.window :]
        mean_accuracy = sum(signal.accuracy for signal in newest) / self.window
        mean_kl = sum(signal.kl for signal in newest) / self.window
        return mean_accuracy > self.accuracy or (math.isfinite(mean_kl) and mean_kl > self.kl)


def refresh_of(args: IRFTConfig, num_prompts: int) -> Refresh:
    """The schedule that `args` asks for on `num_prompts` prompts.

    Raises:
        ConfigError: more shards than prompts.
    """
    limit = args.prompts_per_round
    if limit is None and args.steps_per_round is not None and args.refresh not in ("none", "adaptive"):
        limit = -(-args.steps_per_round * args.pairs_per_step // args.samples_per_prompt)  # no draw is for nothing
    common: dict[str, Any] = {"seed": args.seed, "num_prompts": num_prompts, "limit": limit}
    match args.refresh:
        case "shards":
            if args.rounds > num_prompts:
                raise ConfigError(
                    f"rounds={args.rounds} shards cannot be cut from {num_prompts} demonstrations; lower rounds, or "
                    "take refresh='full'"
                )
            return Shards(**common, rounds=args.rounds)
        case "per_step":
            return PerStep(**common, probability=args.refresh_probability)
        case "adaptive":
            window = args.adaptive_window
            return Adaptive(**common, kl=args.adaptive_kl, accuracy=args.adaptive_accuracy, window=window)
    return Full(**common)
