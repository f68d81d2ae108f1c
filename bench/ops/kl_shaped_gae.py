"""KL-shaped rewards, advantages, returns and whitening, beside the Python loop over time of today's trainers.

Bytes a token: log-probability, reference and value in, a mask byte, advantage and return out. The floor copies as many.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.elementwise import Result, TokenCase, copy_floor
from bench.head_peers import COMPILED, compiled, left_out
from bench.measure import Provider, our_provider
from bench.request import Request
from rlsft_kernels.kl_shaped_gae.reference import kl_shaped_gae_reference

SHAPE_LETTERS = ("B", "T")
BYTES = 4 * (3 + 2) + 1
GAMMA, LAM, KL_COEF = 0.99, 0.95, 0.05
SETTINGS: dict[str, Any] = {"kl_coef": KL_COEF, "gamma": GAMMA, "lam": LAM}
LOOP = "Python loop, as verl's"


def cases(*, request: Request) -> Iterator[TokenCase]:
    """Many answers of ordinary length, and few very long ones; one and two threads."""
    sizes = [(4, 50)] if request.quick else [(64, 2048), (4, 131_072)]
    for B, T in [(request.shape["B"], request.shape["T"])] if request.shape else sizes:
        tokens = tuple(x.to(request.device) for x in inputs_of(B, T))
        advantages, returns, *_ = kl_shaped_gae_reference(*(as_double(x) for x in tokens), **SETTINGS)
        truth = {"advantages": advantages, "returns": returns}
        for threads in request.threads or (1, 2):
            listed = [*providers(tokens, threads, request), copy_floor(BYTES * B * T, threads, request.device)]
            listed = [provider for provider in listed if request.wants(provider.name)]
            shape, note = f"B={B},T={T}", "k1 penalty, whitened"
            yield TokenCase("kl_shaped_gae", shape, note, truth, listed, BYTES * B * T, baseline=LOOP)


def as_double(x: Tensor) -> Tensor:
    """float64, a mask as it is."""
    return x.double() if x.is_floating_point() else x


def inputs_of(B: int, T: int) -> tuple[Tensor, ...]:
    """(scores [B], logprobs, ref_logprobs, values, mask [B, T]): answers with a hole of tool output in the middle."""
    g = torch.Generator().manual_seed(0)
    logprobs, ref_logprobs, values = torch.randn(3, B, T, generator=g)
    time = torch.arange(T)
    lengths = torch.randint(T // 2, T + 1, (B, 1), generator=g)
    hole = (time >= T // 4) & (time < T // 4 + T // 16)
    return torch.randn(B, generator=g), logprobs, ref_logprobs, values, (time < lengths) & ~hole


def providers(tokens: tuple[Tensor, ...], threads: int, request: Request) -> list[Provider]:
    """Ours, its reference and the loop, which compiled would unroll to a node or ten a step."""
    ours = partial(our_provider, "kl_shaped_gae", lambda op: fields(op(*tokens, **SETTINGS)), threads=threads)
    long = tokens[1].shape[1] > 10_000
    fast = compiled(python_loop)
    no_compile = left_out(request) or ("the loop unrolls to thousands of nodes" if tokens[1].shape[1] > 256 else None)
    return [
        ours(),
        ours(backend="reference", slow=long),
        Provider(LOOP, lambda: python_loop(*tokens), threads=threads, slow=long),
        Provider(COMPILED, lambda: fast(*tokens), threads=threads, package="torch", unavailable=no_compile),
    ]


def fields(output: Any) -> Result:
    """What the loop returns too."""
    return {"advantages": output.advantages, "returns": output.returns}


def python_loop(scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, values: Tensor, mask: Tensor) -> Result:
    """verl's rule: masked tokens carry value and advantage through; returns are those before whitening."""
    weight = mask.to(values.dtype)
    last = mask.shape[1] - 1 - mask.flip(1).long().argmax(1)
    rewards = -KL_COEF * (logprobs - ref_logprobs)
    rewards[torch.arange(len(scores)), last] += scores
    next_value = next_advantage = torch.zeros_like(scores)
    reversed_advantages = []
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + GAMMA * next_value - values[:, t]
        advantage = delta + GAMMA * LAM * next_advantage
        next_value = values[:, t] * weight[:, t] + next_value * (1 - weight[:, t])
        next_advantage = advantage * weight[:, t] + next_advantage * (1 - weight[:, t])
        reversed_advantages.append(next_advantage)
    advantages = torch.stack(reversed_advantages[::-1], dim=1)
    returns = advantages + values
    count = weight.sum()
    mean = (advantages * weight).sum() / count
    variance = ((advantages - mean).square() * weight).sum() / (count - 1)
    return {"advantages": (advantages - mean) * torch.rsqrt(variance + 1e-8) * weight, "returns": returns * weight}
