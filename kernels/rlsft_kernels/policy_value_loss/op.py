"""policy_value_loss: PPO's clipped policy and value loss, entropy bonus and KL penalty in one pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlsft_kernels._backend import Backend, Supported, choose_backend
from rlsft_kernels._checks import (
    require_between,
    require_choice,
    require_float_tensor,
    require_like,
    require_mask,
    require_number,
    require_scalar,
    require_shape,
)
from rlsft_kernels._columns import NATIVE_DTYPES
from rlsft_kernels._eager import refuse_forward_mode
from rlsft_kernels._head.head import statistics_dtype
from rlsft_kernels._saved_gradients import scaled_gradients
from rlsft_kernels.policy_value_loss.native import policy_value_loss_native
from rlsft_kernels.policy_value_loss.reference import KL_ESTIMATORS
from rlsft_kernels.policy_value_loss.torch_path import SUMS, LossTerms, policy_value_loss_fwd

SUPPORTED: Supported = {"triton": {"cuda": ("float32", "bfloat16", "float16")}, "native": {"cpu": NATIVE_DTYPES}}


def policy_value_loss(
    logprobs: Tensor,  # [B, T] or [N], float
    old_logprobs: Tensor,  # shaped like logprobs, as all below
    advantages: Tensor,
    values: Tensor | None,
    old_values: Tensor | None,
    returns: Tensor | None,
    mask: Tensor,  # bool or integer
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    value_clip: float | None = 0.2,
    vf_coef: float = 0.1,
    entropy: Tensor | None = None,
    entropy_coef: float = 0.0,
    ref_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
    moments: Tensor | None = None,  # [2]
    normalizer: float | Tensor | None = None,  # a number or 0-d
    backend: Backend = "auto",
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's loss over the tokens of a batch; `(loss, stats)`.

    With `r = exp(clamp(logprobs - old_logprobs, -20, 20))` and `A` the advantages, the sum over unmasked
    tokens of `max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))
    + vf_coef * max((v - R)^2, (clip(v, old_v - value_clip, old_v + value_clip) - R)^2) / 2
    - entropy_coef * entropy + kl_coef * kl(logprobs, ref_logprobs)`, divided by `normalizer`
    (arXiv 1707.06347; with `dual_clip` the policy term is at most `-A * dual_clip` where A < 0, arXiv
    1912.09729). A token beyond the clamp of the log-ratio has no policy gradient.

    Masked tokens add exactly zero to loss, gradient and statistics, whatever they hold. Gradients flow to
    logprobs, values and entropy, computed in the forward; everything else is a constant. There is no second
    derivative.

    Args:
        logprobs: log-probabilities of the taken tokens under the policy.
        old_logprobs: the same under the policy that drew them.
        advantages: advantages, constants.
        values: predicted values, or None to leave the value part out (then old_values and returns are None
            too).
        old_values: values at rollout time.
        returns: value targets.
        mask: nonzero where a token counts.
        clip_low: lower clip range of the ratio.
        clip_high: upper clip range of the ratio.
        dual_clip: bound on the ratio for negative advantages, above 1; None switches it off.
        value_clip: clip range of the value; None switches it off.
        vf_coef: weight of the value loss.
        entropy: per-token entropy of the policy, for the bonus and the statistics.
        entropy_coef: weight of the entropy bonus; needs `entropy`.
        ref_logprobs: log-probabilities under the reference policy.
        kl_coef: weight of the KL penalty; needs `ref_logprobs`.
        kl_estimator: "k1", "k2" or "k3".
        moments: mean and reciprocal standard deviation (as in `GaeOutput.moments`), applied to the
            advantages.
        normalizer: what the sum is divided by; None is the number of unmasked tokens, at least 1. Pass the
            count of the whole batch when it is processed in micro-batches. A tensor stays on its device.
        backend: which implementation runs; "auto" picks by device and dtype.

    Returns:
        The 0-d loss, and 0-d tensors without gradient on the device: `count`, means over the unmasked tokens
        `loss/policy`, `loss/value`, `entropy`, `kl_ref`, `approxkl_k1`, `approxkl_k2` (TRL's `approxkl`),
        `approxkl_k3`, `clipfrac`, `clipfrac_lower`, `vf_clipfrac`, `ratio_mean`, `ratio_var` (population),
        and `ratio_max`. What was not given is left out.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or setting does not fit.
    """
    refuse_forward_mode("policy_value_loss", logprobs, values, entropy)
    tokens = {
        "logprobs": logprobs, "old_logprobs": old_logprobs, "advantages": advantages, "values": values,
        "old_values": old_values, "returns": returns, "entropy": entropy, "ref_logprobs": ref_logprobs,
    }  # fmt: skip
    _check_tensors(tokens, mask, moments, normalizer)
    _check_settings(clip_low, clip_high, dual_clip, value_clip, vf_coef, entropy_coef, kl_coef, kl_estimator)
    if entropy is None and entropy_coef != 0:
        raise ValueError(f"entropy is needed with entropy_coef={entropy_coef:g}, got None")
    if ref_logprobs is None and kl_coef != 0:
        raise ValueError(f"ref_logprobs is needed with kl_coef={kl_coef:g}, got None")
    total, sums, *_ = torch.ops.rlsft.policy_value_loss(
        *tokens.values(), mask, moments, float(clip_low), float(clip_high), dual_clip, value_clip,
        float(vf_coef), float(entropy_coef), float(kl_coef), kl_estimator, backend,
    )  # fmt: skip
    absent = {name for name, x in (("entropy", entropy), ("kl_ref", ref_logprobs)) if x is None}
    if values is None:
        absent |= {"loss/value", "vf_clipfrac"}
    stats = means_of_sums(sums, absent)
    return total / (stats["count"].clamp(min=1) if normalizer is None else normalizer), stats


def _check_tensors(
    tokens: dict[str, Tensor | None], mask: Tensor, moments: Tensor | None, normalizer: float | Tensor | None
) -> None:
    logprobs = tokens["logprobs"]
    require_float_tensor("logprobs", logprobs)  # type: ignore[arg-type]
    assert logprobs is not None
    for name in ("old_logprobs", "advantages"):
        require_like(name, tokens[name], "logprobs", logprobs)  # type: ignore[arg-type]
    value_part = [tokens[name] for name in ("values", "old_values", "returns")]
    if any(x is None for x in value_part) and not all(x is None for x in value_part):
        given = [name for name in ("values", "old_values", "returns") if tokens[name] is not None]
        raise ValueError(f"values, old_values and returns come together or not at all, got only {', '.join(given)}")
    for name in ("values", "old_values", "returns", "entropy", "ref_logprobs"):
        x = tokens[name]
        if x is not None:
            require_like(name, x, "logprobs", logprobs)
    require_mask("mask", mask, "logprobs", logprobs)
    if moments is not None:
        require_float_tensor("moments", moments)
        require_shape("moments", moments, "2", (2,))
    if normalizer is not None:
        require_scalar("normalizer", normalizer)


def _check_settings(
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
    value_clip: float | None,
    vf_coef: float,
    entropy_coef: float,
    kl_coef: float,
    kl_estimator: str,
) -> None:
    require_between("clip_low", clip_low, 0, 1)
    require_number("clip_high", clip_high, at_least=0)
    if dual_clip is not None:
        require_number("dual_clip", dual_clip, above=1)
    if value_clip is not None:
        require_number("value_clip", value_clip, above=0)
    for name, value in (("vf_coef", vf_coef), ("entropy_coef", entropy_coef), ("kl_coef", kl_coef)):
        require_number(name, value)
    require_choice("kl_estimator", kl_estimator, KL_ESTIMATORS)


def means_of_sums(sums: Tensor, absent: set[str]) -> dict[str, Tensor]:
    """The statistics of a policy loss by name, as 0-d tensors on the device."""
    count, ratio_max = sums[SUMS.index("count")], sums[SUMS.index("ratio_max")]
    means = zip(SUMS, (sums / count.clamp(min=1)).unbind(), strict=True)
    stats = {name: x for name, x in means if name not in absent | {"count", "ratio_max"}}
    stats["ratio_mean"] = stats.pop("ratio")
    stats["ratio_var"] = stats.pop("ratio_centered_square")
    return {"count": count, **stats, "ratio_max": ratio_max}


@torch.library.custom_op("rlsft::policy_value_loss", mutates_args=())
def _policy_value_loss_op(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    values: Tensor | None,
    old_values: Tensor | None,
    returns: Tensor | None,
    entropy: Tensor | None,
    ref_logprobs: Tensor | None,
    mask: Tensor,
    moments: Tensor | None,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
    value_clip: float | None,
    vf_coef: float,
    entropy_coef: float,
    kl_coef: float,
    kl_estimator: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    device_type, dtype = logprobs.device.type, logprobs.dtype
    chosen = choose_backend("policy_value_loss", backend, device_type=device_type, dtype=dtype, supported=SUPPORTED)
    tokens = {
        "logprobs": logprobs, "old_logprobs": old_logprobs, "advantages": advantages, "values": values,
        "old_values": old_values, "returns": returns, "entropy": entropy, "ref_logprobs": ref_logprobs,
    }  # fmt: skip
    terms = LossTerms(clip_low, clip_high, dual_clip, value_clip, vf_coef, entropy_coef, kl_coef, kl_estimator)
    if chosen == "native":
        return policy_value_loss_native(tokens, mask, terms, moments)
    if chosen == "triton":
        from rlsft_kernels.policy_value_loss import triton_kernel

        return triton_kernel.policy_value_loss_fwd(tokens, mask, terms, moments)
    return policy_value_loss_fwd(tokens, mask != 0, terms, moments, statistics_dtype(dtype))


@_policy_value_loss_op.register_fake
def _(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    values: Tensor | None,
    old_values: Tensor | None,
    returns: Tensor | None,
    entropy: Tensor | None,
    *_settings: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = statistics_dtype(logprobs.dtype)
    return (
        logprobs.new_empty((), dtype=dtype),
        logprobs.new_empty(len(SUMS), dtype=dtype),
        logprobs.new_empty(logprobs.shape, dtype=dtype),
        logprobs.new_empty(0, dtype=dtype) if values is None else values.new_empty(values.shape, dtype=dtype),
        logprobs.new_empty(0, dtype=dtype) if entropy is None else entropy.new_empty(entropy.shape, dtype=dtype),
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    logprobs, _old, _adv, values, _old_values, _returns, entropy, *_rest = inputs
    _total, sums, *gradients = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(sums, *gradients)
    ctx.save_for_backward(*gradients, logprobs, values, entropy)


def _backward(ctx: Any, grad_total: Tensor | None, *_unused: Any) -> tuple[Tensor | None, ...]:
    by_input: list[Tensor | None] = [None] * 19
    positions = (0, 3, 6)  # logprobs, values, entropy
    needed = [k for k, position in enumerate(positions) if ctx.needs_input_grad[position]]
    if grad_total is None or not needed:
        return tuple(by_input)
    saved = ctx.saved_tensors
    gradients, inputs = [saved[k] for k in needed], [saved[3 + k] for k in needed]
    for k, grad in zip(needed, scaled_gradients(gradients, grad_total, inputs, "policy_value_loss"), strict=True):
        by_input[positions[k]] = grad
    return tuple(by_input)


_policy_value_loss_op.register_autograd(_backward, setup_context=_save_for_backward)
