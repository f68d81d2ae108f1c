"""pair_loss on the compiled core."""

from __future__ import annotations

import torch
from torch import Tensor

from rlsft_kernels._columns import as_column, as_mask, scalar
from rlsft_kernels.pair_loss.reference import KINDS, STATS
from rlsft_kernels.pair_loss.torch_path import PairTerms


def pair_loss_native(
    real_P: Tensor, generated_P: Tensor, mask_P: Tensor | None, normalizer: Tensor | None, terms: PairTerms
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(loss, stats [len(STATS)], gradients of the loss by both sides), float32."""
    from rlsft_kernels import _C

    stats = torch.empty(len(STATS), dtype=torch.float32, device="cpu")
    grad_real_P, grad_generated_P = (torch.empty(real_P.shape, dtype=torch.float32, device="cpu") for _ in range(2))
    loss = _C.pair_loss(
        as_column(real_P), as_column(generated_P), None if mask_P is None else as_mask(mask_P),
        None if normalizer is None else float(normalizer), KINDS.index(terms.kind), terms.beta, terms.offset,
        terms.label_smoothing, torch.get_num_threads(), grad_real_P.numpy(), grad_generated_P.numpy(), stats.numpy(),
    )  # fmt: skip
    return scalar(loss), stats, grad_real_P, grad_generated_P
