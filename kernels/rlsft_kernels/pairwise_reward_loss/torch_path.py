"""pairwise_reward_loss and its gradients by hand, in plain PyTorch: what backend="reference" runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

STATS = ("count", "loss/ranking", "loss/center", "accuracy", "margin", "chosen", "rejected")


def pairwise_reward_loss_fwd(
    chosen_P: Tensor, rejected_P: Tensor, margin_P: Tensor | None, center_coef: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(mean loss, stats [len(STATS)]: the count, then means, gradients of the loss by chosen and rejected)."""
    chosen_P, rejected_P = chosen_P.to(dtype), rejected_P.to(dtype)
    difference_P = chosen_P - rejected_P
    gap_P = difference_P if margin_P is None else difference_P - margin_P.to(dtype)
    ranking_P = -F.logsigmoid(gap_P)
    center_P = chosen_P + rejected_P
    # without centring its square must not enter: it overflows for scores that the ranking term still takes
    loss_P = ranking_P if center_coef == 0 else ranking_P + center_coef * center_P.square()
    pull_P = torch.sigmoid(-gap_P)  # probability that the model gives to the wrong order
    push_P = 2 * center_coef * center_P
    per_pair = {
        "count": torch.ones_like(gap_P),
        "loss/ranking": ranking_P,
        "loss/center": center_P.square(),
        "accuracy": (difference_P > 0).to(dtype),
        "margin": difference_P,
        "chosen": chosen_P,
        "rejected": rejected_P,
    }
    pairs = max(1, len(chosen_P))
    sums = torch.stack([per_pair[name].sum() for name in STATS])
    stats = torch.cat((sums[:1], sums[1:] / pairs))
    return loss_P.sum() / pairs, stats, (push_P - pull_P) / pairs, (push_P + pull_P) / pairs
