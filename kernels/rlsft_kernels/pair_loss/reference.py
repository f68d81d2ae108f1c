"""What pair_loss means, in plain PyTorch on the pairs that count. Tests treat this file as the truth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("logistic", "linear", "hinge", "bernoulli", "kliep")
# Order of the statistics vector: the number of pairs, then means over them.
STATS = ("count", "loss", "accuracy", "rewards/real", "rewards/generated", "margin", "saturation")
MAX_EXPONENT = 20.0  # of kliep: exp(20) is finite in every dtype; beyond it the generated side is pushed no more
SATURATED_PULL = 0.01  # a pair is saturated when less than this share of a sigmoid's largest slope is left


def pair_loss_reference(
    delta_real: Tensor,  # [P]
    delta_generated: Tensor,  # [P]
    *,
    beta: float,
    kind: str = "logistic",
    offset: float = 0.0,
    label_smoothing: float = 0.0,
    mask: Tensor | None = None,  # [P] bool
    normalizer: float | Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`(loss, stats)`, differentiable by autograd."""
    if mask is not None:
        delta_real, delta_generated = delta_real[mask], delta_generated[mask]
    loss, is_saturated = pair_terms(delta_real, delta_generated, beta, kind, offset, label_smoothing)
    pairs = max(1, len(loss))
    stats = {
        "loss": loss.sum() / pairs,
        "accuracy": (delta_real > delta_generated).sum().to(loss.dtype) / pairs,
        "rewards/real": (beta * delta_real).sum() / pairs,
        "rewards/generated": (beta * delta_generated).sum() / pairs,
        "margin": (beta * (delta_real - delta_generated)).sum() / pairs,
        "saturation": is_saturated.sum().to(loss.dtype) / pairs,
    }
    count = torch.tensor(float(len(loss)), dtype=loss.dtype)
    return loss.sum() / (pairs if normalizer is None else normalizer), {
        "count": count,
        **{name: value.detach() for name, value in stats.items()},
    }


def pair_terms(
    real: Tensor, generated: Tensor, beta: float, kind: str, offset: float, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Loss of each pair, and whether its pull is nearly gone."""
    x = beta * (real - generated)
    rho_real, rho_generated = beta * real + offset, beta * generated + offset
    if kind == "logistic":
        loss = -F.logsigmoid(x) if label_smoothing == 0 else label_smoothing * x - F.logsigmoid(x)
        return loss, torch.sigmoid(-x) < SATURATED_PULL
    if kind == "linear":
        return -x, torch.zeros_like(x, dtype=torch.bool)
    if kind == "hinge":
        return F.relu(1 - x), x >= 1
    if kind == "bernoulli":
        faint = (torch.sigmoid(-rho_real) < SATURATED_PULL) & (torch.sigmoid(rho_generated) < SATURATED_PULL)
        return -F.logsigmoid(rho_real) - F.logsigmoid(-rho_generated), faint
    return rho_generated.clamp(max=MAX_EXPONENT).exp() - rho_real, rho_generated > MAX_EXPONENT
