"""The losses of IRFT, SPIN and DPO on sequence log-ratios, from a few pairs to a million.

Bytes a pair: two log-ratios in, two gradients out. The floor copies as many; below some 10 000 pairs it is the cost of
a call.
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

SHAPE_LETTERS = ("P",)
BYTES = 4 * 4
BETA = 0.1


def cases(*, request: Request) -> Iterator[TokenCase]:
    """Batches of training, and what a scored data set has."""
    sizes = [request.shape["P"]] if request.shape else [64] if request.quick else [64, 4096, 65_536, 1_048_576]
    for P in sizes:
        ratios = torch.randn(2, P, generator=torch.Generator().manual_seed(0)) * 5
        real, generated = ratios.to(request.device)
        truth = gradients(eager, (real.double(), generated.double()))
        for threads in request.threads or (1, 2):
            listed = [*providers((real, generated), threads, request), copy_floor(BYTES * P, threads, request.device)]
            listed = [provider for provider in listed if request.wants(provider.name)]
            note = "logistic, forward and backward"
            yield TokenCase("pair_loss", f"P={P}", note, truth, listed, BYTES * P, seconds_each=1.0)


def providers(pairs: tuple[Tensor, Tensor], threads: int, request: Request) -> list[Provider]:
    """Ours, its reference, the formula, and that compiled."""
    ours = partial(our_provider, "pair_loss", lambda op: gradients(called(op), pairs), threads=threads)
    fast = compiled(eager)
    return [
        ours(),
        ours(backend="reference"),
        Provider("eager", lambda: gradients(eager, pairs), threads=threads, package="torch"),
        Provider(COMPILED, lambda: gradients(fast, pairs), threads=threads, package="torch",
                 unavailable=left_out(request)),
    ]  # fmt: skip


def called(op: Callable[..., Any]) -> Callable[..., Tensor]:
    """The op as a function of two tensors."""
    return lambda real, generated: op(real, generated, beta=BETA, kind="logistic")[0]


def gradients(function: Callable[..., Tensor], pairs: tuple[Tensor, Tensor]) -> Result:
    """Loss and gradients by both log-ratios."""
    leaves = [x.detach().requires_grad_() for x in pairs]
    loss = function(*leaves)
    real, generated = torch.autograd.grad(loss, leaves)
    return {"loss": loss.detach(), "real": real, "generated": generated}


def eager(real: Tensor, generated: Tensor) -> Tensor:
    """DPO's and SPIN's sigmoid loss as TRL writes it."""
    return -F.logsigmoid(BETA * (real - generated)).mean()
