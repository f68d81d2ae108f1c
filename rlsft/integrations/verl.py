"""verl on our ops: fused log-probabilities and entropy, GAE, and the policy loss `rlsft_ppo`. Experimental.

Set `VERL_USE_EXTERNAL_MODULES=rlsft.integrations.verl` and `RLSFT_VERL=1`, and every Ray worker that imports verl is
patched; or call `patch()` in each. The losses run on a CPU against the real package; no run on GPUs has been made.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rlsft.integrations.replacements import Hook, Replacements
from rlsft_kernels import kl_shaped_gae, linear_logprob, logprob_from_logits, policy_value_loss

POLICY_LOSS = "rlsft_ppo"
_verl = Replacements("verl", versions=((0, 9, 1), (0, 10)))


def patch() -> None:
    """Replace verl's fused head, GAE and unfused log-probabilities by ours and register the policy loss `rlsft_ppo`.

    With `actor_rollout_ref.model.use_fused_kernels=True` the backends `torch` and `triton` run `linear_logprob`; with
    `algorithm.adv_estimator=gae` advantages come from `kl_shaped_gae`; `actor.policy_loss.loss_mode=rlsft_ppo` is
    verl's vanilla loss in one pass. Megatron's tensor-parallel head and flash-attn's in-place cross-entropy stay.

    Raises:
        RunError: verl is missing, of another version, or its functions take other arguments.
    """
    if _verl.applied:
        return
    _verl.apply([hook for hook in HOOKS if hook.name != "logprobs_from_logits" or not _has_flash_attention()])
    algorithms = HOOKS[0].owner()
    # the function of that name answers calls by attribute, the registry those by name
    _replace_entry(algorithms.ADV_ESTIMATOR_REGISTRY, "gae", algorithms.compute_gae_advantage_return)
    _replace_entry(algorithms.POLICY_LOSS_REGISTRY, POLICY_LOSS, policy_loss)


def unpatch() -> None:
    """Put verl's own functions back."""
    _verl.undo()


@contextmanager
def patched() -> Iterator[None]:
    """`with patched(): ...`: verl on our ops inside, on its own again afterwards."""
    patch()
    try:
        yield
    finally:
        unpatch()


def fused_linear_for_ppo(
    _module: Any,
    hidden_states: Tensor,  # [..., H]
    vocab_weights: Tensor,  # [V, H]
    input_ids: Tensor,  # [...], what each position predicts
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """`FusedLinearForPPO.forward`: log-probability and entropy of every token, `[...]` each, without logits."""
    out = linear_logprob(
        hidden_states, vocab_weights, input_ids.long(), temperature=temperature, outputs=("logprob", "entropy")
    )
    assert out.logprob is not None
    assert out.entropy is not None
    return out.logprob, out.entropy


def linear_cross_entropy_of(original: Any) -> Any:
    """`linear_cross_entropy` of verl's triton backend; a vocabulary split over ranks is left to `original`."""

    @functools.wraps(original)
    def linear_cross_entropy(
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        temperature: float = 1.0,
        reduction: str = "none",
        dist_process_group: dist.ProcessGroup | None = None,
    ) -> tuple[Tensor, Tensor]:
        split = dist_process_group is not None and dist.get_world_size(dist_process_group) > 1
        if split or reduction != "none":
            return original(hidden, weight, labels, temperature, reduction, dist_process_group)
        logprobs, entropy = fused_linear_for_ppo(None, hidden, weight, labels, temperature)
        return logprobs.flatten(), entropy.flatten()

    return linear_cross_entropy


def logprobs_from_logits(logits: Tensor, labels: Tensor, inplace_backward: bool = True) -> Tensor:
    """Log-probabilities of `labels [...]` under `logits [..., V]`, float32; nothing is written in place."""
    logprobs = logprob_from_logits(logits, labels).logprob
    assert logprobs is not None
    return logprobs


def gae_advantage_return(
    token_level_rewards: Tensor,  # [B, T]
    values: Tensor,  # [B, T]
    response_mask: Tensor,  # [B, T]
    gamma: float | Tensor,
    lam: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """`compute_gae_advantage_return`: whitened advantages and returns `[B, T]`, zero outside the mask.

    verl carries value and advantage across masked tokens, as `kl_shaped_gae` does; what it leaves at masked tokens
    themselves is not reproduced. A batch with fewer than two tokens is not whitened, where verl raises.
    """
    rewards, values = token_level_rewards.float(), values.float()
    out = kl_shaped_gae(
        rewards, torch.zeros_like(values), None, values, response_mask.bool(), kl_coef=0.0, gamma=float(gamma),
        lam=float(lam),
    )  # fmt: skip
    return out.advantages, out.returns


def policy_loss(
    old_log_prob: Tensor,  # [B, T]
    log_prob: Tensor,  # [B, T]
    advantages: Tensor,  # [B, T]
    response_mask: Tensor,  # [B, T]
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: Tensor | None = None,  # [B, T]
) -> tuple[Tensor, dict[str, Any]]:
    """verl's `vanilla` PPO loss (clipped, dual-clipped, every `loss_agg_mode`) in one pass; `(loss, metrics)`.

    The loss is linear in non-negative factors of the advantages, so the weight that verl's aggregation gives a token,
    and its rollout-correction weight, go there.
    """
    weights = _aggregation_weights(response_mask, loss_agg_mode, config.global_batch_info)
    if rollout_is_weights is not None:
        weights = weights * rollout_is_weights.detach()
    low, high = (config.clip_ratio if x is None else x for x in (config.clip_ratio_low, config.clip_ratio_high))
    loss, stats = policy_value_loss(
        log_prob.float(), old_log_prob.float(), advantages.float() * weights, None, None, None, response_mask.bool(),
        clip_low=low, clip_high=high, dual_clip=config.get("clip_ratio_c", 3.0), normalizer=1.0,
    )  # fmt: skip
    metrics = {
        "actor/pg_clipfrac": stats["clipfrac"].item(),
        "actor/ppo_kl": stats["approxkl_k1"].item(),
        "actor/pg_clipfrac_lower": stats["clipfrac_lower"].item(),
    }
    return loss, metrics


def _aggregation_weights(mask: Tensor, mode: str, batch_info: dict[str, Any]) -> Tensor:
    """[B, T]: what verl's `agg_loss` multiplies each token's loss by; it is linear, so this is its gradient."""
    from verl.trainer.ppo.core_algos import agg_loss

    with torch.enable_grad():
        losses = torch.zeros(mask.shape, device=mask.device, requires_grad=True)
        (weights,) = torch.autograd.grad(agg_loss(losses, mask, mode, **batch_info), losses)
    return weights


def _replace_entry(registry: dict[str, Any], name: str, ours: Any) -> None:
    had, before = name in registry, registry.get(name)

    def restore() -> None:
        if had:
            registry[name] = before
        else:
            registry.pop(name, None)

    registry[name] = ours
    _verl.undo_steps.append(restore)


def _has_flash_attention() -> bool:
    from verl.utils import torch_functional

    return bool(getattr(torch_functional, "FLAH_ATTN_CROSS_ENTROPY_LOSS_AVAILABLE", False))  # verl's own spelling


HOOKS = (
    Hook(
        "verl.trainer.ppo.core_algos", "compute_gae_advantage_return",
        ("token_level_rewards", "values", "response_mask", "gamma", "lam"), lambda _: gae_advantage_return,
    ),
    Hook(
        "verl.utils.experimental.torch_functional", "FusedLinearForPPO.forward",
        ("self", "hidden_states", "vocab_weights", "input_ids", "temperature"), lambda _: fused_linear_for_ppo,
    ),
    Hook(
        "verl.utils.kernel.linear_cross_entropy", "linear_cross_entropy", ("args", "kwargs"), linear_cross_entropy_of,
    ),
    Hook(
        "verl.utils.torch_functional", "logprobs_from_logits", ("logits", "labels", "inplace_backward"),
        lambda _: logprobs_from_logits,
    ),
)  # fmt: skip

if os.environ.get("RLSFT_VERL") == "1":
    patch()
