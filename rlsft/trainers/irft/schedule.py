"""Which pairs an optimizer step learns from, how they are cut into micro-batches, and how long a round is.

Nothing here has state, so a run that is resumed anywhere goes on with the very rows it would have seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlsft.trainers.irft.config import IRFTConfig
from rlsft.trainers.irft.refresh import Refresh, refresh_of

_ORDER, _DRAWS = 21, 22  # random streams


@dataclass(frozen=True, kw_only=True)
class IRFTSchedule:
    """The order of a run. Pairs of a round are numbered: its own prompts first, each with its samples, then replays."""

    seed: int
    refresh: Refresh
    rounds: int
    pairs_per_step: int  # over all ranks
    samples_per_prompt: int
    epochs_per_round: float
    steps_per_round: int | None
    replay_rounds: int

    @classmethod
    def of(cls, args: IRFTConfig, num_prompts: int) -> IRFTSchedule:
        """The schedule that `args` asks for on `num_prompts` demonstrations.

        Raises:
            ConfigError: more shards than demonstrations.
        """
        return cls(
            seed=args.seed,
            refresh=refresh_of(args, num_prompts),
            rounds=args.rounds,
            pairs_per_step=args.pairs_per_step,
            samples_per_prompt=args.samples_per_prompt,
            epochs_per_round=args.epochs_per_round,
            steps_per_round=args.steps_per_round,
            replay_rounds=args.replay_rounds,
        )

    def num_pairs(self, round_number: int) -> int:
        """Pairs of a round, those of earlier rounds that it replays included."""
        rounds = range(max(0, round_number - self.replay_rounds), round_number + 1)
        return self.samples_per_prompt * sum(len(self.refresh.prompts(number)) for number in rounds)

    def steps_of_epoch(self, round_number: int) -> int:
        """Steps in which every pair of the round is seen once; the last one may have fewer pairs."""
        return -(-self.num_pairs(round_number) // self.pairs_per_step)

    def steps(self, round_number: int) -> int:
        """K, the planned optimizer steps of a round."""
        if self.steps_per_round is not None:
            return self.steps_per_round
        return max(1, math.ceil(self.epochs_per_round * self.steps_of_epoch(round_number)))

    def round_lengths(self) -> list[int]:
        """The planned steps of every round."""
        return [self.steps(number) for number in range(self.rounds)]

    @property
    def max_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return sum(self.round_lengths())

    def rows(self, round_number: int, step: int) -> list[int]:
        """Pairs that step `step` of the round learns from, over all ranks: the next ones of a shuffled pass."""
        epoch, part = divmod(step, self.steps_of_epoch(round_number))
        generator = np.random.default_rng([self.seed, _ORDER, round_number, epoch])
        order = generator.permutation(self.num_pairs(round_number))
        return order[part * self.pairs_per_step : (part + 1) * self.pairs_per_step].tolist()

    def first_pass(self, round_number: int) -> list[list[int]]:
        """The rows of the steps in which a round sees its pairs for the first time."""
        steps = self.steps_of_epoch(round_number)
        if self.refresh.has_fixed_rounds:
            steps = min(steps, self.steps(round_number))
        return [self.rows(round_number, step) for step in range(steps)]

    def draw_seed(self, round_number: int, step: int = -1) -> int:
        """Seed of the draws of a round, or of one step; round -1 is that of held-out prompts."""
        key = np.random.SeedSequence([self.seed, _DRAWS, round_number + 1, step + 1])
        return int(key.generate_state(1, np.uint64)[0] >> np.uint64(1))


def plan(args: IRFTConfig, num_prompts: int) -> str:
    """A line that says what a run on `num_prompts` demonstrations will draw and learn from."""
    schedule = IRFTSchedule.of(args, num_prompts)
    lengths = schedule.round_lengths()
    draws = [len(schedule.refresh.prompts(number)) * args.samples_per_prompt for number in range(args.rounds)]
    drawn = "no answers (given pairs)" if args.refresh == "none" else f"{_range(draws)} answers"
    return (
        f"{args.rounds} round(s), refresh={args.refresh}: {drawn} and {_range(lengths)} optimizer steps of "
        f"{schedule.pairs_per_step} pairs a round, {sum(lengths)} steps in all"
    )


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def micro_batches(rows: Sequence[int], lengths: Sequence[int], num_parts: int) -> list[list[int]]:
    """`rows` in `num_parts` parts of nearly equal size, long pairs with long ones, the longest first.

    Sorting saves padding; the longest first makes a step that does not fit in memory fail at once. A part may be empty.

    Args:
        rows: pairs of one optimizer step.
        lengths: tokens of the longer side of each of them.
        num_parts: micro-batches over all ranks.
    """
    order = sorted(range(len(rows)), key=lambda place: (-lengths[place], rows[place]))
    return [[rows[place] for place in part] for part in np.array_split(np.array(order, dtype=int), num_parts)]
