"""Shaping of sequence scores before they become rewards: unfinished answers, centring, whitening."""

from __future__ import annotations

import torch
from torch import Tensor


def penalize_missing_eos(
    scores: Tensor,  # [S]
    ended: Tensor,  # [S] bool
    penalty: float,
) -> Tensor:  # [S]
    """`scores - penalty` where the answer was cut off before its end token, `scores` elsewhere (TRL's rule)."""
    if ended.dtype != torch.bool or ended.shape != scores.shape:
        raise ValueError(
            f"ended must be bool and shaped like scores {list(scores.shape)}, got {list(ended.shape)} {ended.dtype}"
        )
    if not penalty >= 0:
        raise ValueError(f"penalty must be >= 0 (it is subtracted), got {penalty!r}")
    return torch.where(ended, scores, scores - penalty)


def center_scores(
    scores: Tensor,  # [S]
    *,
    group_size: int | None = None,
) -> Tensor:  # [S]
    """Scores minus their mean: of the batch, or of each run of `group_size` answers (those of one prompt)."""
    groups = _grouped(scores, group_size)
    return (groups - groups.mean(dim=1, keepdim=True)).reshape(scores.shape)


def whiten_scores(
    scores: Tensor,  # [S]
    *,
    group_size: int | None = None,
    eps: float = 1e-8,
) -> Tensor:  # [S]
    """Centred scores over their unbiased standard deviation plus `eps`, by batch or by prompt.

    Equal scores, and a single one, become 0: there is nothing to tell apart. By prompt this is the advantage of GRPO
    (arXiv 2402.03300, eq. 3).
    """
    groups = _grouped(scores, group_size)
    centered = groups - groups.mean(dim=1, keepdim=True)
    if groups.shape[1] < 2:
        return torch.zeros_like(scores)
    # the mean of equal numbers may be off by a rounding, which a deviation of the same size would blow up to 1
    equal = groups.amax(dim=1, keepdim=True) == groups.amin(dim=1, keepdim=True)
    whitened = torch.where(equal, 0, centered / (groups.std(dim=1, keepdim=True) + eps))
    return whitened.reshape(scores.shape)


def _grouped(scores: Tensor, group_size: int | None) -> Tensor:
    """[groups, answers of one]; None is one group."""
    if scores.ndim != 1 or not scores.is_floating_point():
        raise ValueError(f"scores must be [S] float, one an answer, got {list(scores.shape)} {scores.dtype}")
    if group_size is None:
        return scores[None]
    if group_size < 1 or len(scores) % group_size:
        raise ValueError(
            f"group_size must divide the number of scores, got {group_size} for {len(scores)} scores; "
            "answers of one prompt lie side by side"
        )
    return scores.view(-1, group_size)
