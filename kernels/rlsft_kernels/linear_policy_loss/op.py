"""linear_policy_loss: a policy-gradient loss from hidden states and the head, its gradient made in the forward."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from rlsft_kernels._aggregation import Aggregation, aggregation_weights, check_offsets, place_normalizer
from rlsft_kernels._backend import Backend, choose_backend
from rlsft_kernels._checks import (
    require_between,
    require_choice,
    require_mask,
    require_number,
    require_positive_int,
    require_scalar,
)
from rlsft_kernels._eager import refuse_forward_mode
from rlsft_kernels._head.head import Head, check_transform, checked_head, statistics_dtype
from rlsft_kernels._head.in_forward import (
    chosen_plan,
    fake_gradients,
    needed_gradients,
    save_head_gradients,
    scaled_head_gradients,
)
from rlsft_kernels._head.inputs import HeadInputs, gradients_for_inputs
from rlsft_kernels._head.lora import lora_factors
from rlsft_kernels._head.select import SUPPORTED, row_kernels
from rlsft_kernels._head.temperature import flat_temperature
from rlsft_kernels._head.tiling import DEFAULT_TILE_BYTES
from rlsft_kernels.linear_policy_loss.terms import LOSS_KINDS, TWO_PHASE, LossTerms, PolicyTokens
from rlsft_kernels.linear_policy_loss.tiled import PolicyLoss, linear_policy_loss_fwd
from rlsft_kernels.policy_value_loss.op import means_of_sums
from rlsft_kernels.policy_value_loss.reference import KL_ESTIMATORS
from rlsft_kernels.policy_value_loss.torch_path import SUMS


def linear_policy_loss(
    hidden: Tensor,  # [B, T, H] or [N, H] float32, bfloat16, float16 or float64
    weight: Tensor,  # [V, H], dtype of hidden
    targets: Tensor,  # [B, T] or [N] int64
    advantages: Tensor,  # shaped like targets, as all below
    old_logprobs: Tensor,
    *,
    mask: Tensor | None = None,  # bool or integer
    ref_logprobs: Tensor | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
    entropy_coef: float = 0.0,
    loss_kind: Literal["ppo", "cispo", "reinforce"] = "ppo",
    aggregation: Aggregation = "token-mean",
    normalizer: float | Tensor | None = None,  # a number or 0-d
    token_weights: Tensor | None = None,
    cu_seqlens: Tensor | None = None,  # [B + 1] int64, for [N]
    max_length: float | None = None,
    drop_idle: bool = False,
    bias: Tensor | None = None,  # [V]
    temperature: float | Tensor = 1.0,  # or one per token
    softcap: float | None = None,
    logit_scale: float = 1.0,
    lora: tuple[Tensor, Tensor, float] | None = None,  # A [r, H], B [V, r], scale
    tile_bytes: int = DEFAULT_TILE_BYTES,
    backend: Backend = "auto",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy loss over the tokens of a batch without the `[N, V]` logits; `(loss, stats)`.

    With `logp` as of `linear_logprob`, `r = exp(clamp(logp - old_logprobs, -20, 20))` and `A` the advantages, a
    token's loss is

    - "ppo": `max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))`, at most `-A dual_clip` where A < 0 (arXiv 1707.06347
      and 1912.09729; GRPO, DAPO, Dr. GRPO and BNPO are this with an `aggregation`);
    - "cispo": `-clip(r, 1 - clip_low, 1 + clip_high) A logp`, the clipped ratio a constant (arXiv 2506.13585);
    - "reinforce": `-A logp`;

    plus `kl_coef * kl(logp, ref_logprobs) - entropy_coef * entropy`. Each token's gradient depends on that token
    alone, so it is made while its logits are at hand: three matrix products for loss and gradients where a recomputing
    backward takes four (in bfloat16 over several tiles on a CPU four are faster, and taken), and tokens whose gradient
    turns out to be zero (clipped, no advantage) take one. A loss whose
    gradient needs whole sequences or the batch (GSPO, VESPO, clip-cov, the DPO family) is refused by name.

    Masked tokens add exactly zero to loss, gradient and statistics, whatever they hold. Gradients flow to hidden,
    weight, bias and the adapter. There is no second derivative.

    Args:
        hidden: last hidden states.
        weight: weight of the output embedding; frozen, it costs no gradient.
        targets: the tokens taken.
        advantages: constants.
        old_logprobs: log-probabilities under the policy that drew the tokens.
        mask: nonzero where a token counts; None counts all.
        ref_logprobs: log-probabilities under the reference policy.
        clip_low: lower clip range of the ratio.
        clip_high: upper clip range of the ratio.
        dual_clip: bound on the ratio for negative advantages, above 1; None switches it off.
        kl_coef: weight of the KL penalty; needs `ref_logprobs`.
        kl_estimator: "k1", "k2" or "k3".
        entropy_coef: weight of the entropy bonus.
        loss_kind: the formula of a token.
        aggregation: how token losses become one number, by verl's names: "token-mean" (DAPO, BNPO), "token-sum",
            "seq-mean-token-mean" (GRPO), "seq-mean-token-sum", "seq-mean-token-sum-norm" (Dr. GRPO).
        normalizer: what the weighted sum is divided by instead of the aggregation's own count: pass that of the whole
            batch when it is processed in micro-batches. A tensor stays on its device.
        token_weights: a further factor on each token's loss (importance weights), a constant.
        cu_seqlens: offsets of the sequences in flat tokens, for the "seq-" aggregations.
        max_length: the constant of "seq-mean-token-sum-norm".
        drop_idle: leave tokens whose gradient must be zero (no weight; or no advantage, without KL and entropy
            terms) out before the first product. Loss and gradients stay; statistics are then of the other tokens.
        bias: bias of the output embedding.
        temperature: the one the tokens were drawn with.
        softcap: cap of the final logits.
        logit_scale: factor on the logits.
        lora: a low-rank update of the head, `weight + scale * B @ A`, without merging it.
        tile_bytes: memory of the logits tile, an upper limit.
        backend: which implementation runs; "auto" picks by device and dtype.

    Returns:
        The 0-d loss, and 0-d tensors without gradient on the device: `count`, unweighted means over the counted tokens
        `loss/policy`, `entropy`, `kl_ref`, `approxkl_k1`, `approxkl_k2`, `approxkl_k3`, `clipfrac`, `clipfrac_lower`,
        `ratio_mean`, `ratio_var`, and `ratio_max`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or setting does not fit, or the loss needs two phases; on the CPU also a target
            outside the vocabulary.
    """
    refuse_forward_mode("linear_policy_loss", hidden, weight, bias)
    hidden, weight, bias = checked_head(hidden, weight, targets, bias)
    _check_kind(loss_kind)
    per_token = {"advantages": advantages, "old_logprobs": old_logprobs, "ref_logprobs": ref_logprobs}
    _check_tokens({**per_token, "token_weights": token_weights}, targets)
    terms = LossTerms(clip_low, clip_high, dual_clip, None, 0.0, entropy_coef, kl_coef, kl_estimator)
    _check_settings(terms, ref_logprobs, normalizer)
    check_transform(softcap, logit_scale)
    require_positive_int("tile_bytes", tile_bytes)
    counted = _counted_tokens(mask, targets)
    check_offsets(cu_seqlens, targets.numel())
    weights, divisor = aggregation_weights(
        counted, aggregation, cu_seqlens=cu_seqlens, max_length=max_length, dtype=statistics_dtype(hidden.dtype)
    )
    weights = weights if token_weights is None else weights * torch.where(counted, token_weights, 0)
    weights, left = place_normalizer(weights, divisor if normalizer is None else normalizer, hidden.dtype)
    hidden_NH = hidden.reshape(-1, hidden.shape[-1])
    lora_hidden, lora_weight = lora_factors(hidden_NH, weight, lora)
    temperature_N, temperature_one = flat_temperature(temperature, targets)
    total, sums, *_ = torch.ops.rlsft.linear_policy_loss(
        hidden_NH, weight, targets.reshape(-1), bias, lora_hidden, lora_weight, advantages.reshape(-1),
        old_logprobs.reshape(-1), None if ref_logprobs is None else ref_logprobs.reshape(-1), weights.reshape(-1),
        counted.reshape(-1), temperature_N, temperature_one, softcap, float(logit_scale), loss_kind, float(clip_low),
        float(clip_high), dual_clip, float(kl_coef), kl_estimator, float(entropy_coef), drop_idle, tile_bytes,
        needed_gradients(hidden_NH, weight, bias, lora_hidden, lora_weight), backend,
    )  # fmt: skip
    absent = {"loss/value", "vf_clipfrac"} | ({"kl_ref"} if ref_logprobs is None else set())
    return total / left, means_of_sums(sums, absent)


def _check_kind(loss_kind: str) -> None:
    if loss_kind in TWO_PHASE:
        reason, instead = TWO_PHASE[loss_kind]
        raise ValueError(
            f"loss_kind={loss_kind!r} needs {reason}, so no token's gradient is known in the forward; use {instead}"
        )
    require_choice("loss_kind", loss_kind, LOSS_KINDS)


def _check_tokens(per_token: dict[str, Tensor | None], targets: Tensor) -> None:
    for name, x in per_token.items():
        if x is None:
            continue
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(x).__name__}")
        if not x.dtype.is_floating_point:
            raise TypeError(f"{name} must be floating point, got {x.dtype}; convert it, e.g. {name}.float()")
        if x.shape != targets.shape:
            raise ValueError(f"{name} must be shaped like targets {list(targets.shape)}, got {list(x.shape)}")
        if x.device != targets.device:
            raise ValueError(f"{name} must be on {targets.device} like targets, got {x.device}")
        if x.requires_grad:
            raise ValueError(f"{name} gets no gradient; pass {name}.detach()")


def _check_settings(terms: LossTerms, ref_logprobs: Tensor | None, normalizer: float | Tensor | None) -> None:
    require_between("clip_low", terms.clip_low, 0, 1)
    require_number("clip_high", terms.clip_high, at_least=0)
    if terms.dual_clip is not None:
        require_number("dual_clip", terms.dual_clip, above=1)
    require_number("kl_coef", terms.kl_coef)
    require_number("entropy_coef", terms.entropy_coef)
    require_choice("kl_estimator", terms.kl_estimator, KL_ESTIMATORS)
    if ref_logprobs is None and terms.kl_coef != 0:
        raise ValueError(f"ref_logprobs is needed with kl_coef={terms.kl_coef:g}, got None")
    if normalizer is not None:
        require_scalar("normalizer", normalizer)


def _counted_tokens(mask: Tensor | None, targets: Tensor) -> Tensor:
    if mask is None:
        return torch.ones_like(targets, dtype=torch.bool)
    require_mask("mask", mask, "targets", targets)
    return mask != 0


@torch.library.custom_op("rlsft::linear_policy_loss", mutates_args=())
def _linear_policy_loss_op(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    lora_hidden: Tensor | None,
    lora_weight: Tensor | None,
    advantages: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor | None,
    weights: Tensor,
    mask: Tensor,
    temperature_N: Tensor | None,
    temperature: float,
    softcap: float | None,
    logit_scale: float,
    loss_kind: str,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
    kl_coef: float,
    kl_estimator: str,
    entropy_coef: float,
    drop_idle: bool,
    tile_bytes: int,
    needs: list[bool],  # gradients by hidden, weight, bias, lora_hidden, lora_weight
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    op, dtype = "linear_policy_loss", hidden.dtype
    chosen = choose_backend(op, backend, device_type=hidden.device.type, dtype=dtype, supported=SUPPORTED)
    inputs = HeadInputs(hidden, weight, bias, lora_hidden, lora_weight)
    terms = LossTerms(clip_low, clip_high, dual_clip, None, 0.0, entropy_coef, kl_coef, kl_estimator)
    total, sums, gradients = linear_policy_loss_fwd(
        Head(inputs.weights, bias, softcap, logit_scale),
        row_kernels(chosen),
        inputs.hiddens,
        targets,
        mask,
        PolicyTokens(advantages, old_logprobs, ref_logprobs, weights),
        temperature if temperature_N is None else temperature_N.to(statistics_dtype(dtype)),
        PolicyLoss(loss_kind, terms, drop_idle),
        tile_bytes,
        inputs.needs(needs),
        chosen_plan(inputs, needs, tile_bytes, chosen),
    )
    return total, sums, *gradients_for_inputs(inputs, gradients)


@_linear_policy_loss_op.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    lora_hidden: Tensor | None,
    lora_weight: Tensor | None,
    *settings: Any,
) -> tuple[Tensor, ...]:
    *_, tile_bytes, needs, backend = settings
    wide = statistics_dtype(hidden.dtype)
    inputs = HeadInputs(hidden, weight, bias, lora_hidden, lora_weight)
    gradients = fake_gradients(inputs, needs, tile_bytes, "linear_policy_loss", backend)
    return hidden.new_empty((), dtype=wide), hidden.new_empty(len(SUMS), dtype=wide), *gradients


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, weight, _targets, bias, lora_hidden, lora_weight, *_rest, needs, _backend = inputs
    ctx.num_inputs = len(inputs)
    save_head_gradients(ctx, HeadInputs(hidden, weight, bias, lora_hidden, lora_weight), needs, output, num_values=2)


def _backward(ctx: Any, grad_total: Tensor | None, *_unused: Any) -> tuple[Tensor | None, ...]:
    hidden, weight, bias, lora_hidden, lora_weight = scaled_head_gradients(ctx, grad_total, "linear_policy_loss")
    return hidden, weight, None, bias, lora_hidden, lora_weight, *(None,) * (ctx.num_inputs - 6)


_linear_policy_loss_op.register_autograd(_backward, setup_context=_save_for_backward)
