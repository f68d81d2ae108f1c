"""Which prompts an iteration answers and which answers a step learns from: functions of the seed and the counters.

Nothing here has state, so a run that is resumed anywhere continues with the very rows it would have seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlsft.trainers.ppo.config import PPOConfig

_PROMPTS, _ROWS = 1, 2  # which of the independent random streams


@dataclass(frozen=True, kw_only=True)
class PPOSchedule:
    """The order of a run. An iteration has `steps_per_iteration` optimizer steps; counters start at 0."""

    seed: int
    num_prompts: int
    prompts_per_iteration: int  # over all ranks
    num_mini_batches: int
    steps_per_iteration: int
    rows: int  # answers an iteration on this rank
    micro_batch_size: int
    num_iterations: int

    @classmethod
    def of(cls, args: PPOConfig, num_prompts: int) -> PPOSchedule:
        """The schedule that `args` asks for on a training set of `num_prompts` prompts."""
        assert args.rollout_batch_size is not None
        episodes = args.total_episodes or math.ceil(args.num_train_epochs * num_prompts * args.samples_per_prompt)
        return cls(
            seed=args.seed,
            num_prompts=num_prompts,
            prompts_per_iteration=args.rollout_batch_size // args.samples_per_prompt,
            num_mini_batches=args.num_mini_batches,
            steps_per_iteration=args.steps_per_iteration,
            rows=args.local_batch_size,
            micro_batch_size=args.per_device_train_batch_size,
            num_iterations=math.ceil(episodes / args.rollout_batch_size),
        )

    @property
    def max_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.num_iterations * self.steps_per_iteration

    @property
    def iterations_per_epoch(self) -> int:
        """Iterations in which every prompt is answered about once."""
        return max(1, math.ceil(self.num_prompts / self.prompts_per_iteration))

    def prompt_indices(self, iteration: int) -> list[int]:
        """Prompts of an iteration over all ranks: a window of one shuffled pass after another."""
        first = iteration * self.prompts_per_iteration
        turn, offset = divmod(first, self.num_prompts)
        places: list[int] = []
        while len(places) < offset + self.prompts_per_iteration:
            places += np.random.default_rng([self.seed, _PROMPTS, turn]).permutation(self.num_prompts).tolist()
            turn += 1
        return places[offset : offset + self.prompts_per_iteration]

    def micro_batches(self, iteration: int, step: int) -> list[Tensor]:
        """Rows of this rank that optimizer step `step` of the iteration learns from, in micro-batches.

        The rows of a step do not depend on the size of the micro-batches.
        """
        epoch, part = divmod(step, self.num_mini_batches)
        order = np.random.default_rng([self.seed, _ROWS, iteration, epoch]).permutation(self.rows)
        size = self.rows // self.num_mini_batches
        rows = torch.from_numpy(order[part * size : (part + 1) * size].copy())
        return list(rows.split(self.micro_batch_size))

    def scoring_batches(self, iteration: int, size: int | None) -> list[Tensor]:
        """All rows in batches of `size`; None = the micro-batches of the first epoch.

        The same rows in the same shape give bit-equal log-probabilities, and so a first ratio of exactly 1.
        """
        if size is not None:
            return list(torch.arange(self.rows).split(size))
        return [rows for step in range(self.num_mini_batches) for rows in self.micro_batches(iteration, step)]
