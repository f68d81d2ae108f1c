"""How token losses become one number: a weight for each token and what the weighted sum is divided by."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlsft_kernels._checks import require_choice, require_number, require_offsets

Aggregation = Literal["token-mean", "token-sum", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]
AGGREGATIONS: tuple[str, ...] = (
    "token-mean", "token-sum", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"
)  # fmt: skip


def aggregation_weights(
    mask: Tensor,  # [B, T] or [N] bool
    aggregation: Aggregation,
    *,
    cu_seqlens: Tensor | None = None,  # [B + 1], for [N]
    max_length: float | None = None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """`(weights, normalizer)`: the loss is `sum(weights * token_loss) / normalizer`.

    "token-mean" (DAPO, BNPO) divides by the tokens, "token-sum" by 1; "seq-mean-token-mean" (GRPO) is the mean over
    sequences of their means, "seq-mean-token-sum" of their sums, and "seq-mean-token-sum-norm" (Dr. GRPO) of their sums
    over the constant `max_length`. A sequence without a token does not count. Nothing is read back from a GPU.

    Raises:
        ValueError: an unknown name, a missing `max_length`, or [N] tokens without `cu_seqlens`.
    """
    require_choice("aggregation", aggregation, AGGREGATIONS)
    weights = mask.to(dtype)
    one = torch.ones((), dtype=dtype, device=mask.device)
    if aggregation == "token-sum":
        return weights, one
    if aggregation == "token-mean":
        return weights, weights.sum().clamp(min=1)
    lengths = _sequence_lengths(mask, cu_seqlens, dtype)
    sequences = (lengths > 0).sum().to(dtype).clamp(min=1)
    if aggregation == "seq-mean-token-mean":
        return weights / _per_token(lengths.clamp(min=1), mask, cu_seqlens), sequences
    if aggregation == "seq-mean-token-sum":
        return weights, sequences
    if max_length is None:
        raise ValueError("max_length is needed with aggregation='seq-mean-token-sum-norm', got None")
    require_number("max_length", max_length, above=0)
    return weights / max_length, sequences


def place_normalizer(weights: Tensor, normalizer: float | Tensor, dtype: torch.dtype) -> tuple[Tensor, float | Tensor]:
    """`(weights, what is left to divide by)`: within the weights, so that a gradient made in the forward is final.

    In float16 it stays outside: small gradients would vanish before the factor of a GradScaler reaches them.
    """
    return (weights, normalizer) if dtype == torch.float16 else (weights / normalizer, 1.0)


def _sequence_lengths(mask: Tensor, cu_seqlens: Tensor | None, dtype: torch.dtype) -> Tensor:  # [B]
    if mask.ndim == 2:
        return mask.sum(dim=1).to(dtype)
    if cu_seqlens is None:
        raise ValueError("cu_seqlens is needed to aggregate over sequences of flat [N] tokens, got None")
    counted = torch.cat((mask.new_zeros(1, dtype=torch.int64), mask.long().cumsum(0)))
    return (counted[cu_seqlens[1:]] - counted[cu_seqlens[:-1]]).to(dtype)


def _per_token(per_sequence_B: Tensor, mask: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    if cu_seqlens is None:
        return per_sequence_B[:, None]
    return per_sequence_B.repeat_interleave(cu_seqlens[1:] - cu_seqlens[:-1], output_size=len(mask))


def check_offsets(cu_seqlens: Tensor | None, num_tokens: int) -> None:
    """Offsets of flat tokens, checked where that waits for nobody."""
    if cu_seqlens is not None and cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
        require_offsets("cu_seqlens", cu_seqlens, num_tokens, "tokens")
