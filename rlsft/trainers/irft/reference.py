"""Log-probabilities of whole answers, under the policy and under the reference of a round."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from rlsft.models import completion_logprobs, evaluation_mode, without_adapter
from rlsft.trainers.irft.config import IRFTConfig
from rlsft.trainers.ppo.reference import is_fresh_adapter


def answer_logprobs(
    model: nn.Module, batch: Mapping[str, Tensor], *, temperature: float = 1.0, memory_budget: int = 0
) -> Tensor:
    """Summed log-probability `[2P]` of the answers of a batch, differentiable; float32, float64 for a float64 model.

    One forward for both sides; only the answers' tokens meet the head, and no logits are kept beyond the budget.
    """
    scored = completion_logprobs(
        model, batch["input_ids"], batch["attention_mask"], batch["completion_mask"],
        temperature=temperature, memory_budget=memory_budget,
    )  # fmt: skip
    assert scored.logprob is not None
    # added up in float64: padding behind an answer must not move the sum
    return scored.logprob.double().sum(dim=1).to(scored.logprob.dtype)


class Reference:
    """The policy that log-ratios are measured to.

    "previous" is the policy itself at the moment of scoring: as a round begins that is the round's generator, and no
    weights are copied. "initial" is the policy as it was when this object was built: below a fresh adapter, or a frozen
    copy. A single round whose pairs are all scored as it begins needs no copy: then the two are the same.

    Args:
        policy: as training begins.
        args: settings.
    """

    def __init__(self, policy: nn.Module, args: IRFTConfig):
        self.policy = policy
        self.is_initial = args.reference == "initial" and not _scores_once(args)
        self.below_adapter = self.is_initial and is_fresh_adapter(policy)
        needs_copy = self.is_initial and not self.below_adapter
        self.copy = copy.deepcopy(policy).eval().requires_grad_(False) if needs_copy else None

    @contextlib.contextmanager
    def _active(self) -> Iterator[nn.Module]:
        if self.copy is not None:
            self.copy.to(next(self.policy.parameters()).device)
            yield self.copy
        elif self.below_adapter:
            with without_adapter(self.policy):
                yield self.policy
        else:
            yield self.policy

    @torch.no_grad()
    def logprobs(self, batch: Mapping[str, Tensor], *, temperature: float = 1.0) -> Tensor:
        """`answer_logprobs` under the reference."""
        with self._active() as model, evaluation_mode(model):
            return answer_logprobs(model, batch, temperature=temperature)


def _scores_once(args: IRFTConfig) -> bool:
    """Whether every pair is scored before the first step."""
    return args.rounds == 1 and args.refresh in ("full", "shards", "none")
