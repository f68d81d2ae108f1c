"""Losses on pairs of log-ratios: the fused kinds, four in plain torch, and the user's own.

A pair is a demonstration and an answer that the model drew itself; its log-ratios are
`delta = log pi(answer) - log pi_ref(answer)`, summed over the answer's tokens. At `delta = 0`, where a round begins, an
untempered draw makes the expected gradient of every loss here a multiple of the SFT gradient (`sft_factor`): they
differ in what they do as the policy moves away from its reference.
"""

from __future__ import annotations

import functools
import importlib
import math
import os
import sys
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from rlsft.errors import ConfigError, did_you_mean
from rlsft_kernels import pair_loss

FUSED = ("logistic", "linear", "hinge", "bernoulli", "kliep")  # in `rlsft_kernels.pair_loss`
MAX_EXPONENT = 20.0  # as the fused kinds clamp: exp(20) is finite in every dtype


class PairLoss(Protocol):
    """A loss of each pair, differentiable in both log-ratios."""

    def __call__(self, delta_real: Tensor, delta_generated: Tensor, *, beta: float, offset: float) -> Tensor:
        """`[P]` from the log-ratios `[P]` of the demonstrations and of the drawn answers."""
        ...


def brier(delta_real: Tensor, delta_generated: Tensor, *, beta: float, offset: float) -> Tensor:
    """`(1 - s(rho_real))^2 + s(rho_generated)^2` with `rho = beta * delta + offset` (GSIL, arXiv 2410.10093)."""
    return torch.sigmoid(-beta * delta_real - offset) ** 2 + torch.sigmoid(beta * delta_generated + offset) ** 2


def abs_hinge(delta_real: Tensor, delta_generated: Tensor, *, beta: float, offset: float) -> Tensor:
    """`max(0, 1 - rho_real) + max(0, 1 + rho_generated)` (GSIL, arXiv 2410.10093)."""
    return F.relu(1 - beta * delta_real - offset) + F.relu(1 + beta * delta_generated + offset)


def lsif(delta_real: Tensor, delta_generated: Tensor, *, beta: float, offset: float) -> Tensor:
    """`-exp(rho_real) + exp(2 rho_generated) / 2`, exponents cut at 20 (GSIL, arXiv 2410.10093)."""
    rho_real, rho_generated = beta * delta_real + offset, beta * delta_generated + offset
    return -rho_real.clamp(max=MAX_EXPONENT).exp() + (2 * rho_generated).clamp(max=MAX_EXPONENT).exp() / 2


def nce(delta_real: Tensor, delta_generated: Tensor, *, beta: float, offset: float, mu: float = 1.0) -> Tensor:
    """`-log s_mu(delta_real) - mu log(1 - s_mu(delta_generated))`, `s_mu(u) = 1 / (1 + mu exp(-u))`.

    Noise-contrastive estimation with `mu` drawn answers to a demonstration, after SPACE (arXiv 2512.07175). The
    classifier is Bayes' own, so `beta` has no place in it, and neither has `offset`.
    """
    log_mu = math.log(mu)
    return F.softplus(log_mu - delta_real) + mu * F.softplus(delta_generated - log_mu)


_PLAIN: dict[str, PairLoss] = {"brier": brier, "abs_hinge": abs_hinge, "lsif": lsif, "nce": nce}
_REGISTERED: dict[str, PairLoss] = {}


def pair_loss_names() -> tuple[str, ...]:
    """Every `loss_type` there is at the moment, the registered ones last."""
    return (*FUSED, *_PLAIN, *_REGISTERED)


def register_pair_loss(name: str, function: PairLoss) -> None:
    """Make `loss_type=name` mean `function(delta_real, delta_generated, *, beta, offset) -> [P]`.

    Registering a name again replaces the function; the names of this package cannot be taken.

    Args:
        name: letters, digits and underscores.
        function: differentiable by autograd; the mean over the pairs of a step is the loss.

    Raises:
        ConfigError: the name is taken by this package or is no word, or the function cannot be called.
    """
    if not name.isidentifier():
        raise ConfigError(f"name of a pair loss must be one word (letters, digits, underscores), got {name!r}")
    if name in FUSED or name in _PLAIN:
        raise ConfigError(f"{name!r} is a pair loss of rlsft already; register yours under another name")
    if not callable(function):
        raise ConfigError(f"the pair loss {name!r} must be a function, got {type(function).__name__}")
    _REGISTERED[name] = function


def check_pair_loss(name: str) -> None:
    """Raise a `ConfigError` unless `name` is a known loss or a `module:function` that can be imported."""
    if name not in FUSED:
        _function(name)


def _function(name: str) -> PairLoss:
    known = _PLAIN.get(name) or _REGISTERED.get(name)
    if known is not None:
        return known
    module, _, attribute = name.partition(":")
    if not attribute:
        names = pair_loss_names()
        hint = did_you_mean(name, names)
        raise ConfigError(
            f"loss_type must be one of {', '.join(names)}, or module:function, got {name!r}{hint} "
            "(register_pair_loss adds your own)"
        )
    try:
        function = getattr(_imported(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"loss_type {name!r}: {error}. The module must be importable from here.") from None
    if not callable(function):
        raise ConfigError(f"loss_type {name!r} names a {type(function).__name__}, and a function is needed")
    return function  # type: ignore[no-any-return]


def _imported(module: str) -> Any:
    """The module; one in the current directory is found too, as `python -m` would."""
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(os.getcwd())


def mean_pair_loss(
    kind: str,
    delta_real: Tensor,  # [P] float
    delta_generated: Tensor,  # [P]
    *,
    beta: float,
    offset: float = 0.0,
    label_smoothing: float = 0.0,
    nce_mu: float = 1.0,
    mask: Tensor | None = None,  # [P] bool
    normalizer: float | Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over pairs of the loss `kind`, with the statistics of `rlsft_kernels.pair_loss`.

    Args:
        kind: a name of `pair_loss_names()`, or `module:function`.
        delta_real: log-ratio sums of the demonstrations, in nats.
        delta_generated: log-ratio sums of the drawn answers.
        beta: factor of the log-ratios.
        offset: added to each scaled log-ratio.
        label_smoothing: share of the pairs taken to be the wrong way round; only for "logistic".
        nce_mu: drawn answers to a demonstration in "nce".
        mask: True where a pair counts; what the others hold changes nothing.
        normalizer: what the sum is divided by; None is the number of pairs that count.

    Returns:
        The 0-d loss, and `count`, `loss`, `accuracy`, `rewards/real`, `rewards/generated`, `margin` (and
        `saturation` for the fused kinds) without gradient.

    Raises:
        ConfigError: no such loss, or one that does not give a number a pair.
    """
    if kind in FUSED:
        return pair_loss(
            delta_real, delta_generated, beta=beta, kind=kind, offset=offset, label_smoothing=label_smoothing,
            mask=mask, normalizer=normalizer,
        )  # fmt: skip
    function = functools.partial(nce, mu=nce_mu) if kind == "nce" else _function(kind)
    kept = torch.ones_like(delta_real, dtype=torch.bool) if mask is None else mask.bool()
    # chosen before the loss, so that a NaN of a pair that does not count never meets a gradient
    real_P, generated_P = torch.where(kept, delta_real, 0.0), torch.where(kept, delta_generated, 0.0)
    loss_P = function(real_P, generated_P, beta=beta, offset=offset)
    if not isinstance(loss_P, Tensor) or loss_P.shape != delta_real.shape:
        found = list(loss_P.shape) if isinstance(loss_P, Tensor) else type(loss_P).__name__
        raise ConfigError(f"the pair loss {kind!r} must return a tensor of shape {list(delta_real.shape)}, got {found}")
    count = kept.sum().clamp(min=1)
    loss = torch.where(kept, loss_P, 0.0).sum() / (count if normalizer is None else normalizer)
    return loss, _statistics(loss_P.detach(), real_P.detach(), generated_P.detach(), kept, beta)


def _statistics(loss_P: Tensor, real_P: Tensor, generated_P: Tensor, kept: Tensor, beta: float) -> dict[str, Tensor]:
    per_pair = {
        "loss": loss_P,
        "accuracy": (real_P > generated_P).to(loss_P.dtype),
        "rewards/real": beta * real_P,
        "rewards/generated": beta * generated_P,
        "margin": beta * (real_P - generated_P),
    }
    count = kept.sum()
    means = {name: torch.where(kept, x, 0.0).sum() / count.clamp(min=1) for name, x in per_pair.items()}
    return {"count": count.to(loss_P.dtype), **means}


def sft_factor(kind: str, beta: float, *, offset: float = 0.0, nce_mu: float = 1.0) -> float:
    """`a`: the first expected gradient of a round is `a` times the gradient of the demonstration's summed NLL.

    `-d loss / d delta_real` at `delta = 0`. The drawn side adds nothing in expectation, because
    `E_{z ~ pi}[grad log pi(z)] = 0`; that holds for draws from the policy itself, end token included, not for tempered
    or truncated ones.
    """
    zero = torch.zeros(1, dtype=torch.float64)
    real = zero.clone().requires_grad_()
    loss, _ = mean_pair_loss(kind, real, zero, beta=beta, offset=offset, nce_mu=nce_mu)
    (slope,) = torch.autograd.grad(loss, real)
    return -float(slope)
