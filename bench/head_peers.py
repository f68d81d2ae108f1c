"""Per-token log-probabilities from a head by everybody: `(hidden, weight, targets) -> [N]`, differentiable.

Which of these bound memory: TRL's, torch core's chunked op and Liger's; full logits and torch.compile do not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.head import DEFAULT, HeadInputs
from bench.measure import Provider
from bench.request import Request

LogprobFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
EAGER = "eager full logits"
COMPILED = "torch.compile of eager"


@dataclass(frozen=True)
class Peer:
    """A way to the log-probabilities, with the package it comes from."""

    name: str
    logprobs: LogprobFunction
    package: str
    unavailable: str | None = None


def eager_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Full logits, the softmax in float32: what transformers' loss does."""
    return -F.cross_entropy(F.linear(hidden, weight).float(), targets, reduction="none")


def trl_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """TRL's chunked op with the chunk of its trainers."""
    from trl.kernels import ChunkedLogProbFunction

    return ChunkedLogProbFunction.apply(hidden, weight, None, targets, 1.0, 32768, None, 1.0, ())[0]


def torch_core_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """torch core's chunked op, one loss a token."""
    options = torch.nn.LinearCrossEntropyOptions()
    return -F.linear_cross_entropy(hidden, weight, targets, reduction="none", options=options)


def liger_logprobs(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """What Liger's chunked losses call for their log-probabilities, in plain torch."""
    from liger_kernel.chunked_loss.fused_linear_ppo import _ChunkedSelectiveLogProbFunction as Chunked

    return Chunked.apply(hidden, weight, targets, None, 1.0, 4096)


def peers(request: Request, inputs: HeadInputs) -> list[Peer]:
    """All of them; what is not installed or cannot run here says so in its row."""
    liger = None if find_spec("liger_kernel") else "not installed (requirements/bench-no-deps.txt)"
    trl = None if find_spec("trl") else "not installed (pip install 'rlsft[test]')"
    return [
        Peer(EAGER, eager_logprobs, "torch"),
        Peer(COMPILED, compiled(eager_logprobs), "torch", left_out(request)),
        Peer("TRL ChunkedLogProbFunction", trl_logprobs, "trl", trl),
        Peer("F.linear_cross_entropy none", torch_core_logprobs, "torch", core_unavailable(request, inputs)),
        Peer("Liger chunked logprob (torch)", liger_logprobs, "liger-kernel", liger),
    ]


def core_unavailable(request: Request, inputs: HeadInputs) -> str | None:
    """torch core's op takes twenty seconds a call on a CPU: one default shape shows that."""
    if not hasattr(F, "linear_cross_entropy"):
        return f"torch {torch.__version__} lacks it (2.13 has it)"
    heavy = inputs.takes_seconds and not request.full and not request.shape and inputs.sizes != DEFAULT[0]
    return "20 s a call: FULL=1 times it at this shape too" if heavy else None


def left_out(request: Request) -> str | None:
    """torch.compile takes half a minute before its first result."""
    return "left out of --quick" if request.quick else None


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch.compile on the first call, for the shapes it is called with."""
    kept: list[Callable[..., Any]] = []

    def run(*arguments: Any, **named: Any) -> Any:
        if not kept:
            kept.append(torch.compile(function, dynamic=False))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kept[0](*arguments, **named)

    return run


def peer_provider(peer: Peer, run: Callable[[], Any], threads: int, *, slow: bool) -> Provider:
    """A peer's row; full logits are quick enough for the ordinary number of rounds."""
    package = None if peer.unavailable else peer.package
    slow = slow and peer.name not in (EAGER, COMPILED)
    return Provider(peer.name, run, threads=threads, package=package, slow=slow, unavailable=peer.unavailable)
