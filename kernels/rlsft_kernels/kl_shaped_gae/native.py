"""kl_shaped_gae on the compiled core: one pass over rows of any length, padded or flat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rlsft_kernels._columns import as_column, as_mask, as_optional_column
from rlsft_kernels.kl_shaped_gae.reference import STATS
from rlsft_kernels.policy_value_loss.reference import KL_ESTIMATORS


def kl_shaped_gae_native(
    scores: Tensor,  # [B], or shaped like values
    logprobs: Tensor,  # [B, T], or [N] with offsets; on the CPU
    ref_logprobs: Tensor | None,
    values: Tensor,
    mask: Tensor,  # bool or integer
    *,
    kl_coef: float,
    kl_estimator: str,
    gamma: float,
    lam: float,
    whiten: bool,
    bootstrap_values: Tensor | None,  # [B]
    offsets: Tensor | None,  # [B + 1] int64 in the flat layout
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(advantages, returns, moments [2], stats [len(STATS)]), float32."""
    from rlsft_kernels import _C

    if offsets is None:
        num_rows, width = values.shape
        offsets_B1 = np.arange(num_rows + 1, dtype=np.int64) * width
    else:
        offsets_B1 = offsets.contiguous().numpy()
        num_rows = len(offsets_B1) - 1
    outputs = [
        torch.empty(size, dtype=torch.float32, device="cpu")
        for size in (values.shape, values.shape, (2,), (len(STATS),))
    ]
    _C.kl_shaped_gae(
        as_column(scores), None if ref_logprobs is None else as_column(logprobs), as_optional_column(ref_logprobs),
        as_column(values), as_mask(mask), None if bootstrap_values is None else as_column(bootstrap_values.float()),
        offsets_B1, tuple(scores.shape) != (num_rows,), kl_coef, KL_ESTIMATORS.index(kl_estimator), gamma, lam,
        whiten, torch.get_num_threads(), *(x.numpy() for x in outputs),
    )  # fmt: skip
    return outputs[0], outputs[1], outputs[2], outputs[3]
