"""ppo_chain: from hidden states and scores to PPO's loss in one call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsft_kernels._backend import Backend, Supported
from rlsft_kernels._checks import require_float_tensor, require_like, require_mask, require_number
from rlsft_kernels._head.select import SUPPORTED as HEAD_SUPPORTED
from rlsft_kernels._head.tiling import DEFAULT_TILE_BYTES
from rlsft_kernels.kl_shaped_gae.op import GaeOutput, kl_shaped_gae
from rlsft_kernels.linear_logprob.op import linear_logprob
from rlsft_kernels.linear_policy_loss.op import linear_policy_loss
from rlsft_kernels.policy_value_loss.op import policy_value_loss

SUPPORTED: Supported = HEAD_SUPPORTED  # that of its costly step
_IGNORED = -100  # the target of a masked token: it leaves before the first product


def ppo_chain(
    hidden: Tensor,  # [B, T, H], or [N, H] with cu_seqlens
    ref_hidden: Tensor | None,  # shaped like hidden
    weight: Tensor,  # [V, H], dtype of hidden
    targets: Tensor,  # [B, T] or [N] int64
    scores: Tensor,  # [B], or shaped like targets
    values: Tensor,  # shaped like targets
    mask: Tensor,  # shaped like targets, bool or integer
    *,
    old_logprobs: Tensor | None = None,  # shaped like targets
    old_values: Tensor | None = None,
    ref_weight: Tensor | None = None,  # [V, H]
    kl_coef: float | Tensor = 0.05,
    kl_estimator: str = "k1",
    gamma: float = 1.0,
    lam: float = 0.95,
    whiten: bool = True,
    bootstrap_values: Tensor | None = None,  # [B]
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    value_clip: float | None = 0.2,
    vf_coef: float = 0.1,
    entropy_coef: float = 0.0,
    normalizer: float | Tensor | None = None,
    cu_seqlens: Tensor | None = None,  # [B + 1]
    bias: Tensor | None = None,  # [V]
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    lora: tuple[Tensor, Tensor, float] | None = None,
    tile_bytes: int = DEFAULT_TILE_BYTES,
    memory_budget: int = 0,
    backend: Backend = "auto",
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's loss from last hidden states: log-probabilities, KL-shaped reward, GAE, clipped losses; `(loss, stats)`.

    Equal to `linear_logprob` of policy and reference, `kl_shaped_gae` and `policy_value_loss` called one after the
    other, and cheaper: masked tokens leave before the first product, and with `old_logprobs` the advantages do not wait
    for the current policy, so that its gradient is made in its forward by `linear_policy_loss`. Without them (the first
    update after sampling) the current log-probabilities, detached, take their place.

    Gradients flow to hidden, weight, bias, the adapter and values. Whitening is over the whole call: pass the batch of
    a rollout, or call the steps one by one when it is cut into micro-batches.

    Args:
        hidden: last hidden states of the policy.
        ref_hidden: those of the reference policy; None leaves the KL penalty out.
        weight: weight of the output embedding.
        targets: the tokens taken.
        scores: reward of each sequence, or one a token.
        values: predicted values.
        mask: nonzero at action tokens; what stands elsewhere does not matter.
        old_logprobs: log-probabilities under the policy that drew the tokens.
        old_values: values at rollout time; None takes `values`, detached.
        ref_weight: head of the reference; None takes `weight`, without the adapter.
        kl_coef: weight of the KL penalty in the reward; a number or a 0-d tensor.
        kl_estimator: "k1", "k2" or "k3".
        gamma: discount.
        lam: trace decay.
        whiten: whether the advantages are whitened.
        bootstrap_values: value after the last token of each row, for answers cut off rather than ended.
        clip_low: lower clip range of the ratio.
        clip_high: upper clip range of the ratio.
        dual_clip: bound on the ratio for negative advantages, above 1; None switches it off.
        value_clip: clip range of the value; None switches it off.
        vf_coef: weight of the value loss.
        entropy_coef: weight of the entropy bonus.
        normalizer: what sums over tokens are divided by; None is the number of unmasked tokens.
        cu_seqlens: offsets of the sequences in the flat layout.
        bias: bias of the output embedding.
        temperature: the one the tokens were drawn with.
        softcap: cap of the final logits.
        logit_scale: factor on the logits.
        lora: a low-rank update of the head, `(A, B, scale)`, without merging it; the reference runs without it.
        tile_bytes: memory of the logits tile, an upper limit.
        memory_budget: bytes of logits kept for a backward that would compute them again (without `old_logprobs`).
        backend: which implementation runs; "auto" picks by device and dtype.

    Returns:
        The 0-d loss, and 0-d tensors on the device: the statistics of `policy_value_loss`, and those of `kl_shaped_gae`
        with "gae/" before their names.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or setting does not fit.
    """
    drawn_before = {"old_logprobs": old_logprobs, "old_values": old_values}
    counted = _check(hidden, ref_hidden, targets, values, mask, drawn_before)
    require_number("entropy_coef", entropy_coef)
    marked = torch.where(counted, targets, _IGNORED)
    head: dict[str, Any] = {
        "bias": bias, "softcap": softcap, "logit_scale": logit_scale, "temperature": temperature,
        "tile_bytes": tile_bytes, "backend": backend,
    }  # fmt: skip
    ref_head = weight if ref_weight is None else ref_weight
    ref_logprobs = None if ref_hidden is None else _reference(ref_hidden, ref_head, marked, head)
    valued = values.detach() if old_values is None else old_values
    shaping: dict[str, Any] = {
        "kl_coef": kl_coef, "kl_estimator": kl_estimator, "gamma": gamma, "lam": lam, "whiten": whiten,
        "bootstrap_values": bootstrap_values, "cu_seqlens": cu_seqlens, "backend": backend,
    }  # fmt: skip
    clips: dict[str, Any] = {"clip_low": clip_low, "clip_high": clip_high, "dual_clip": dual_clip}
    value_part: dict[str, Any] = {"value_clip": value_clip, "vf_coef": vf_coef, "backend": backend}
    if old_logprobs is not None:
        drawn = old_logprobs.detach()
        gae = _gae(scores, drawn, ref_logprobs, valued, counted, shaping)
        policy, stats = linear_policy_loss(
            hidden, weight, targets, gae.advantages, drawn, mask=counted, **clips, entropy_coef=entropy_coef,
            normalizer=normalizer, lora=lora, **head,
        )  # fmt: skip
        # without advantages the policy part of this op is zero: what it adds is the value loss
        idle = torch.zeros_like(gae.advantages)
        value, value_stats = policy_value_loss(
            idle, idle, idle, _wide(values, idle), _wide(valued, idle), gae.returns, counted, normalizer=normalizer,
            **value_part,
        )  # fmt: skip
        stats |= {name: value_stats[name] for name in ("loss/value", "vf_clipfrac")}
        return policy + value, stats | _prefixed(gae.stats)
    out = linear_logprob(
        hidden, weight, marked, outputs=("logprob", "entropy"), lora=lora,
        memory_budget=memory_budget, **head,
    )  # fmt: skip
    assert out.logprob is not None
    drawn = out.logprob.detach()
    gae = _gae(scores, drawn, ref_logprobs, valued, counted, shaping)
    loss, stats = policy_value_loss(
        out.logprob, drawn, gae.advantages, _wide(values, drawn), _wide(valued, drawn), gae.returns, counted, **clips,
        entropy=out.entropy, entropy_coef=entropy_coef, normalizer=normalizer, **value_part,
    )  # fmt: skip
    return loss, stats | _prefixed(gae.stats)


def _check(
    hidden: Tensor,
    ref_hidden: Tensor | None,
    targets: Tensor,
    values: Tensor,
    mask: Tensor,
    optional: dict[str, Tensor | None],
) -> Tensor:
    """The mask as bool; the ops that are called check the rest under the same names."""
    require_mask("mask", mask, "targets", targets)
    if ref_hidden is not None:
        require_like("ref_hidden", ref_hidden, "hidden", hidden)
    for name, x in {"values": values, **optional}.items():
        if x is None:
            continue
        require_float_tensor(name, x)
        if x.shape != targets.shape:
            raise ValueError(f"{name} must be shaped like targets {list(targets.shape)}, got {list(x.shape)}")
    return mask != 0


def _reference(ref_hidden: Tensor, ref_weight: Tensor, marked: Tensor, head: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        out = linear_logprob(ref_hidden, ref_weight, marked, **head)
    assert out.logprob is not None
    return out.logprob


def _gae(
    scores: Tensor,
    drawn: Tensor,
    ref_logprobs: Tensor | None,
    valued: Tensor,
    counted: Tensor,
    shaping: dict[str, Any],
) -> GaeOutput:
    ref = None if ref_logprobs is None else _wide(ref_logprobs, drawn)
    return kl_shaped_gae(scores, drawn, ref, _wide(valued, drawn), counted, **shaping)


def _wide(x: Tensor, like: Tensor) -> Tensor:
    """Token numbers meet in one dtype, that of the log-probabilities."""
    return x.to(like.dtype)


def _prefixed(stats: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"gae/{name}": x for name, x in stats.items()}
