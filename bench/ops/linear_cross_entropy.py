"""The SFT loss and its gradients from hidden states.

The floor is three bare products: a gradient made in the forward needs the logits only once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
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
from bench.head_peers import (
    COMPILED,
    EAGER,
    Peer,
    compiled,
    core_unavailable,
    left_out,
    liger_logprobs,
    peer_provider,
    trl_logprobs,
)
from bench.measure import our_provider
from bench.request import Request

__all__ = ["SHAPE_LETTERS", "cases"]

LossFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


def cases(*, request: Request) -> Iterator[HeadCase]:
    """Loss and gradients at every shape, in every dtype."""
    for inputs, dtype, threads, wanted in combinations(request):
        yield loss_case(inputs, dtype, threads, wanted)


def loss_case(inputs: HeadInputs, dtype: str, threads: int, request: Request) -> HeadCase:
    """Everybody's mean cross-entropy."""
    run = partial(both_passes, inputs, dtype)
    floor = floor_provider(inputs, dtype, 3, threads)
    slow = inputs.takes_seconds
    ours = partial(our_provider, "linear_cross_entropy", lambda op: run(lambda *x: op(*x)[0]), threads=threads)
    listed = [
        ours(),
        ours(backend="reference", slow=slow),
        floor,
        *(peer_provider(peer, partial(run, peer.logprobs), threads, slow=slow) for peer in peers(request, inputs)),
    ]
    listed = [provider for provider in listed if request.wants(provider.name)]
    note = "forward and backward, gradients of hidden and weight"
    return HeadCase("linear_cross_entropy", inputs, dtype, note, partial(truth, inputs), listed, floor.name, 3)


def peers(request: Request, inputs: HeadInputs) -> list[Peer]:
    """Those of the log-probabilities, by the call that each offers for a mean loss."""
    liger = None if find_spec("liger_kernel") else "not installed (requirements/bench-no-deps.txt)"
    trl = None if find_spec("trl") else "not installed (pip install 'rlsft[test]')"
    cce = None if find_spec("cut_cross_entropy") else "not installed"
    on_cpu = "Triton kernels: no CPU path" if request.device == "cpu" else None
    core = core_unavailable(request, inputs)
    return [
        Peer(EAGER, eager, "torch"),
        Peer(COMPILED, compiled(eager), "torch", left_out(request)),
        Peer("TRL ChunkedLogProbFunction", lambda *x: -trl_logprobs(*x).mean(), "trl", trl),
        Peer("F.linear_cross_entropy", torch_core, "torch", core),
        Peer("Liger chunked logprob (torch)", lambda *x: -liger_logprobs(*x).mean(), "liger-kernel", liger),
        Peer("Liger fused linear cross-entropy", liger_fused, "liger-kernel", liger or on_cpu),
        Peer("Apple CCE", apple_cce, "cut-cross-entropy", cce or on_cpu),
    ]


def eager(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Full logits, the softmax in float32: what transformers' loss does."""
    return F.cross_entropy(F.linear(hidden, weight).float(), targets)


def torch_core(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """torch core's chunked op with the options it picks itself."""
    return F.linear_cross_entropy(hidden, weight, targets, options=torch.nn.LinearCrossEntropyOptions())


def liger_fused(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Liger's fused linear cross-entropy."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    return liger_fused_linear_cross_entropy(hidden, weight, targets)


def apple_cce(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Apple's cut cross-entropy, without the filter that drops small gradients."""
    from cut_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(hidden, weight, targets, impl="cce_exact")


def both_passes(inputs: HeadInputs, dtype: str, function: LossFunction) -> Result:
    """The loss and its gradients."""
    leaves = inputs.leaves(dtype)
    loss = function(*leaves, inputs.targets)
    hidden, weight = torch.autograd.grad(loss, leaves)
    return {"loss": loss.detach(), "hidden": hidden, "weight": weight}


@lru_cache(maxsize=1)
def mean_upstream(inputs: HeadInputs) -> Tensor:
    """[N] gradient of the mean loss by each log-probability."""
    return torch.full_like(inputs.targets, -1.0 / len(inputs.targets), dtype=torch.float64)


def truth(inputs: HeadInputs) -> dict[str, Any]:
    """In float64."""
    return {"loss": -truth_logprobs(inputs).mean(), **truth_gradients(inputs, mean_upstream(inputs))}
