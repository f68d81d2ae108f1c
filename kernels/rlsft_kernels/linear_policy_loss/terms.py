"""Token terms of a policy loss: value, gradient by log-probability and entropy, statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rlsft_kernels.policy_value_loss.torch_path import LossTerms, kl_terms, policy_terms

LOSS_KINDS = ("ppo", "cispo", "reinforce")
# name -> (why its gradient needs more than the token itself, what to call instead)
_AFTER = "linear_logprob, then your coefficients: its backward takes any gradient by the log-probabilities"
_PAIRS = "linear_pair_loss, or linear_logprob, sums over each answer and pair_loss"
TWO_PHASE: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("gspo", "geo_mean", "luspo"), ("a ratio over the whole sequence", _AFTER)),
    "vespo": ("a weight over the whole sequence", _AFTER),
    **dict.fromkeys(("clip_cov", "kl_cov"), ("a covariance over the batch", _AFTER)),
    **dict.fromkeys(("dpo", "ipo", "spin", "irft", "simpo", "orpo", "kto"), ("sums over whole answers", _PAIRS)),
}


@dataclass(frozen=True)
class PolicyTokens:
    """What a loss knows of its rows, [L] each, in the statistics dtype."""

    advantages: Tensor
    old_logprobs: Tensor
    ref_logprobs: Tensor | None
    weights: Tensor

    def of(self, rows: slice) -> PolicyTokens:
        """Some rows."""
        ref = None if self.ref_logprobs is None else self.ref_logprobs[rows]
        return PolicyTokens(self.advantages[rows], self.old_logprobs[rows], ref, self.weights[rows])


@dataclass(frozen=True)
class TokenLoss:
    """Per row: the loss, its gradients (already weighted), and the statistics."""

    loss: Tensor
    by_logprob: Tensor
    by_entropy: Tensor | None
    statistics: dict[str, Tensor]


def token_loss(kind: str, terms: LossTerms, logp: Tensor, entropy: Tensor | None, tokens: PolicyTokens) -> TokenLoss:
    """`weights * (policy - entropy_coef * entropy + kl_coef * kl)`; `entropy` may be None where it has no weight."""
    policy, slope, statistics = _policy(kind, terms, logp, tokens)
    per_token, by_logprob, by_entropy = policy, slope, None
    if entropy is not None:
        statistics["entropy"] = entropy
        if terms.entropy_coef != 0:
            per_token = per_token - terms.entropy_coef * entropy
            by_entropy = -terms.entropy_coef * tokens.weights
    if tokens.ref_logprobs is not None:
        kl, kl_slope = kl_terms(logp, tokens.ref_logprobs, terms.kl_estimator)
        statistics["kl_ref"] = kl
        per_token, by_logprob = per_token + terms.kl_coef * kl, by_logprob + terms.kl_coef * kl_slope
    return TokenLoss(tokens.weights * per_token, tokens.weights * by_logprob, by_entropy, statistics)


def _policy(
    kind: str, terms: LossTerms, logp: Tensor, tokens: PolicyTokens
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    adv = tokens.advantages
    loss, slope, statistics = policy_terms(logp, tokens.old_logprobs, adv, terms)
    if kind == "ppo":
        return loss, slope, statistics
    if kind == "cispo":
        ratio = statistics["ratio"]
        clipped_ratio = ratio.clamp(1 - terms.clip_low, 1 + terms.clip_high)
        slope = -clipped_ratio * adv
        statistics["clipfrac"] = ratio != clipped_ratio
    else:
        slope = -adv
        statistics["clipfrac"] = torch.zeros_like(statistics["clipfrac"])
    statistics["clipfrac_lower"] = torch.zeros_like(statistics["clipfrac_lower"])
    statistics["loss/policy"] = slope * logp
    return statistics["loss/policy"], slope, statistics
