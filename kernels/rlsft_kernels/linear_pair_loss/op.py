"""linear_pair_loss: the IRFT, SPIN and DPO losses from hidden states, in memory that does not grow with length."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsft_kernels._aggregation import check_offsets
from rlsft_kernels._backend import Backend, Supported
from rlsft_kernels._checks import require_float_tensor, require_mask, require_shape
from rlsft_kernels._head.select import SUPPORTED as HEAD_SUPPORTED
from rlsft_kernels._head.tiling import DEFAULT_TILE_BYTES
from rlsft_kernels.linear_logprob.op import linear_logprob
from rlsft_kernels.pair_loss.op import pair_loss

SUPPORTED: Supported = HEAD_SUPPORTED  # that of its costly step
_IGNORED = -100  # the target of a token that does not count: it leaves before the first product


def linear_pair_loss(
    hidden: Tensor,  # [2P, T, H], or [N, H] with cu_seqlens
    weight: Tensor,  # [V, H], dtype of hidden
    targets: Tensor,  # [2P, T] or [N] int64
    mask: Tensor,  # shaped like targets, bool or integer
    ref_logprob_sums: Tensor | None = None,  # [2P]
    *,
    beta: float,
    kind: str = "logistic",
    offset: float = 0.0,
    label_smoothing: float = 0.0,
    normalize_length: bool = False,
    pair_mask: Tensor | None = None,  # [P]
    normalizer: float | Tensor | None = None,
    cu_seqlens: Tensor | None = None,  # [2P + 1] int64
    bias: Tensor | None = None,  # [V]
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    lora: tuple[Tensor, Tensor, float] | None = None,
    tile_bytes: int = DEFAULT_TILE_BYTES,
    memory_budget: int = 0,
    backend: Backend = "auto",
) -> tuple[Tensor, dict[str, Tensor]]:
    """`pair_loss` of whole answers from their last hidden states, without the logits; `(loss, stats)`.

    The first P sequences are the real (chosen) answers, the last P the generated (rejected) ones, in the same order.
    Each answer's log-ratio is `sum over its counted tokens of logprob - ref_logprob_sum`, with `normalize_length`
    divided by the number of those tokens; `pair_loss` gives one coefficient a sequence, and the backward of
    `linear_logprob` takes it to every token. Beside the gradients there is one tile of logits and a few numbers a
    token, however long the answers are; four matrix products for loss and gradients, three with a memory budget for
    all logits.

    Args:
        hidden: last hidden states, real answers first.
        weight: weight of the output embedding.
        targets: the tokens of the answers.
        mask: nonzero at tokens of the answer; what stands elsewhere (prompt, padding) does not matter.
        ref_logprob_sums: summed log-probability of each answer under the reference (the generator, in IRFT and SPIN), a
            constant that is worth caching; None leaves the reference out.
        beta: factor of the log-ratios, above 0.
        kind: "logistic", "linear", "hinge", "bernoulli" or "kliep": see `pair_loss`.
        offset: added to each scaled log-ratio; only "bernoulli" and "kliep" can tell.
        label_smoothing: share of the pairs taken to be the wrong way round; only for "logistic".
        normalize_length: means over tokens instead of sums.
        pair_mask: nonzero where a pair counts; None is everywhere.
        normalizer: what the sum over pairs is divided by; None is the number of pairs that count.
        cu_seqlens: offsets of the 2P sequences in flat tokens.
        bias: bias of the output embedding.
        temperature: a positive number, or one per token.
        softcap: cap of the final logits.
        logit_scale: factor on the logits.
        lora: a low-rank update of the head, `(A, B, scale)`, without merging it.
        tile_bytes: memory of the logits tile, an upper limit.
        memory_budget: bytes of logits to keep for the backward.
        backend: which implementation runs; "auto" picks by device and dtype.

    Returns:
        The 0-d loss and the statistics of `pair_loss`, with `logprobs/real` and `logprobs/generated` (mean sums of the
        answers under the policy): a real side that falls is the first sign of collapse.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or setting does not fit.
    """
    require_mask("mask", mask, "targets", targets)
    num_sequences = _count_sequences(targets, cu_seqlens)
    counted = mask != 0
    logprob = linear_logprob(
        hidden, weight, torch.where(counted, targets, _IGNORED), bias=bias, temperature=temperature, softcap=softcap,
        logit_scale=logit_scale, lora=lora, tile_bytes=tile_bytes, memory_budget=memory_budget, backend=backend,
    ).logprob  # fmt: skip
    assert logprob is not None
    sums_S = _sequence_sums(logprob, cu_seqlens)
    delta_S = sums_S
    if ref_logprob_sums is not None:
        require_float_tensor("ref_logprob_sums", ref_logprob_sums)
        require_shape("ref_logprob_sums", ref_logprob_sums, "S", (num_sequences,))
        delta_S = sums_S - ref_logprob_sums.detach().to(sums_S.dtype)
    if normalize_length:
        delta_S = delta_S / _sequence_sums(counted.to(sums_S.dtype), cu_seqlens).clamp(min=1)
    pairs = num_sequences // 2
    loss, stats = pair_loss(
        delta_S[:pairs], delta_S[pairs:], beta=beta, kind=kind, offset=offset, label_smoothing=label_smoothing,
        mask=pair_mask, normalizer=normalizer, backend=backend,
    )  # fmt: skip
    return loss, stats | _logprob_means(sums_S.detach(), pair_mask)


def _count_sequences(targets: Tensor, cu_seqlens: Tensor | None) -> int:
    if cu_seqlens is None:
        if targets.ndim != 2:
            raise ValueError(f"targets must be [2P, T], or [N] with cu_seqlens, got {list(targets.shape)}")
        num_sequences = targets.shape[0]
    else:
        check_offsets(cu_seqlens, targets.numel())
        num_sequences = len(cu_seqlens) - 1
    if num_sequences % 2:
        raise ValueError(f"there must be as many real as generated answers, got {num_sequences} sequences in all")
    return num_sequences


def _sequence_sums(x: Tensor, cu_seqlens: Tensor | None) -> Tensor:  # [2P]
    if cu_seqlens is None:
        return x.sum(dim=1)
    # differences of a running sum: no atomics, nothing to wait for; float64 keeps what they would cancel
    running = torch.cat((x.new_zeros(1, dtype=torch.float64), x.double().cumsum(0)))
    return (running[cu_seqlens[1:]] - running[cu_seqlens[:-1]]).to(x.dtype)


def _logprob_means(sums_S: Tensor, pair_mask: Tensor | None) -> dict[str, Tensor]:
    names: Any = ("logprobs/real", "logprobs/generated")
    by_side = sums_S.view(2, -1)
    if pair_mask is None:
        return dict(zip(names, (by_side.sum(dim=1) / max(1, by_side.shape[1])).unbind(), strict=True))
    kept = pair_mask != 0
    return dict(zip(names, (torch.where(kept, by_side, 0).sum(dim=1) / kept.sum().clamp(min=1)).unbind(), strict=True))
