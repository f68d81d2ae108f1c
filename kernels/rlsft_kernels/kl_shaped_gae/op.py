"""kl_shaped_gae: KL-shaped rewards, generalised advantages, returns and whitening moments in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlsft_kernels._backend import Backend, Supported, choose_backend
from rlsft_kernels._checks import (
    require_between,
    require_choice,
    require_float_tensor,
    require_like,
    require_mask,
    require_ndim,
    require_offsets,
    require_scalar,
    require_shape,
)
from rlsft_kernels._columns import NATIVE_DTYPES
from rlsft_kernels._eager import is_traced
from rlsft_kernels._head.head import statistics_dtype
from rlsft_kernels.kl_shaped_gae.native import kl_shaped_gae_native
from rlsft_kernels.kl_shaped_gae.reference import STATS, kl_shaped_gae_reference
from rlsft_kernels.policy_value_loss.reference import KL_ESTIMATORS

SUPPORTED: Supported = {"triton": {"cuda": ("float32", "bfloat16", "float16")}, "native": {"cpu": NATIVE_DTYPES}}


class GaeOutput(NamedTuple):
    """Result of `kl_shaped_gae`; no field carries a gradient."""

    advantages: Tensor  # whitened when asked, 0 at masked tokens
    returns: Tensor  # un-whitened advantages + values, 0 at masked tokens
    moments: Tensor  # [2]: mean and reciprocal standard deviation of the un-whitened advantages
    stats: dict[str, Tensor]  # 0-d tensors on the device


def kl_shaped_gae(
    scores: Tensor,  # [B], or shaped like logprobs for a reward per token
    logprobs: Tensor,  # [B, T], or [N] with cu_seqlens
    ref_logprobs: Tensor | None,  # shaped like logprobs
    values: Tensor,  # shaped like logprobs
    mask: Tensor,  # shaped like logprobs, bool or integer
    *,
    kl_coef: float | Tensor,
    kl_estimator: str = "k1",
    gamma: float = 1.0,
    lam: float = 0.95,
    whiten: bool = True,
    bootstrap_values: Tensor | None = None,  # [B]
    cu_seqlens: Tensor | None = None,  # [B + 1] int32 or int64
    backend: Backend = "auto",
) -> GaeOutput:
    """Advantages and returns of sampled answers from sequence scores and a per-token KL penalty.

    `r_t = -kl_coef * kl(logprobs_t, ref_logprobs_t)`, plus the score on the last unmasked token; then
    `delta_t = r_t + gamma * V_next - V_t`, `A_t = delta_t + gamma * lam * A_next` (arXiv 1506.02438) and
    `returns_t = A_t + V_t`. "next" is the next unmasked token: masked tokens (prompt, padding, tool output in
    the middle) are passed through and a reward on them is dropped. The log-ratio is clamped to +-20, k3 to at
    most 10.

    Whitening is over all unmasked tokens of the batch, `(A - mean) * rsqrt(var + 1e-8)` with the unbiased
    variance; returns use the un-whitened advantages. With fewer than two unmasked tokens there is no
    variance: the advantages stay as they are, `moments` is (0, 1) and `stats["too_few_to_whiten"]` is 1.

    Args:
        scores: reward of each sequence, or a reward per token. In the flat layout `[B]` wins where B = N.
        logprobs: log-probabilities of the taken tokens under the policy that drew them.
        ref_logprobs: the same under the reference; None leaves the KL penalty out.
        values: value of the state before each token.
        mask: nonzero at action tokens; what stands elsewhere does not matter, NaN included.
        kl_coef: weight of the penalty; a 0-d tensor of an adaptive controller stays on its device.
        kl_estimator: "k1" (`logprobs - ref_logprobs`), "k2" or "k3" (Schulman 2020).
        gamma: discount, in [0, 1].
        lam: trace decay, in [0, 1].
        whiten: whether the advantages leave whitened; `moments` is filled either way.
        bootstrap_values: value after the last token of each row, for answers cut off rather than ended; None
            is 0.
        cu_seqlens: offsets of the sequences in the flat layout, `[0, ..., N]`.
        backend: which implementation runs; "auto" picks by device and dtype.

    Returns:
        `GaeOutput`, float32 (float64 for float64 input). Its stats: `count` and `sequences` (tokens and rows
        that count), the token means `kl`, `advantages_mean`, `advantages_var`, `returns_mean`, `returns_var`,
        `values_mean`, the sequence means `kl_sum`, `non_score_reward`, `scores`, `rlhf_reward`, and
        `too_few_to_whiten`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or setting does not fit.
    """
    num_rows = _check_layout(logprobs, cu_seqlens)
    for name, x in (("ref_logprobs", ref_logprobs), ("values", values)):
        if x is not None:
            require_like(name, x, "logprobs", logprobs)
    require_mask("mask", mask, "logprobs", logprobs)
    require_float_tensor("scores", scores)
    if tuple(scores.shape) != (num_rows,) and scores.shape != logprobs.shape:
        raise ValueError(
            f"scores must be [B] = [{num_rows}], one a sequence, or shaped like logprobs "
            f"{list(logprobs.shape)}, got {list(scores.shape)}"
        )
    if bootstrap_values is not None:
        require_float_tensor("bootstrap_values", bootstrap_values)
        require_shape("bootstrap_values", bootstrap_values, "B", (num_rows,))
    require_scalar("kl_coef", kl_coef)
    require_choice("kl_estimator", kl_estimator, KL_ESTIMATORS)
    require_between("gamma", gamma, 0, 1)
    require_between("lam", lam, 0, 1)
    constants = (None if x is None else x.detach() for x in (scores, logprobs, ref_logprobs, values))
    call: Any = _op if is_traced((scores, logprobs, values, mask)) else _forward  # it has no gradient to register
    advantages, returns, moments, stats = call(
        *constants, mask, _as_scalar(kl_coef, values), kl_estimator, float(gamma), float(lam), whiten,
        None if bootstrap_values is None else bootstrap_values.detach(), cu_seqlens, backend,
    )  # fmt: skip
    return GaeOutput(advantages, returns, moments, dict(zip(STATS, stats.unbind(), strict=True)))


def _check_layout(logprobs: Tensor, cu_seqlens: Tensor | None) -> int:
    """Number of sequences."""
    require_float_tensor("logprobs", logprobs)
    if cu_seqlens is None:
        require_ndim("logprobs", logprobs, (2,), "[B, T], or [N] together with cu_seqlens")
        return logprobs.shape[0]
    require_ndim("logprobs", logprobs, (1,), "[N] when cu_seqlens is given")
    if cu_seqlens.dtype not in (torch.int32, torch.int64) or cu_seqlens.ndim != 1 or len(cu_seqlens) == 0:
        raise ValueError(
            f"cu_seqlens must be [B + 1] int32 or int64 offsets, got {list(cu_seqlens.shape)} {cu_seqlens.dtype}"
        )
    return len(cu_seqlens) - 1


def _as_scalar(kl_coef: float | Tensor, values: Tensor) -> Tensor:
    wide = statistics_dtype(values.dtype)
    if isinstance(kl_coef, Tensor):
        return kl_coef.detach().to(device=values.device, dtype=wide)
    return torch.full((), float(kl_coef), dtype=wide, device=values.device)


def _forward(
    scores: Tensor,
    logprobs: Tensor,
    ref_logprobs: Tensor | None,
    values: Tensor,
    mask: Tensor,
    kl_coef: Tensor,
    kl_estimator: str,
    gamma: float,
    lam: float,
    whiten: bool,
    bootstrap_values: Tensor | None,
    cu_seqlens: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    device_type, dtype = values.device.type, statistics_dtype(values.dtype)
    chosen = choose_backend("kl_shaped_gae", backend, device_type=device_type, dtype=values.dtype, supported=SUPPORTED)
    offsets = None
    if cu_seqlens is not None:  # checked here, because torch.compile cannot branch on values
        offsets = cu_seqlens.cpu().long()
        require_offsets("cu_seqlens", offsets, len(logprobs), "tokens")
    if chosen == "native":
        return kl_shaped_gae_native(
            scores, logprobs, ref_logprobs, values, mask, kl_coef=float(kl_coef), kl_estimator=kl_estimator,
            gamma=gamma, lam=lam, whiten=whiten, bootstrap_values=bootstrap_values, offsets=offsets,
        )  # fmt: skip
    if chosen == "triton":
        from rlsft_kernels.kl_shaped_gae import triton_kernel

        return triton_kernel.kl_shaped_gae_fwd(
            scores, logprobs, ref_logprobs, values, mask, kl_coef=kl_coef, kl_estimator=kl_estimator, gamma=gamma,
            lam=lam, whiten=whiten, bootstrap_values=bootstrap_values,
            longest=None if offsets is None else max(offsets.diff().tolist(), default=0),
            cu_seqlens=None if offsets is None else offsets.to(values.device),
        )  # fmt: skip
    layout = None if offsets is None else FlatLayout(offsets.to(values.device))
    per_token = [None if x is None else x.to(dtype) for x in (logprobs, ref_logprobs, values)] + [mask != 0]
    scores = scores.to(dtype)
    if layout is not None:
        per_token = [None if x is None else layout.pad(x) for x in per_token]
        scores = scores if scores.shape == (layout.num_rows,) else layout.pad(scores)
    logprobs_BT, ref_BT, values_BT, mask_BT = per_token
    assert logprobs_BT is not None
    assert values_BT is not None
    assert mask_BT is not None
    advantages, returns, moments, stats = kl_shaped_gae_reference(
        scores, logprobs_BT, ref_BT, values_BT, mask_BT, kl_coef=kl_coef, kl_estimator=kl_estimator,
        gamma=gamma, lam=lam, whiten=whiten, bootstrap_values=bootstrap_values,
    )  # fmt: skip
    if layout is not None:
        advantages, returns = layout.unpad(advantages), layout.unpad(returns)
    return advantages.contiguous(), returns.contiguous(), moments, stats


_op = torch.library.custom_op("rlsft::kl_shaped_gae", _forward, mutates_args=())


@_op.register_fake
def _(
    scores: Tensor,
    logprobs: Tensor,
    ref_logprobs: Tensor | None,
    values: Tensor,
    mask: Tensor,
    *_settings: object,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = statistics_dtype(values.dtype)
    sizes = (values.shape, values.shape, (2,), (len(STATS),))
    advantages, returns, moments, stats = (values.new_empty(size, dtype=dtype) for size in sizes)
    return advantages, returns, moments, stats


class FlatLayout:
    """Moves tokens between the flat layout `[N]` with offsets and rows of equal length `[B, T]`."""

    def __init__(self, cu_seqlens: Tensor) -> None:  # [B + 1]
        lengths_B = cu_seqlens[1:] - cu_seqlens[:-1]
        self.num_rows = len(lengths_B)
        width = int(lengths_B.max()) if self.num_rows else 0
        columns_T = torch.arange(width, device=cu_seqlens.device)
        self._filled_BT = columns_T < lengths_B[:, None]

    def pad(self, x_N: Tensor) -> Tensor:  # [B, T]
        """Rows in order, zeros (False) behind each."""
        x_BT = x_N.new_zeros(self._filled_BT.shape)
        x_BT[self._filled_BT] = x_N
        return x_BT

    def unpad(self, x_BT: Tensor) -> Tensor:  # [N]
        """The inverse of `pad`."""
        return x_BT[self._filled_BT]
