"""The Bradley-Terry loss of a reward model with margin and centring, from a few pairs to a million.

Bytes a pair: two scores and a margin in, two gradients out. The floor copies as many; below some 10 000 pairs it is the
cost of a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.elementwise import Result, TokenCase, copy_floor
from bench.head_peers import COMPILED, compiled, left_out
from bench.measure import Provider, our_provider
from bench.request import Request
from rlsft_kernels.pairwise_reward_loss.reference import pairwise_reward_loss_reference

SHAPE_LETTERS = ("P",)
BYTES = 4 * 5
CENTER = 0.01


def cases(*, request: Request) -> Iterator[TokenCase]:
    """Batches of training, and what a scored data set has."""
    sizes = [request.shape["P"]] if request.shape else [64] if request.quick else [64, 4096, 65_536, 1_048_576]
    for P in sizes:
        scores = torch.randn(3, P, generator=torch.Generator().manual_seed(0))
        chosen, rejected, margin = scores.to(request.device)
        pairs = (chosen, rejected, margin.abs())
        truth = gradients(reference, tuple(x.double() for x in pairs))
        for threads in request.threads or (1, 2):
            listed = [*providers(pairs, threads, request), copy_floor(BYTES * P, threads, request.device)]
            listed = [provider for provider in listed if request.wants(provider.name)]
            note = "margin and centring, forward and backward"
            yield TokenCase("pairwise_reward_loss", f"P={P}", note, truth, listed, BYTES * P, seconds_each=1.0)


def providers(pairs: tuple[Tensor, ...], threads: int, request: Request) -> list[Provider]:
    """Ours, its reference, TRL's formula, and that compiled."""
    ours = partial(our_provider, "pairwise_reward_loss", lambda op: gradients(called(op), pairs), threads=threads)
    fast = compiled(eager)
    return [
        ours(),
        ours(backend="reference"),
        Provider("eager", lambda: gradients(eager, pairs), threads=threads, package="torch"),
        Provider(COMPILED, lambda: gradients(fast, pairs), threads=threads, package="torch",
                 unavailable=left_out(request)),
    ]  # fmt: skip


def called(op: Callable[..., Any]) -> Callable[..., Tensor]:
    """The op as a function of three tensors."""
    return lambda chosen, rejected, margin: op(chosen, rejected, margin=margin, center_coef=CENTER)[0]


def gradients(function: Callable[..., Tensor], pairs: tuple[Tensor, ...]) -> Result:
    """Loss and gradients by both scores."""
    leaves = [x.detach().requires_grad_() for x in pairs[:2]]
    loss = function(*leaves, pairs[2])
    chosen, rejected = torch.autograd.grad(loss, leaves)
    return {"loss": loss.detach(), "chosen": chosen, "rejected": rejected}


def reference(*pairs: Tensor) -> Tensor:
    """The definition of the op."""
    return called(pairwise_reward_loss_reference)(*pairs)


def eager(chosen: Tensor, rejected: Tensor, margin: Tensor) -> Tensor:
    """TRL's reward trainer, without its statistics."""
    loss = -F.logsigmoid(chosen - rejected - margin).mean()
    return loss + CENTER * ((chosen + rejected) ** 2).mean()
