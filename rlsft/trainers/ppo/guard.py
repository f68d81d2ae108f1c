"""The checks of PPO that stop a run, or a step of it, before it goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlsft.errors import RunError

logger = logging.getLogger(__name__)

# Same rows, same shapes and no dropout give a gap of exactly 0 on a CPU; other shapes and kernels round differently.
MAX_GAP = {torch.float32: 1e-3, torch.float64: 1e-6}
MAX_GAP_LOW_PRECISION = 0.25


def check_same_policy(what: str, logprobs: Tensor, others: Tensor, mask: Tensor, dtype: torch.dtype) -> None:
    """Before the first update two computations of the same log-probabilities must agree.

    Args:
        what: "ratio" or "kl", for the message.
        logprobs: [S, T].
        others: [S, T].
        mask: [S, T] bool.
        dtype: in which the policy computes.

    Raises:
        RunError: they do not; names the likely causes.
    """
    gap = float(torch.where(mask, (logprobs - others).abs(), 0.0).max())
    if gap <= MAX_GAP.get(dtype, MAX_GAP_LOW_PRECISION):
        return
    claim = {
        "ratio": "the probability ratio must be 1: training and scoring see the same weights",
        "kl": "the KL to the reference must be 0: policy and reference are the same weights",
    }[what]
    raise RunError(
        f"before the first update {claim}, but log-probabilities differ by up to {gap:.3g}. Likely causes: dropout "
        "that disable_dropout does not know, a model whose output is not a function of its input (random routing), "
        "or one that changes between train and eval mode."
    )


class RatioGuard(TrainerCallback):
    """Skip, and count, an optimizer step whose mean probability ratio went over a threshold.

    Args:
        mean_ratio: gives the mean over all action tokens of the step, of all ranks.
        threshold: the limit; None never skips.
    """

    def __init__(self, mean_ratio: Callable[[], float], threshold: float | None):
        self.mean_ratio = mean_ratio
        self.threshold = threshold
        self.skipped = 0

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        if self.threshold is None:
            return
        ratio = self.mean_ratio()
        if ratio > self.threshold:
            model.zero_grad(set_to_none=True)
            self.skipped += 1
            logger.warning(
                "step %d skipped: the mean probability ratio is %.3g, above ratio_threshold=%g (%d skipped so far). "
                "Lower learning_rate or num_ppo_epochs.",
                state.global_step + 1,
                ratio,
                self.threshold,
                self.skipped,
            )
