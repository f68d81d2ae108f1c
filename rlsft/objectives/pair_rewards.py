"""Losses of explicit rewards on pairs: a demonstration should score higher than the policy's own answer."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PairLoss = Literal["logistic", "linear"]
PAIR_LOSSES = ("logistic", "linear")
SPANS = ("sequence", "divergence")


def bounded_rewards(
    raw: Tensor,  # any shape
    bound: float | None,
) -> Tensor:
    """`R * sigmoid(raw)`, a reward in (0, R); `raw` itself where `bound` is None."""
    return raw if bound is None else bound * raw.sigmoid()


def pair_losses(
    chosen: Tensor,  # any shape
    rejected: Tensor,  # shape of chosen
    *,
    margin: Tensor | None = None,  # broadcasts to chosen
    kind: PairLoss = "logistic",
    center_coef: float = 0.0,
) -> Tensor:
    """Loss of each pair, with `d = chosen - rejected - margin`.

    `logistic`: `-log sigmoid(d)`. `linear`: `-d`, whose gradient is that of the bilevel maximum-likelihood problem
    (arXiv 2405.17888) times beta; it has no lower bound, so the rewards must have one. Both add
    `center_coef * (chosen + rejected)^2`.
    """
    difference = chosen - rejected if margin is None else chosen - rejected - margin
    losses = -F.logsigmoid(difference) if kind == "logistic" else -difference
    return losses if center_coef == 0.0 else losses + center_coef * (chosen + rejected).square()


def divergence_losses(
    chosen: Tensor,  # [B, T] reward at every token
    rejected: Tensor,  # [B, T]
    chosen_ids: Tensor,  # [B, T] int64
    rejected_ids: Tensor,  # [B, T] int64
    chosen_mask: Tensor,  # [B, T] bool: the answer's tokens
    rejected_mask: Tensor,  # [B, T] bool
    *,
    margin: Tensor | None = None,  # [B]
    kind: PairLoss = "logistic",
    center_coef: float = 0.0,
) -> Tensor:  # [B]
    """Mean of `pair_losses` over the tokens from the first that differs to the end of the longer answer.

    As the released code of arXiv 2405.17888 has it. There the shorter answer is read on padding beyond its end; here
    it keeps the reward of its last token, so that padding changes nothing. Answers are aligned at their first token.
    Equal answers have a span of one token, the last.
    """
    lengths = torch.stack([chosen_mask.sum(dim=1), rejected_mask.sum(dim=1)])
    width = int(lengths.max())
    steps_W = torch.arange(width, device=chosen.device)
    chosen_BW, chosen_ids_BW = _aligned(chosen, chosen_ids, chosen_mask, steps_W)
    rejected_BW, rejected_ids_BW = _aligned(rejected, rejected_ids, rejected_mask, steps_W)
    both_real_BW = steps_W < lengths.amin(dim=0)[:, None]
    same_BW = (chosen_ids_BW == rejected_ids_BW) & both_real_BW
    end_B = lengths.amax(dim=0)
    first_B = torch.minimum(same_BW.long().cumprod(dim=1).sum(dim=1), end_B - 1)
    span_BW = (steps_W >= first_B[:, None]) & (steps_W < end_B[:, None])
    token_margin = None if margin is None else margin[:, None]
    losses_BW = pair_losses(chosen_BW, rejected_BW, margin=token_margin, kind=kind, center_coef=center_coef)
    return torch.where(span_BW, losses_BW, 0.0).sum(dim=1) / span_BW.sum(dim=1).clamp(min=1)


def _aligned(scores: Tensor, ids: Tensor, mask: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Scores and ids of the answer's tokens from column 0 on; columns past the end repeat the last token."""
    first_B = mask.long().argmax(dim=1)
    last_step_B = mask.sum(dim=1).clamp(min=1) - 1
    places_BW = first_B[:, None] + torch.minimum(steps[None], last_step_B[:, None])
    return scores.gather(1, places_BW), ids.gather(1, places_BW)
