"""policy_value_loss and its gradients by hand, in plain PyTorch: what backend="reference" runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlsft_kernels.policy_value_loss.reference import MAX_K3, MAX_LOG_RATIO, kl_estimate

# Order of the statistics vector; all but count and ratio_max leave the op as sums over the tokens that count.
SUMS = (
    "count", "loss/policy", "loss/value", "entropy", "kl_ref", "approxkl_k1", "approxkl_k2", "approxkl_k3",
    "clipfrac", "clipfrac_lower", "vf_clipfrac", "ratio", "ratio_centered_square", "ratio_max",
)  # fmt: skip


@dataclass(frozen=True)
class LossTerms:
    """The settings of the loss."""

    clip_low: float
    clip_high: float
    dual_clip: float | None
    value_clip: float | None
    vf_coef: float
    entropy_coef: float
    kl_coef: float
    kl_estimator: str


def policy_terms(logp: Tensor, old: Tensor, adv: Tensor, terms: LossTerms) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Per-token clipped policy loss, its gradient by `logp`, and per-token statistics (PPO, arXiv
    1707.06347).

    `max(-A r, -A clip(r, 1 - low, 1 + high))`, and with a dual clip c no more than `-A c` where A < 0
    (arXiv 1912.09729). Where both branches are equal the unclipped one gives the gradient.
    """
    difference = logp - old
    log_ratio = difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    unclipped = -adv * ratio
    clipped = -adv * ratio.clamp(1 - terms.clip_low, 1 + terms.clip_high)
    is_clipped = clipped > unclipped
    loss = torch.where(is_clipped, clipped, unclipped)
    is_bounded = torch.zeros_like(is_clipped)
    if terms.dual_clip is not None:
        bound = -adv * terms.dual_clip
        is_bounded = (adv < 0) & (loss > bound)
        loss = torch.where(is_bounded, bound, loss)
    flat = is_clipped | is_bounded | (difference.abs() > MAX_LOG_RATIO)
    statistics = {
        "loss/policy": loss,
        "approxkl_k1": -log_ratio,
        "approxkl_k2": log_ratio.square() / 2,
        "approxkl_k3": torch.expm1(log_ratio) - log_ratio,
        "clipfrac": is_clipped,
        "clipfrac_lower": is_bounded,
        "ratio": ratio,
    }
    return loss, torch.where(flat, 0, unclipped), statistics


def value_terms(value: Tensor, old: Tensor, target: Tensor, clip: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Per-token `max((v - R)^2, (clip(v, old +- eps) - R)^2) / 2`, its gradient by v, where the clip won."""
    error = value - target
    if clip is None:
        return error.square() / 2, error, torch.zeros_like(error, dtype=torch.bool)
    move = value - old
    capped_error = old + move.clamp(-clip, clip) - target
    is_clipped = capped_error.square() > error.square()
    gradient = torch.where(is_clipped, torch.where(move.abs() <= clip, capped_error, 0), error)
    return torch.where(is_clipped, capped_error, error).square() / 2, gradient, is_clipped


def kl_terms(logp: Tensor, ref: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Per-token KL estimate and its gradient by `logp`, zero where a clamp of the estimate holds."""
    difference = logp - ref
    estimate = kl_estimate(logp, ref, kind)
    if kind == "k1":
        gradient = torch.ones_like(difference)
    elif kind == "k2":
        gradient = difference
    else:
        gradient = torch.where(estimate < MAX_K3, -torch.expm1(-difference), 0)
    return estimate, torch.where(difference.abs() > MAX_LOG_RATIO, 0, gradient)


def policy_value_loss_fwd(
    tokens: dict[str, Tensor | None],  # each of one shape; None where a part is left out
    mask: Tensor,  # bool, the same shape
    terms: LossTerms,
    moments: Tensor | None,  # [2]
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(summed loss, sums [len(SUMS)], gradients of the sum by logprobs, values and entropy)."""
    # masked tokens may hold NaN: every result is selected by `where`, never multiplied by the mask
    wide = {name: None if x is None else x.to(dtype) for name, x in tokens.items()}
    logp, old, adv = (_given(wide, name) for name in ("logprobs", "old_logprobs", "advantages"))
    if moments is not None:
        adv = (adv - moments[0].to(dtype)) * moments[1].to(dtype)
    per_token, grad_logp, statistics = policy_terms(logp, old, adv, terms)
    grad_value, grad_entropy = logp.new_empty(0), logp.new_empty(0)  # two: outputs of an op may not alias
    if wide["values"] is not None:
        value_loss, slope, is_clipped = value_terms(
            wide["values"], _given(wide, "old_values"), _given(wide, "returns"), terms.value_clip
        )
        statistics |= {"loss/value": value_loss, "vf_clipfrac": is_clipped}
        per_token = per_token + terms.vf_coef * value_loss
        grad_value = torch.where(mask, terms.vf_coef * slope, 0)
    if wide["entropy"] is not None:
        statistics["entropy"] = wide["entropy"]
        per_token = per_token - terms.entropy_coef * wide["entropy"]
        grad_entropy = -terms.entropy_coef * mask.to(dtype)
    if wide["ref_logprobs"] is not None:
        kl, slope = kl_terms(logp, wide["ref_logprobs"], terms.kl_estimator)
        statistics["kl_ref"] = kl
        per_token = per_token + terms.kl_coef * kl
        grad_logp = grad_logp + terms.kl_coef * slope
    loss = torch.where(mask, per_token, 0).sum()
    gradients = (torch.where(mask, grad_logp, 0), grad_value, grad_entropy)
    # the layout that arithmetic on differently strided inputs leaves is not what a compiler was told
    grad_logp, grad_value, grad_entropy = (x.contiguous() for x in gradients)
    return loss, sum_statistics(statistics, mask, dtype), grad_logp, grad_value, grad_entropy


def _given(wide: dict[str, Tensor | None], name: str) -> Tensor:
    x = wide[name]
    assert x is not None, f"{name} is required here; the public function checks it"
    return x


def sum_statistics(statistics: dict[str, Tensor], mask: Tensor, dtype: torch.dtype) -> Tensor:  # [len(SUMS)]
    """Sums of per-token statistics over the tokens that count, in the order of SUMS; what is not there is 0."""
    count = mask.sum().to(dtype)
    kept = {name: torch.where(mask, x.to(dtype), 0) for name, x in statistics.items()}
    sums = {name: x.sum() for name, x in kept.items()} | {"count": count}
    # centred before squaring: the ratios are all close to 1, and sum(r^2) - mean^2 would cancel
    centered = torch.where(mask, kept["ratio"] - sums["ratio"] / count.clamp(min=1), 0)
    sums["ratio_centered_square"] = centered.square().sum()
    sums["ratio_max"] = kept["ratio"].amax() if kept["ratio"].numel() else torch.zeros_like(count)
    return torch.stack([sums.get(name, torch.zeros_like(count)) for name in SUMS])
