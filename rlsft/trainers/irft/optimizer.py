"""An optimizer and a learning rate that begin anew with every round."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from rlsft.errors import ConfigError
from rlsft.trainers.irft.config import IRFTConfig


def schedule_per_round(optimizer: torch.optim.Optimizer, args: IRFTConfig, round_lengths: Sequence[int]) -> LambdaLR:
    """The schedule of `args`, warm-up included, once for each round.

    Raises:
        ConfigError: a schedule that is no function of the step.
    """
    by_length = {length: _factor_of(args, length) for length in set(round_lengths)}
    starts = [0, *accumulate(round_lengths)][:-1]

    def factor(step: int) -> float:
        number = bisect_right(starts, step) - 1
        return by_length[round_lengths[number]](step - starts[number])

    return LambdaLR(optimizer, factor)


def _factor_of(args: IRFTConfig, num_steps: int) -> Callable[[int], float]:
    stand_in = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = get_scheduler(
        args.lr_scheduler_type,
        optimizer=stand_in,
        num_warmup_steps=args.get_warmup_steps(num_steps),
        num_training_steps=num_steps,
        scheduler_specific_kwargs=args.lr_scheduler_kwargs,
    )
    if not isinstance(schedule, LambdaLR):
        raise ConfigError(
            f"lr_scheduler_type={args.lr_scheduler_type!s} depends on more than the step, so it cannot begin anew with "
            "every round; set optimizer_per_round='carry', or take linear, cosine or constant_with_warmup"
        )
    return schedule.lr_lambdas[0]


def forget(optimizer: Any) -> None:
    """Empty the state of an optimizer (moments, step counts), inside accelerate's wrapper too."""
    getattr(optimizer, "optimizer", optimizer).state.clear()
