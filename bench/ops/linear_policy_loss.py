"""PPO's clipped policy loss and its gradients from hidden states, all tokens live or three tenths without a say.

The floor is three bare products over all rows. A token without a coefficient (advantage 0, or clipped) needs none of
the work behind it, so the last two jobs may go below the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec

import torch
from torch import Tensor

from bench.head import (
    SHAPE_LETTERS,
    HeadCase,
    HeadInputs,
    Result,
    combinations,
    floor_provider,
    truth_gradients,
    truth_logprobs,
)
from bench.head_peers import COMPILED, EAGER, LogprobFunction, compiled, eager_logprobs, left_out, trl_logprobs
from bench.measure import Provider, our_provider
from bench.request import Request
from rlsft_kernels import linear_logprob, policy_value_loss

__all__ = ["SHAPE_LETTERS", "cases"]

CLIP = 0.2
TOKENS_A_SEQUENCE = 64
JOBS = {
    "live": "every token live",
    "known": "30 % of the tokens have advantage 0: known before the forward",
    "ratio": "30 % of the tokens are clipped: known only by their ratio",
}
PolicyLoss = Callable[[Tensor, Tensor], Tensor]  # (hidden, weight) -> loss


@dataclass(frozen=True, eq=False)
class PolicyInputs:
    """What the policy update knows of its tokens."""

    head: HeadInputs
    advantages: Tensor  # [S], one a sequence, as in GRPO
    old_logprobs: Tensor  # [N] float32
    coefficients: Tensor  # [N] float64: gradient of the loss by the log-probabilities

    @property
    def sequences(self) -> int:
        return len(self.advantages)

    @property
    def per_token(self) -> Tensor:  # [N]
        return self.advantages.repeat_interleave(len(self.old_logprobs) // self.sequences)


@lru_cache(maxsize=1)
def policy_inputs(head: HeadInputs, job: str) -> PolicyInputs:
    """Ratios far from the edge of the clip range, so that rounding moves no token across it."""
    N = len(head.targets)
    device = head.targets.device
    sequences = max(1, N // TOKENS_A_SEQUENCE) if N % TOKENS_A_SEQUENCE == 0 else 1
    g = torch.Generator().manual_seed(1)
    advantages = torch.randn(sequences, generator=g)
    if job == "known":
        advantages[torch.randperm(sequences, generator=g)[: round(0.3 * sequences)]] = 0
    tokens = advantages.repeat_interleave(N // sequences)
    shift = (torch.rand(N, generator=g) - 0.5) * 0.1
    clipped = torch.rand(N, generator=g) < 0.3 if job == "ratio" else torch.zeros(N, dtype=torch.bool)
    shift = torch.where(clipped, 0.5 * tokens.sign(), shift).to(device)
    advantages, tokens, clipped = advantages.to(device), tokens.to(device), clipped.to(device)
    exact = truth_logprobs(head)
    old = (exact - shift).float()
    coefficients = torch.where(clipped, 0, -tokens.double() * (exact - old).exp() / N)
    return PolicyInputs(head, advantages, old, coefficients)


def cases(*, request: Request) -> Iterator[HeadCase]:
    """The dense job at every shape; the two sparse ones with ours, the floor and eager."""
    for inputs, dtype, threads, wanted in combinations(request):
        for job in JOBS:
            yield policy_case(inputs, dtype, threads, wanted, job)


def policy_case(head: HeadInputs, dtype: str, threads: int, request: Request, job: str) -> HeadCase:
    """Everybody's way to the same loss."""
    inputs = policy_inputs(head, job)
    floor = floor_provider(head, dtype, 3, threads)
    slow = head.takes_seconds
    run = partial(both_passes, head, dtype)
    settings = {"drop_idle": True} if job == "known" else {}
    ours = partial(
        our_provider,
        "linear_policy_loss",
        lambda op: run(partial(fused, partial(op, **settings), inputs)),
        threads=threads,
    )
    listed = [ours(), ours(backend="reference", slow=slow), floor]
    listed += everybody(inputs, dtype, threads, request) if job == "live" else []
    listed.append(
        Provider(EAGER, partial(run, from_logprobs(inputs, eager_logprobs)), threads=threads, package="torch")
    )
    listed = [provider for provider in listed if request.wants(provider.name)]
    truth = partial(truth_of, inputs)
    return HeadCase(
        "linear_policy_loss", head, dtype, f"forward and backward, {JOBS[job]}", truth, listed, floor.name, 3
    )


def everybody(inputs: PolicyInputs, dtype: str, threads: int, request: Request) -> list[Provider]:
    """Two of our ops one after the other, and the peers."""
    run, slow = partial(both_passes, inputs.head, dtype), inputs.head.takes_seconds
    liger = None if find_spec("liger_kernel") else "not installed (requirements/bench-no-deps.txt)"
    trl = None if find_spec("trl") else "not installed (pip install 'rlsft[test]')"
    eager = compiled(from_logprobs(inputs, eager_logprobs))
    make = partial(Provider, threads=threads)
    by_trl = make("TRL ChunkedLogProbFunction", partial(run, from_logprobs(inputs, trl_logprobs)), unavailable=trl)
    by_liger = make("Liger GRPO loss (torch)", partial(run, partial(liger_loss, inputs)), unavailable=liger)
    for peer, package in ((by_trl, "trl"), (by_liger, "liger-kernel")):
        peer.slow, peer.package = slow, None if peer.unavailable else package
    return [
        make("rlsft linear_logprob + loss", partial(run, partial(separate, inputs))),
        make(COMPILED, partial(run, eager), package="torch", unavailable=left_out(request)),
        by_trl,
        by_liger,
        make("F.linear_cross_entropy", list, unavailable="has no weight a token: cannot express the loss in one call"),
    ]


def fused(op: Callable[..., tuple[Tensor, dict[str, Tensor]]], inputs: PolicyInputs, *leaves: Tensor) -> Tensor:
    """The op under test."""
    clip = {"clip_low": CLIP, "clip_high": CLIP}
    return op(*leaves, inputs.head.targets, inputs.per_token, inputs.old_logprobs, **clip)[0]


def separate(inputs: PolicyInputs, hidden: Tensor, weight: Tensor) -> Tensor:
    """Log-probabilities, then their loss: four products."""
    logprob = linear_logprob(hidden, weight, inputs.head.targets).logprob
    mask = torch.ones_like(inputs.head.targets, dtype=torch.bool)
    return policy_value_loss(logprob, inputs.old_logprobs, inputs.per_token, None, None, None, mask)[0]


def from_logprobs(inputs: PolicyInputs, function: LogprobFunction) -> PolicyLoss:
    """The loss as TRL and verl write it, on anybody's log-probabilities."""

    def loss(hidden: Tensor, weight: Tensor) -> Tensor:
        advantages = inputs.per_token
        ratio = (function(hidden, weight, inputs.head.targets) - inputs.old_logprobs).exp()
        return -torch.minimum(advantages * ratio, advantages * ratio.clamp(1 - CLIP, 1 + CLIP)).mean()

    return loss


def liger_loss(inputs: PolicyInputs, hidden: Tensor, weight: Tensor) -> Tensor:
    """Liger's chunked loss in one chunk of sequences, which it works off in blocks of 2048 rows and 4096 tokens."""
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    S = inputs.sequences
    loss = LigerFusedLinearGRPOLoss(beta=0.0, compiled=False, use_ref_model=False, chunk_size=S, loss_type="dapo")
    tokens, old = inputs.head.targets.view(S, -1), inputs.old_logprobs.view(S, -1)
    hidden = hidden.view(S, -1, hidden.shape[-1])
    mask = torch.ones_like(tokens)
    return loss(hidden, weight, tokens, mask, inputs.advantages, old_per_token_logps=old)[0]


def both_passes(head: HeadInputs, dtype: str, function: PolicyLoss) -> Result:
    """The loss and its gradients."""
    leaves = head.leaves(dtype)
    loss = function(*leaves)
    hidden, weight = torch.autograd.grad(loss, leaves)
    return {"hidden": hidden, "weight": weight}


def truth_of(inputs: PolicyInputs) -> Result:
    """Gradients in float64. The loss is near 0, a difference of large numbers, and no relative error is fair to it."""
    return truth_gradients(inputs.head, inputs.coefficients)
