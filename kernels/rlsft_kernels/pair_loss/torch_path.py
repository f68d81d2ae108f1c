"""pair_loss and its gradients by hand, in plain PyTorch: what backend="reference" runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlsft_kernels.pair_loss.reference import MAX_EXPONENT, STATS, pair_terms


@dataclass(frozen=True)
class PairTerms:
    """The settings of the loss."""

    kind: str
    beta: float
    offset: float
    label_smoothing: float


def slopes(real: Tensor, generated: Tensor, terms: PairTerms) -> tuple[Tensor, Tensor]:
    """Derivatives of each pair's loss by both sides."""
    x = terms.beta * (real - generated)
    rho_real, rho_generated = terms.beta * real + terms.offset, terms.beta * generated + terms.offset
    one = torch.ones_like(x)
    if terms.kind == "logistic":
        pull = torch.sigmoid(-x) - terms.label_smoothing
        return -terms.beta * pull, terms.beta * pull
    if terms.kind == "linear":
        return -terms.beta * one, terms.beta * one
    if terms.kind == "hinge":
        pull = torch.where(x >= 1, 0, one)
        return -terms.beta * pull, terms.beta * pull
    if terms.kind == "bernoulli":
        return -terms.beta * torch.sigmoid(-rho_real), terms.beta * torch.sigmoid(rho_generated)
    weight = torch.where(rho_generated > MAX_EXPONENT, 0, rho_generated.clamp(max=MAX_EXPONENT).exp())
    return -terms.beta * one, terms.beta * weight


def pair_loss_fwd(
    real_P: Tensor,
    generated_P: Tensor,
    mask_P: Tensor | None,  # bool
    normalizer: Tensor | None,  # 0-d
    terms: PairTerms,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(loss, stats [len(STATS)], gradients of the loss by both sides)."""
    real_P, generated_P = real_P.to(dtype), generated_P.to(dtype)
    mask_P = torch.ones_like(real_P, dtype=torch.bool) if mask_P is None else mask_P
    loss_P, is_saturated_P = pair_terms(
        real_P, generated_P, terms.beta, terms.kind, terms.offset, terms.label_smoothing
    )
    per_pair = {
        "count": torch.ones_like(loss_P),
        "loss": loss_P,
        "accuracy": (real_P > generated_P).to(dtype),
        "rewards/real": terms.beta * real_P,
        "rewards/generated": terms.beta * generated_P,
        "margin": terms.beta * (real_P - generated_P),
        "saturation": is_saturated_P.to(dtype),
    }
    # masked pairs may hold NaN: selected, never multiplied by the mask
    sums = torch.stack([torch.where(mask_P, per_pair[name], 0).sum() for name in STATS])
    count = sums[0].clamp(min=1)
    divisor = count if normalizer is None else normalizer.to(dtype)
    gradients = [torch.where(mask_P, x / divisor, 0).contiguous() for x in slopes(real_P, generated_P, terms)]
    return sums[1] / divisor, torch.cat((sums[:1], sums[1:] / count)), gradients[0], gradients[1]
