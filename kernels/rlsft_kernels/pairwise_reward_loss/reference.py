"""What pairwise_reward_loss means, in plain PyTorch. Tests treat this file as the truth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pairwise_reward_loss_reference(
    chosen: Tensor,  # [P]
    rejected: Tensor,  # [P]
    *,
    margin: Tensor | None = None,  # [P]
    center_coef: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`(loss, stats)`, differentiable by autograd."""
    gap = chosen - rejected if margin is None else chosen - rejected - margin
    ranking = -F.logsigmoid(gap)
    centering = (chosen + rejected).square()
    pairs = torch.tensor(float(max(1, len(chosen))), dtype=chosen.dtype)
    stats = {
        "count": torch.tensor(float(len(chosen)), dtype=chosen.dtype),
        "loss/ranking": ranking.sum() / pairs,
        "loss/center": centering.sum() / pairs,
        "accuracy": (chosen > rejected).sum() / pairs,
        "margin": (chosen - rejected).sum() / pairs,
        "chosen": chosen.sum() / pairs,
        "rejected": rejected.sum() / pairs,
    }
    loss = (ranking + center_coef * centering).sum() / pairs
    return loss, {name: value.detach() for name, value in stats.items()}
