"""Log-probabilities from hidden states: the forward alone, and both passes with the logits recomputed.

The floor is one bare product for the forward and four for both passes: logits, logits again, two gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature

import torch

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
from bench.head_peers import LogprobFunction, peer_provider, peers
from bench.measure import Provider, our_provider
from bench.request import Request
from rlsft_kernels import LogprobOutput, linear_logprob

__all__ = ["SHAPE_LETTERS", "cases"]


def cases(*, request: Request) -> Iterator[HeadCase]:
    """Both jobs at every shape, in every dtype."""
    for inputs, dtype, threads, wanted in combinations(request):
        yield head_case(inputs, dtype, threads, wanted, backward=False)
        yield head_case(inputs, dtype, threads, wanted, backward=True)


def head_case(inputs: HeadInputs, dtype: str, threads: int, request: Request, *, backward: bool) -> HeadCase:
    """Everybody's way to the same numbers."""
    run = partial(both_passes if backward else forward, inputs, dtype)
    floor = floor_provider(inputs, dtype, 4 if backward else 1, threads)
    slow = inputs.takes_seconds
    listed = [
        our_provider("linear_logprob", lambda op: run(logprobs_of(op)), threads=threads),
        our_provider(
            "linear_logprob", lambda op: run(logprobs_of(op)), threads=threads, backend="reference", slow=slow
        ),
        *(kept_logits(inputs, dtype, threads) if backward else ()),
        floor,
        *(peer_provider(peer, partial(run, peer.logprobs), threads, slow=slow) for peer in peers(request, inputs)),
    ]
    truth = partial(gradients if backward else logprobs, inputs)
    note = "forward and backward, gradients of hidden and weight" if backward else "forward"
    listed = [provider for provider in listed if request.wants(provider.name)]
    return HeadCase("linear_logprob", inputs, dtype, note, truth, listed, floor.name, 4 if backward else 1)


def kept_logits(inputs: HeadInputs, dtype: str, threads: int) -> list[Provider]:
    """The other end of the memory dial: three products for the price of the logits."""
    N, _, V = inputs.sizes
    budget = N * V * getattr(torch, dtype).itemsize
    provider = our_provider(
        "linear_logprob",
        lambda op: both_passes(inputs, dtype, logprobs_of(partial(op, memory_budget=budget))),
        threads=threads,
    )
    provider.name = "rlsft, logits kept"
    return [provider] if "memory_budget" in signature(linear_logprob).parameters else []


def logprobs_of(op: Callable[..., LogprobOutput]) -> LogprobFunction:
    """The one field that everybody has."""
    return lambda *arguments: op(*arguments).logprob


def forward(inputs: HeadInputs, dtype: str, function: LogprobFunction) -> Result:
    """Scoring: no gradient is recorded."""
    with torch.no_grad():
        return {"logprob": function(*inputs.leaves(dtype), inputs.targets)}


def both_passes(inputs: HeadInputs, dtype: str, function: LogprobFunction) -> Result:
    """Gradients of a weighted sum of log-probabilities."""
    leaves = inputs.leaves(dtype)
    logprob = function(*leaves, inputs.targets)
    hidden, weight = torch.autograd.grad(logprob, leaves, inputs.upstream.to(logprob.dtype))
    return {"hidden": hidden, "weight": weight}


def logprobs(inputs: HeadInputs) -> Result:
    """What the forward must give."""
    return {"logprob": truth_logprobs(inputs)}


def gradients(inputs: HeadInputs) -> Result:
    """What both passes must give."""
    return truth_gradients(inputs, inputs.upstream)
