"""linear_policy_loss in tiles with its gradient made in the forward, for every backend."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlsft_kernels._head.gradients import HeadGradients, Needs, scatter_rows
from rlsft_kernels._head.head import Head, labelled_tokens, statistics_dtype
from rlsft_kernels._head.loss import LossPlan, loss_in_forward
from rlsft_kernels._head.rows import RowKernels
from rlsft_kernels._head.token_rule import TokenRule
from rlsft_kernels.linear_policy_loss.terms import LossTerms, PolicyTokens, token_loss
from rlsft_kernels.policy_value_loss.torch_path import sum_statistics

_WANTED = frozenset(("logprob", "entropy", "row_max", "log_sum"))
IGNORED = -100  # a target of rows that are left out, inside this op


@dataclass(frozen=True)
class PolicyLoss:
    """A loss over tokens: which formula, and its numbers."""

    kind: str
    terms: LossTerms
    drop_idle: bool

    def is_idle(self, advantages_N: Tensor, weights_N: Tensor) -> Tensor:
        """Rows whose gradient is zero whatever the policy says of them."""
        idle_N = weights_N == 0
        if self.terms.kl_coef == 0 and self.terms.entropy_coef == 0:
            idle_N = idle_N | (advantages_N == 0)
        return idle_N


def linear_policy_loss_fwd(
    head: Head,
    kernels: RowKernels,
    hiddens: tuple[Tensor, ...],  # each [N, H_k]
    targets_N: Tensor,
    mask_N: Tensor,  # bool
    tokens_N: PolicyTokens,  # masked rows may hold anything
    temperature: float | Tensor,
    loss: PolicyLoss,
    tile_bytes: int,
    needs: Needs,
    plan: LossPlan,
) -> tuple[Tensor, Tensor, HeadGradients]:
    """(weighted sum of the loss, sums of the statistics, gradients of the first)."""
    if loss.drop_idle:
        mask_N = mask_N & ~loss.is_idle(tokens_N.advantages, tokens_N.weights)
    marked_N = torch.where(mask_N, targets_N, IGNORED)
    rows, rows_L = labelled_tokens(hiddens, marked_N, temperature, IGNORED, head.num_columns)
    wide = statistics_dtype(head.dtype)
    tokens, mask_L = _counted(tokens_N, mask_N, rows_L, wide)

    def coefficients(part: slice, values: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        found = token_loss(loss.kind, loss.terms, values["logprob"], values["entropy"], tokens.of(part))
        return found.by_logprob, found.by_entropy

    rule = _rule(loss, tokens)
    values, gradients = loss_in_forward(head, kernels, rows, _WANTED, coefficients, needs, tile_bytes, plan, rule)
    found = token_loss(loss.kind, loss.terms, values["logprob"], values["entropy"], tokens)
    total = torch.where(mask_L, found.loss, 0).sum()
    hidden_grads = tuple(scatter_rows(x, rows_L, len(targets_N)) for x in gradients.hiddens)
    statistics = sum_statistics(found.statistics, mask_L, wide)
    return total, statistics, HeadGradients(hidden_grads, gradients.weights, gradients.bias)


def _rule(loss: PolicyLoss, tokens: PolicyTokens) -> TokenRule:
    t = loss.terms
    return TokenRule(
        loss.kind, tokens.weights, tokens.advantages, tokens.old_logprobs, tokens.ref_logprobs, t.clip_low, t.clip_high,
        t.dual_clip, t.kl_coef, t.kl_estimator, t.entropy_coef,
    )  # fmt: skip


def _counted(
    tokens_N: PolicyTokens, mask_N: Tensor, rows_L: Tensor | None, wide: torch.dtype
) -> tuple[PolicyTokens, Tensor]:
    """The tokens of the gathered rows; where all rows stay, zeros in place of what the mask hides."""

    def pick(x_N: Tensor | None) -> Tensor | None:
        if x_N is None:
            return None
        return torch.where(mask_N, x_N, 0).to(wide) if rows_L is None else x_N[rows_L].to(wide)

    advantages, old, ref, weights = (
        pick(x) for x in (tokens_N.advantages, tokens_N.old_logprobs, tokens_N.ref_logprobs, tokens_N.weights)
    )
    assert advantages is not None
    assert old is not None
    assert weights is not None
    mask_L = mask_N if rows_L is None else torch.ones_like(rows_L, dtype=torch.bool)
    return PolicyTokens(advantages, old, ref, weights), mask_L
