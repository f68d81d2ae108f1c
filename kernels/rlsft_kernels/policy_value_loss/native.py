"""policy_value_loss on the compiled core: loss, gradients and statistics in one pass over the tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsft_kernels._columns import as_mask, as_optional_column, scalar
from rlsft_kernels.policy_value_loss.reference import KL_ESTIMATORS
from rlsft_kernels.policy_value_loss.torch_path import SUMS, LossTerms


def policy_value_loss_native(
    tokens: dict[str, Tensor | None],  # each of one shape on the CPU; None where a part is left out
    mask: Tensor,  # bool or integer, the same shape
    terms: LossTerms,
    moments: Tensor | None,  # [2]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(summed loss, sums [len(SUMS)], gradients of the sum by logprobs, values and entropy), float32."""
    from rlsft_kernels import _C

    columns = [as_optional_column(x) for x in tokens.values()]
    grads = [
        torch.empty(0 if tokens[name] is None else mask.shape, dtype=torch.float32, device="cpu")
        for name in ("logprobs", "values", "entropy")
    ]
    outputs = [None if columns[k] is None else grad.numpy() for k, grad in zip((0, 3, 6), grads, strict=True)]
    sums = torch.empty(len(SUMS), dtype=torch.float32, device="cpu")
    mean, scale = (0.0, 1.0) if moments is None else moments.tolist()
    arguments: list[Any] = [
        *columns, as_mask(mask), mean, scale, terms.clip_low, terms.clip_high, terms.dual_clip, terms.value_clip,
        terms.vf_coef, terms.entropy_coef, terms.kl_coef, KL_ESTIMATORS.index(terms.kl_estimator),
        torch.get_num_threads(), *outputs, sums.numpy(),
    ]  # fmt: skip
    total = _C.policy_value_loss(*arguments)
    return scalar(total), sums, grads[0], grads[1], grads[2]
