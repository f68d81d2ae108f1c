"""One case of each element-wise op: float64 inputs, how to call it, its truth. For tests that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rlsft_kernels import kl_shaped_gae, pair_loss, pairwise_reward_loss, policy_value_loss
from rlsft_kernels.kl_shaped_gae.reference import STATS as GAE_STATS
from rlsft_kernels.kl_shaped_gae.reference import kl_shaped_gae_reference
from rlsft_kernels.pair_loss.reference import KINDS, pair_loss_reference
from rlsft_kernels.pairwise_reward_loss.reference import pairwise_reward_loss_reference
from rlsft_kernels.policy_value_loss.reference import policy_value_loss_reference

Tokens = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """An op with one setting. `leaves` are the inputs with a gradient; None for the op without any."""

    op: str
    setting: str
    make: Callable[[int], Tokens]
    call: Callable[..., Any]
    truth: Callable[..., Any]
    leaves: Sequence[str]
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op}-{self.setting}"

    def results(self, tokens: Tokens, function: Callable[..., Any], **more: Any) -> Tokens:
        """Everything that comes out, gradients included, by name."""
        fresh = {name: x.detach().requires_grad_(name in self.leaves) for name, x in tokens.items()}
        out = function(**fresh, **self.settings, **more)
        if not self.leaves:
            advantages, returns, moments, stats = out
            named = stats if isinstance(stats, dict) else dict(zip(GAE_STATS, stats, strict=True))
            return {"advantages": advantages, "returns": returns, "moments": moments, **named}
        loss, stats = out
        inputs = [fresh[name] for name in self.leaves if name in fresh]
        grads = torch.autograd.grad(loss, inputs, allow_unused=True)
        names = [name for name in self.leaves if name in fresh]
        return {"loss": loss.detach(), **stats} | {
            f"grad {name}": torch.zeros_like(x) if grad is None else grad
            for name, grad, x in zip(names, grads, inputs, strict=True)
        }

    def run(self, tokens: Tokens, backend: str = "auto") -> Tokens:
        """The op."""
        return self.results(tokens, self.call, backend=backend)

    def expected(self, tokens: Tokens) -> Tokens:
        """The reference, differentiated by autograd, in the dtype of the tokens."""
        return self.results(tokens, self.truth)


def mask_of(count: int) -> Tensor:
    """Seven of ten, with a run of masked tokens and the first two kept."""
    mask = torch.rand(count) > 0.3
    mask[count // 3 : count // 3 + count // 8] = False
    mask[:2] = True
    return mask


def policy_tokens(count: int) -> Tokens:
    """A rollout on every side of the clips; advantages around 1, so that the loss is no sum that cancels."""
    logprobs, values = torch.randn(2, count, dtype=torch.float64)
    near = lambda x, by: x + by * torch.randn(count, dtype=torch.float64)  # noqa: E731
    return {
        "logprobs": logprobs, "old_logprobs": near(logprobs, 0.4), "advantages": near(torch.ones(1).double(), 1.0),
        "values": values, "old_values": near(values, 0.3), "returns": near(values, 1.0),
        "entropy": near(values, 1.0).abs(), "ref_logprobs": near(logprobs, 0.8), "mask": mask_of(count),
    }  # fmt: skip


def policy_only(count: int) -> Tokens:
    """Without value, entropy and reference."""
    tokens = policy_tokens(count)
    return {name: tokens[name] for name in ("logprobs", "old_logprobs", "advantages", "mask")}


def gae_tokens(count: int) -> Tokens:
    """Three rows of `count` tokens."""
    made = {name: torch.randn(3, count, dtype=torch.float64) for name in ("logprobs", "ref_logprobs", "values")}
    return {
        "scores": torch.randn(3, dtype=torch.float64), **made, "mask": torch.stack([mask_of(count) for _ in range(3)]),
        "bootstrap_values": torch.randn(3, dtype=torch.float64),
    }  # fmt: skip


def pairs(first: str, second: str, third: str | None) -> Callable[[int], Tokens]:
    """Two scores a pair, and a margin or a mask."""

    def make(count: int) -> Tokens:
        real, generated, margin = 3 * torch.randn(3, count, dtype=torch.float64)
        extra = {"margin": margin.abs()} if third == "margin" else {} if third is None else {"mask": mask_of(count)}
        return {first: real, second: generated, **extra}

    return make


def without_values(function: Callable[..., Any]) -> Callable[..., Any]:
    """Fills in None for the value part."""
    return lambda **kwargs: function(values=None, old_values=None, returns=None, **kwargs)


ALL_TERMS: dict[str, Any] = {
    "clip_low": 0.1, "clip_high": 0.3, "dual_clip": 1.2, "value_clip": 0.25, "vf_coef": 0.5, "entropy_coef": 0.02,
    "kl_coef": 0.3,
}  # fmt: skip
PPO_LEAVES = ("logprobs", "values", "entropy")
CASES = [
    *(
        Case("policy_value_loss", kind, policy_tokens, policy_value_loss, policy_value_loss_reference, PPO_LEAVES,
             ALL_TERMS | {"kl_estimator": kind})
        for kind in ("k1", "k2", "k3")
    ),
    Case("policy_value_loss", "bare", policy_only, without_values(policy_value_loss),
         without_values(policy_value_loss_reference), PPO_LEAVES),
    *(
        Case("kl_shaped_gae", f"{kind} {lam}", gae_tokens, kl_shaped_gae, kl_shaped_gae_reference, (),
             {"kl_coef": 0.1, "kl_estimator": kind, "gamma": gamma, "lam": lam, "whiten": whiten})
        for kind, gamma, lam, whiten in (("k1", 0.99, 0.95, True), ("k3", 1.0, 0.9, False), ("k2", 0.9, 0.0, True))
    ),
    *(
        Case("pairwise_reward_loss", str(third), pairs("chosen", "rejected", third), pairwise_reward_loss,
             pairwise_reward_loss_reference, ("chosen", "rejected"), {"center_coef": center})
        for third, center in ((None, 0.0), ("margin", 0.05))
    ),
    *(
        Case("pair_loss", kind, pairs("delta_real", "delta_generated", "mask"), pair_loss, pair_loss_reference,
             ("delta_real", "delta_generated"), {"beta": 0.4, "kind": kind})
        for kind in KINDS
    ),
    Case("pair_loss", "smoothed", pairs("delta_real", "delta_generated", None), pair_loss, pair_loss_reference,
         ("delta_real", "delta_generated"), {"beta": 0.4, "label_smoothing": 0.2}),
    Case("pair_loss", "offset", pairs("delta_real", "delta_generated", None), pair_loss, pair_loss_reference,
         ("delta_real", "delta_generated"), {"beta": 0.4, "offset": -0.7, "kind": "kliep", "normalizer": 7.5}),
]  # fmt: skip


def cast(tokens: Tokens, dtype: torch.dtype) -> Tokens:
    """Floating tensors in another dtype."""
    return {name: x.to(dtype) if x.is_floating_point() else x for name, x in tokens.items()}
