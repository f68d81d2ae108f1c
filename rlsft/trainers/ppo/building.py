"""What `PPOTrainer` is built of: models from folders, the maker of its experience, the controller of its KL."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from rlsft.errors import ConfigError
from rlsft.models import load_causal_lm
from rlsft.objectives import AdaptiveKLController, FixedKLController
from rlsft.rollouts import RolloutEngine, TransformersEngine
from rlsft.trainers.ppo.actor_critic import ActorCritic
from rlsft.trainers.ppo.config import PPOConfig
from rlsft.trainers.ppo.reference import Reference
from rlsft.trainers.ppo.rollout import ExperienceMaker
from rlsft.trainers.ppo.scoring import Scorer, check_reward


def loaded(model: str | os.PathLike[str] | nn.Module, args: PPOConfig) -> nn.Module:
    """A causal LM as it is given, or from its folder."""
    if isinstance(model, nn.Module):
        return model
    return load_causal_lm(model, dtype=args.dtype, attn_implementation=args.attn_implementation)


def experience_maker(
    args: PPOConfig,
    actor_critic: ActorCritic,
    reference: Reference,
    tokenizer: Any,
    max_length: int,
    *,
    reward: Any,
    reward_tokenizer: Any,
    engine: RolloutEngine | None,
    accelerator: Any,
) -> ExperienceMaker:
    """The maker of a trainer's experience, on the devices and ranks of its accelerator.

    Args:
        args: settings.
        actor_critic: policy and value model.
        reference: for the KL.
        tokenizer: the policy's.
        max_length: tokens of prompt and answer together.
        reward: as `Scorer` takes it.
        reward_tokenizer: the reward model's; None = the policy's.
        engine: draws the answers; None = `TransformersEngine` on the policy.
        accelerator: of the trainer.

    Raises:
        ConfigError: a reward that shares weights with the policy, or settings that the reward contradicts.
    """
    if reference.model is not None:
        reference.model.to(args.device)
    check_reward(reward, actor_critic)
    scorer = Scorer(
        reward,
        reward_tokenizer if reward_tokenizer is not None else tokenizer,
        weights=args.reward_weights,
        batch_size=args.local_rollout_forward_batch_size or args.per_device_eval_batch_size,
        max_length=args.max_length or max_length,
        system_prompt=args.system_prompt,
        device=args.device,
    )
    if scorer.token_level:
        args.check_token_rewards()
    if engine is None:
        engine = TransformersEngine(
            actor_critic.policy,
            tokenizer,
            batch_size=args.generation_batch_size,
            stop_token_ids=_stop_token_ids(args.stop_token, tokenizer),
        )
    return ExperienceMaker(
        args, actor_critic, reference, engine, scorer, tokenizer,
        max_length=max_length, autocast=accelerator.autocast, gather=accelerator.gather, rank=args.process_index,
    )  # fmt: skip


def _stop_token_ids(stop_token: str | None, tokenizer: Any) -> list[int] | None:
    if stop_token is None or stop_token == "eos":
        return None
    ids = tokenizer(stop_token, add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise ConfigError(f"stop_token={stop_token!r} must be one token of the tokenizer, but it is {len(ids)} tokens")
    return list(ids)


def kl_controller(args: PPOConfig) -> AdaptiveKLController | FixedKLController:
    """The weight of the KL: fixed, or steered to `kl_target`."""
    if args.kl_ctrl == "adaptive":
        return AdaptiveKLController(args.kl_coef, target=args.kl_target, horizon=args.kl_horizon)
    return FixedKLController(args.kl_coef)
