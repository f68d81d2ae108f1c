"""OpenRLHF on our ops: log-probabilities without logits, policy loss and GAE. Experimental.

OpenRLHF has no plugin hook: call `patch()` in the launcher and in every Ray worker, before its trainers are built.
The functions run on a CPU against the real package, with its GPU-only imports left out; no run on GPUs has been made.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from rlsft.integrations.replacements import Hook, Replacements
from rlsft.models.head import causal_lm_of, lm_head_of
from rlsft_kernels import kl_shaped_gae, linear_logprob, logprob_from_logits, policy_value_loss

_openrlhf = Replacements("openrlhf", versions=((0, 11, 2), (0, 12)))


def patch() -> None:
    """Replace `Actor.forward`, the log-probability and entropy of logits, `PolicyLoss` and GAE by ours.

    Raises:
        RunError: OpenRLHF is missing, of another version, or its functions take other arguments.
    """
    _openrlhf.apply(HOOKS)


def unpatch() -> None:
    """Put OpenRLHF's own functions back."""
    _openrlhf.undo()


@contextmanager
def patched() -> Iterator[None]:
    """`with patched(): ...`: OpenRLHF on our ops inside, on its own again afterwards."""
    patch()
    try:
        yield
    finally:
        unpatch()


def log_probs_from_logits(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities of `labels [...]` under `logits [..., V] / temperature`, float32; logits stay as they are."""
    logprobs = logprob_from_logits(logits, labels, temperature=temperature).logprob
    assert logprobs is not None
    return logprobs


def compute_entropy(logits: Tensor) -> Tensor:
    """Entropy `[...]` of the softmax of `logits [..., V]`, in one pass and differentiable."""
    anything = torch.zeros(logits.shape[:-1], dtype=torch.int64, device=logits.device)
    entropy = logprob_from_logits(logits, anything, outputs=("entropy",)).entropy
    assert entropy is not None
    return entropy


def actor_forward_of(original: Any) -> Any:
    """`Actor.forward` without logits where only log-probabilities and entropy are asked for, else `original`."""

    @functools.wraps(original)
    def forward(
        self: Any,
        sequences: Tensor,  # [B, T]
        action_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_output: bool = False,
        allgather_logits: bool = False,
        return_logprobs: bool = False,
        ring_attn_group: Any = None,
        packed_seq_lens: Any = None,
        return_entropy: bool = False,
        **mm_inputs: Any,
    ) -> Any:
        wants_logits = action_mask is None and not return_logprobs
        special = mm_inputs or getattr(self, "is_vlm", False) or getattr(self, "packing_samples", False)
        if wants_logits or special or attention_mask is None or _is_partitioned(self.model):
            return original(
                self, sequences, action_mask, attention_mask, return_output, allgather_logits, return_logprobs,
                ring_attn_group, packed_seq_lens, return_entropy, **mm_inputs,
            )  # fmt: skip
        logprobs, entropy, output = _scored(self, sequences, attention_mask, return_entropy)
        if return_entropy:
            output.entropy = entropy
        if action_mask is not None:
            logprobs = logprobs[:, -action_mask.shape[1] :] * action_mask.float()
        return (logprobs, output) if return_output else logprobs

    return forward


def _is_partitioned(model: Any) -> bool:
    """ZeRO-3: the weight of the head is there inside its own forward only, and our backward needs it later."""
    return any(hasattr(p, "ds_id") for p in model.parameters())


def _scored(
    actor: Any, sequences_BT: Tensor, attention_mask_BT: Tensor, with_entropy: bool
) -> tuple[Tensor, Tensor | None, Any]:
    """Log-probability (and entropy) of every token after the first, and the model's output without logits."""
    position_ids_BT = attention_mask_BT.long().cumsum(-1) - 1
    position_ids_BT.masked_fill_(attention_mask_BT == 0, 1)
    hidden_BTH, output = _hidden_states(actor.model, sequences_BT, attention_mask_BT, position_ids_BT)
    head = lm_head_of(actor.model)
    out = linear_logprob(
        hidden_BTH[:, :-1],
        head.weight.to(hidden_BTH.dtype),
        sequences_BT[:, 1:],
        bias=None if head.bias is None else head.bias.to(hidden_BTH.dtype),
        temperature=actor.temperature,
        softcap=head.softcap,
        logit_scale=head.logit_scale,
        outputs=("logprob", "entropy") if with_entropy else ("logprob",),
    )
    assert out.logprob is not None
    return out.logprob, out.entropy, output


def _hidden_states(model: Any, sequences: Tensor, attention_mask: Tensor, position_ids: Tensor) -> tuple[Tensor, Any]:
    """What reaches the head, through a call of the whole model whose head sees one position."""
    captured: list[Tensor] = []

    def keep(_layer: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        captured.append(args[0])
        return (args[0][:, :1].detach(), *args[1:])

    handle = causal_lm_of(model).get_output_embeddings().register_forward_pre_hook(keep)
    try:
        output = model(sequences, attention_mask=attention_mask, position_ids=position_ids)
    finally:
        handle.remove()
    return captured[0], output


def policy_loss_of(original: Any) -> Any:
    """`PolicyLoss.forward`: the PPO loss in one pass; GSPO and the rollout correction are left to `original`."""

    @functools.wraps(original)
    def forward(
        self: Any,
        log_probs: Tensor,  # [B, T], as all below
        old_log_probs: Tensor,
        advantages: Tensor,
        action_mask: Tensor | None = None,
        rollout_log_probs: Tensor | None = None,
        dp_size: int = 1,
        batch_num_tokens: float | None = None,
        global_batch_size: float | None = None,
    ) -> Any:
        if self.policy_loss_type != "ppo" or self.is_correction_level != "off" or action_mask is None:
            return original(
                self, log_probs, old_log_probs, advantages, action_mask, rollout_log_probs, dp_size, batch_num_tokens,
                global_batch_size,
            )  # fmt: skip
        batch = (dp_size, batch_num_tokens, global_batch_size)
        weights = _aggregation_weights(action_mask, self.token_level_loss, *batch)
        loss, stats = policy_value_loss(
            log_probs.float(), old_log_probs.float(), advantages.float() * weights, None, None, None,
            action_mask.bool(), clip_low=self.clip_eps_low, clip_high=self.clip_eps_high, dual_clip=self.dual_clip,
            normalizer=1.0,
        )  # fmt: skip
        # the KL of a token is not clamped in the loss's own report, unlike the ratio of the loss
        log_ratio = (old_log_probs - log_probs).detach().float() * action_mask
        return loss, stats["clipfrac"], log_ratio.sum() / action_mask.sum(), None, None

    return forward


def get_advantages_and_returns(
    _maker: Any,
    values: Tensor,  # [B, T]
    rewards: Tensor,  # [B, T]
    action_mask: Tensor | None,  # [B, T]
    gamma: float,
    lambd: float,
) -> tuple[Tensor, Tensor]:
    """`RemoteExperienceMaker.get_advantages_and_returns`: un-whitened advantages and returns `[B, T]`.

    Equal to OpenRLHF's loop where the mask is a run of ones; a hole in it (a tool's answer) is passed over, where the
    loop would take its value and reward as zero.
    """
    mask = torch.ones_like(values, dtype=torch.bool) if action_mask is None else action_mask.bool()
    out = kl_shaped_gae(
        rewards.float(), torch.zeros_like(values, dtype=torch.float32), None, values.float(), mask, kl_coef=0.0,
        gamma=gamma, lam=lambd, whiten=False,
    )  # fmt: skip
    return out.advantages, out.returns


def _aggregation_weights(
    mask: Tensor, token_level: bool, dp_size: int, batch_num_tokens: Any, global_batch_size: Any
) -> Tensor:
    """[B, T]: what OpenRLHF's `aggregate_loss` multiplies each token's loss by; it is linear, so its gradient."""
    from openrlhf.models.loss import aggregate_loss

    with torch.enable_grad():
        losses = torch.zeros(mask.shape, device=mask.device, requires_grad=True)
        total = aggregate_loss(losses, mask, token_level, dp_size, batch_num_tokens, global_batch_size)
        (weights,) = torch.autograd.grad(total, losses)
    return weights


_BATCH = ("dp_size", "batch_num_tokens", "global_batch_size")
HOOKS = (
    Hook(
        "openrlhf.models.utils", "log_probs_from_logits", ("logits", "labels", "temperature"),
        lambda _: log_probs_from_logits,
    ),
    Hook("openrlhf.models.utils", "compute_entropy", ("logits",), lambda _: compute_entropy),
    Hook(
        "openrlhf.models.actor", "Actor.forward",
        ("self", "sequences", "action_mask", "attention_mask", "return_output", "allgather_logits", "return_logprobs",
         "ring_attn_group", "packed_seq_lens", "return_entropy", "mm_inputs"), actor_forward_of,
    ),
    Hook(
        "openrlhf.models.loss", "PolicyLoss.forward",
        ("self", "log_probs", "old_log_probs", "advantages", "action_mask", "rollout_log_probs", *_BATCH),
        policy_loss_of,
    ),
    Hook(
        "openrlhf.trainer.ppo_utils.experience_maker", "RemoteExperienceMaker.get_advantages_and_returns",
        ("self", "values", "rewards", "action_mask", "gamma", "lambd"), lambda _: get_advantages_and_returns,
    ),
)  # fmt: skip
