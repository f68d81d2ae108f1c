"""PPO's policy, value, entropy and KL terms on a million tokens, with their gradients, beside eager PyTorch.

Bytes: nine numbers and a mask byte a token in, three gradients out. The floor copies as many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.elementwise import Result, TokenCase, copy_floor
from bench.head_peers import COMPILED, compiled, left_out
from bench.measure import Provider, our_provider
from bench.request import Request
from rlsft_kernels.policy_value_loss.reference import policy_value_loss_reference

SHAPE_LETTERS = ("B", "T")
LEAVES = ("logprobs", "values", "entropy")
BYTES = 4 * (8 + 3) + 1
CLIP, EDGE = 0.2, 1e-5  # the op's default clip ranges, and how near to them is too near
SETTINGS: dict[str, Any] = {"vf_coef": 0.1, "entropy_coef": 0.01, "kl_coef": 0.05, "kl_estimator": "k3"}


def cases(*, request: Request) -> Iterator[TokenCase]:
    """A million tokens; one and two threads."""
    B, T = (request.shape["B"], request.shape["T"]) if request.shape else (4, 50) if request.quick else (1024, 1024)
    tokens = {name: x.to(request.device) for name, x in inputs_of(B, T).items()}
    exact = {name: x.double() if x.is_floating_point() else x for name, x in tokens.items()}
    truth = gradients(reference, exact)
    for threads in request.threads or (1, 2):
        listed = [*providers(tokens, threads, request), copy_floor(BYTES * B * T, threads, request.device)]
        listed = [provider for provider in listed if request.wants(provider.name)]
        note = "policy, clipped value, entropy and k3, forward and backward"
        yield TokenCase("policy_value_loss", f"B={B},T={T}", note, truth, listed, BYTES * B * T)


def inputs_of(B: int, T: int) -> dict[str, Tensor]:
    """Right-padded answers of half to full length; ratios on both sides of the clip range."""
    g = torch.Generator().manual_seed(0)
    names = ("logprobs", "old_logprobs", "ref_logprobs", "advantages", "values", "old_values", "returns", "entropy")
    tokens = dict(zip(names, torch.randn(len(names), B, T, generator=g), strict=True))
    for name in ("old_logprobs", "ref_logprobs"):
        tokens[name] = tokens["logprobs"] + 0.2 * tokens[name]
    tokens["old_values"] = tokens["values"] + 0.2 * tokens["old_values"]
    # a token on the edge of a clip range has two right gradients; float32 and float64 may pick different ones
    ratio = (tokens["logprobs"] - tokens["old_logprobs"]).exp()
    on_edge = ((ratio - 1).abs() - CLIP).abs() < EDGE
    tokens["old_logprobs"] = torch.where(on_edge, tokens["logprobs"], tokens["old_logprobs"])
    on_edge = ((tokens["values"] - tokens["old_values"]).abs() - CLIP).abs() < EDGE
    tokens["old_values"] = torch.where(on_edge, tokens["values"], tokens["old_values"])
    lengths = torch.randint(T // 2, T + 1, (B, 1), generator=g)
    return tokens | {"mask": torch.arange(T) < lengths}


def providers(tokens: dict[str, Tensor], threads: int, request: Request) -> list[Provider]:
    """Ours, its reference, eager and compiled."""
    ours = partial(our_provider, "policy_value_loss", lambda op: gradients(op, tokens), threads=threads)
    fast = compiled(eager)
    return [
        ours(),
        ours(backend="reference"),
        Provider("eager", lambda: gradients(eager, tokens), threads=threads, package="torch"),
        Provider(COMPILED, lambda: gradients(fast, tokens), threads=threads, package="torch",
                 unavailable=left_out(request)),
    ]  # fmt: skip


def gradients(function: Callable[..., Any], tokens: dict[str, Tensor]) -> Result:
    """Loss and gradients by log-probabilities, values and entropy."""
    leaves = {name: tokens[name].detach().requires_grad_() for name in LEAVES}
    loss = function(**tokens | leaves, **SETTINGS)
    loss = loss[0] if isinstance(loss, tuple) else loss
    found = torch.autograd.grad(loss, list(leaves.values()))
    return {"loss": loss.detach(), **dict(zip(LEAVES, found, strict=True))}


def reference(**arguments: Any) -> Tensor:
    """The definition of the op."""
    return policy_value_loss_reference(**arguments)[0]


def eager(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, values: Tensor, old_values: Tensor, returns: Tensor,
    mask: Tensor, *, entropy: Tensor, ref_logprobs: Tensor, vf_coef: float, entropy_coef: float, kl_coef: float,
    kl_estimator: str,
) -> Tensor:  # fmt: skip
    """As TRL and verl write it, without their statistics: masked means of element-wise terms."""
    ratio = (logprobs - old_logprobs).clamp(-20, 20).exp()
    policy = torch.max(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2))
    clipped = old_values + (values - old_values).clamp(-0.2, 0.2)
    value = torch.max((values - returns) ** 2, (clipped - returns) ** 2) / 2
    difference = (ref_logprobs - logprobs).clamp(-20, 20)
    kl = (difference.exp() - difference - 1).clamp(max=10)
    total = policy + vf_coef * value - entropy_coef * entropy + kl_coef * kl
    return (total * mask).sum() / mask.sum()
