"""The losses of a micro-batch: PPO's clipped ratio and APA's regression, each with the value loss."""

from __future__ import annotations

from torch import Tensor

from rlsft.objectives import apa_loss
from rlsft.rollouts import RolloutBatch
from rlsft.trainers.ppo.actor_critic import PolicyOutputs
from rlsft.trainers.ppo.config import PPOConfig
from rlsft_kernels import policy_value_loss


def clipped_loss(
    out: PolicyOutputs, inputs: RolloutBatch, args: PPOConfig, normalizer: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's clipped policy and value loss."""
    old_logprobs, advantages = inputs.need("old_logprobs", "advantages")
    has_value = out.values is not None
    return policy_value_loss(
        out.logprobs,
        old_logprobs,
        advantages,
        out.values,
        inputs.values if has_value else None,
        inputs.returns if has_value else None,
        inputs.completion_mask,
        clip_low=args.cliprange,
        clip_high=args.cliprange,
        dual_clip=args.dual_clip,
        value_clip=args.cliprange_value,
        vf_coef=args.vf_coef,
        entropy=out.entropy,
        entropy_coef=args.entropy_coef,
        normalizer=normalizer,
    )


def apa_regression_loss(
    out: PolicyOutputs, inputs: RolloutBatch, args: PPOConfig, normalizer: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """APA's regression of the log-ratio to the reference on the advantage, and the value loss."""
    old_logprobs, ref_logprobs, advantages = inputs.need("old_logprobs", "ref_logprobs", "advantages")
    return apa_loss(
        out.logprobs,
        ref_logprobs,
        advantages,
        inputs.completion_mask,
        beta=args.kl_coef,
        old_logprobs=old_logprobs,
        values=out.values,
        returns=inputs.returns,
        vf_coef=args.vf_coef,
        entropy=out.entropy,
        entropy_coef=args.entropy_coef,
        normalizer=normalizer,
    )
