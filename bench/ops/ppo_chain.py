"""A whole PPO update of the head in one call: log-probabilities, KL-shaped rewards, advantages, policy and value loss.

Whitening needs the whole batch, so the gradient cannot be made in the first look at the logits. The floor is five bare
products: logits of the policy, of the reference, of the policy again, and two gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from bench.counts import counts_of
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
from bench.head_peers import COMPILED, EAGER, compiled, eager_logprobs, left_out
from bench.measure import Provider, our_provider
from bench.ops.kl_shaped_gae import python_loop
from bench.request import Request
from rlsft_kernels import kl_shaped_gae, linear_logprob, policy_value_loss
from rlsft_kernels.kl_shaped_gae.reference import kl_shaped_gae_reference

__all__ = ["SHAPE_LETTERS", "cases"]

TOKENS_A_SEQUENCE = 64
GAE: dict[str, Any] = {"kl_coef": 0.05, "gamma": 0.99, "lam": 0.95}
VF_COEF = 0.1
Chain = Callable[["ChainInputs", Tensor, Tensor, Tensor], Tensor]  # (inputs, hidden, weight, values) -> loss


class ChainCase(HeadCase):
    """Also counts what each provider asks of the framework."""

    def check(self, provider: Provider) -> str:
        """The error, and the counts."""
        error = super().check(provider)
        return error if provider.name == self.floor else f"{error}; {counts_of(provider)}"


@dataclass(frozen=True, eq=False)
class ChainInputs:
    """A batch of sampled answers after the reward model and the critic."""

    head: HeadInputs
    ref_hidden: Tensor  # [N, H] float32, rounded to bfloat16
    scores: Tensor  # [B]
    values: Tensor  # [B, T]
    mask: Tensor  # [B, T] bool

    def per_row(self, x: Tensor) -> Tensor:
        """[N, ...] as [B, T, ...]."""
        return x.view(*self.mask.shape, *x.shape[1:])


@lru_cache(maxsize=1)
def chain_inputs(head: HeadInputs) -> ChainInputs:
    """Answers of 64 tokens, right-padded; the reference is the policy with a little noise."""
    N = len(head.targets)
    rows = max(1, N // TOKENS_A_SEQUENCE) if N % TOKENS_A_SEQUENCE == 0 else 1
    g = torch.Generator().manual_seed(2)
    noise = torch.randn(head.hidden.shape, generator=g)
    device = head.targets.device
    ref_hidden = (head.hidden + 0.05 * noise.to(device)).bfloat16().float()
    lengths = torch.randint(N // rows // 2, N // rows + 1, (rows, 1), generator=g)
    mask = torch.arange(N // rows) < lengths
    scores, values = torch.randn(rows, generator=g), torch.randn(mask.shape, generator=g)
    return ChainInputs(head, ref_hidden, scores.to(device), values.to(device), mask.to(device))


def cases(*, request: Request) -> Iterator[HeadCase]:
    """One update at every shape, in every dtype."""
    for head, dtype, threads, wanted in combinations(request):
        yield chain_case(head, dtype, threads, wanted)


def chain_case(head: HeadInputs, dtype: str, threads: int, request: Request) -> HeadCase:
    """One call, the separate ops, and eager with the loop over time."""
    inputs = chain_inputs(head)
    floor = floor_provider(head, dtype, 5, threads)
    run = partial(both_passes, inputs, dtype)
    ours = partial(our_provider, "ppo_chain", lambda op: run(partial(one_call, op)), threads=threads)
    fast = compiled(eager)
    listed = [
        ours(),
        ours(backend="reference", slow=head.takes_seconds),
        Provider("rlsft separate ops", partial(run, separate), threads=threads),
        floor,
        Provider(EAGER, partial(run, eager), threads=threads, package="torch"),
        Provider(COMPILED, partial(run, fast), threads=threads, package="torch", unavailable=left_out(request)),
    ]
    listed = [provider for provider in listed if request.wants(provider.name)]
    return ChainCase(
        "ppo_chain", head, dtype, "forward and backward", partial(truth_of, inputs), listed, floor.name, 5
    )  # fmt: skip


def both_passes(inputs: ChainInputs, dtype: str, chain: Chain) -> Result:
    """Gradients by hidden states, head and values."""
    leaves = (*inputs.head.leaves(dtype), inputs.values.detach().requires_grad_())
    hidden, weight, values = torch.autograd.grad(chain(inputs, *leaves), leaves)
    return {"hidden": hidden, "weight": weight, "values": values}


def one_call(op: Callable[..., Any], inputs: ChainInputs, hidden: Tensor, weight: Tensor, values: Tensor) -> Tensor:
    """The op under test."""
    ref_hidden = inputs.per_row(inputs.ref_hidden.to(hidden.dtype))
    targets = inputs.per_row(inputs.head.targets)
    hidden = inputs.per_row(hidden)
    found = op(hidden, ref_hidden, weight, targets, inputs.scores, values, inputs.mask, vf_coef=VF_COEF, **GAE)
    return found[0]  # type: ignore[no-any-return]


def separate(inputs: ChainInputs, hidden: Tensor, weight: Tensor, values: Tensor) -> Tensor:
    """The same by the ops of this package, one after the other."""
    targets, mask = torch.where(inputs.mask, inputs.per_row(inputs.head.targets), -100), inputs.mask
    with torch.no_grad():
        ref = linear_logprob(inputs.per_row(inputs.ref_hidden.to(hidden.dtype)), weight, targets).logprob
    logprob = linear_logprob(inputs.per_row(hidden), weight, targets).logprob
    old, old_values = logprob.detach(), values.detach()
    gae = kl_shaped_gae(inputs.scores, old, ref, old_values, mask, **GAE)
    return policy_value_loss(
        logprob, old, gae.advantages, values, old_values, gae.returns, mask, vf_coef=VF_COEF
    )[0]  # fmt: skip


def eager(inputs: ChainInputs, hidden: Tensor, weight: Tensor, values: Tensor) -> Tensor:
    """As trainers write it: full logits of both models, the loop over time, element-wise losses."""
    targets, mask = inputs.head.targets, inputs.mask
    with torch.no_grad():
        ref = inputs.per_row(eager_logprobs(inputs.ref_hidden.to(hidden.dtype), weight, targets))
    logprob = inputs.per_row(eager_logprobs(hidden, weight, targets))
    old, old_values = logprob.detach(), values.detach()
    gae = python_loop(inputs.scores, old, ref, old_values, mask)
    ratio = (logprob - old).exp()
    advantages = gae["advantages"]
    policy = torch.max(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2))
    clipped = old_values + (values - old_values).clamp(-0.2, 0.2)
    value = torch.max((values - gae["returns"]) ** 2, (clipped - gae["returns"]) ** 2) / 2
    return ((policy + VF_COEF * value) * mask).sum() / mask.sum()


def truth_of(inputs: ChainInputs) -> Result:
    """In float64. With old = new the ratio is 1: the policy gradient is -A / count, that of the value v - R."""
    exact = inputs.per_row(truth_logprobs(inputs.head))
    reference = HeadInputs(inputs.ref_hidden, inputs.head.weight, inputs.head.targets, inputs.head.upstream)
    ref = inputs.per_row(truth_logprobs(reference))
    values, count = inputs.values.double(), inputs.mask.sum()
    advantages, returns, *_ = kl_shaped_gae_reference(inputs.scores.double(), exact, ref, values, inputs.mask, **GAE)
    coefficients = torch.where(inputs.mask, -advantages, 0).reshape(-1) / count
    value_grad = torch.where(inputs.mask, values - returns, 0) * VF_COEF / count
    return {**truth_gradients(inputs.head, coefficients), "values": value_grad}
