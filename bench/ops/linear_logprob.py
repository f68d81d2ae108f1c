"""Log-probabilities from hidden states: the forward alone, and both passes with the logits recomputed.

The floor is one bare product for the forward and four for both passes: logits, logits again, two gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

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
from bench.measure import Provider
from bench.request import Request
from rlsft_kernels import linear_logprob

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
        Provider("rlsft", partial(run, ours("auto")), threads=threads),
        Provider("rlsft reference", partial(run, ours("reference")), threads=threads, slow=slow),
        floor,
        *(peer_provider(peer, partial(run, peer.logprobs), threads, slow=slow) for peer in peers(request)),
    ]
    truth = partial(gradients if backward else logprobs, inputs)
    note = "forward and backward, gradients of hidden and weight" if backward else "forward"
    listed = [provider for provider in listed if request.wants(provider.name)]
    return HeadCase("linear_logprob", inputs, dtype, note, truth, listed, floor.name)


def ours(backend: str) -> LogprobFunction:
    """The public op."""
    return lambda hidden, weight, targets: linear_logprob(hidden, weight, targets, backend=backend).logprob  # type: ignore[arg-type]


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
