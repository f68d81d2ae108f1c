"""pairwise_reward_loss on the compiled core."""

from __future__ import annotations

import torch
from torch import Tensor

from rlsft_kernels._columns import as_column, as_optional_column, scalar
from rlsft_kernels.pairwise_reward_loss.torch_path import STATS


def pairwise_reward_loss_native(
    chosen_P: Tensor, rejected_P: Tensor, margin_P: Tensor | None, center_coef: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(mean loss, stats [len(STATS)], its gradients by chosen and rejected), float32."""
    from rlsft_kernels import _C

    stats = torch.empty(len(STATS), dtype=torch.float32, device="cpu")
    grad_chosen_P, grad_rejected_P = (torch.empty(chosen_P.shape, dtype=torch.float32, device="cpu") for _ in range(2))
    loss = _C.pairwise_reward_loss(
        as_column(chosen_P), as_column(rejected_P), as_optional_column(margin_P), center_coef,
        torch.get_num_threads(), grad_chosen_P.numpy(), grad_rejected_P.numpy(), stats.numpy(),
    )  # fmt: skip
    return scalar(loss), stats, grad_chosen_P, grad_rejected_P
