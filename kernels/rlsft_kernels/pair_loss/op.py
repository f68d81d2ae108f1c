"""pair_loss: the losses of IRFT, SPIN, DPO and their relatives on pairs of sequence log-ratio sums."""

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
    require_ndim,
    require_number,
    require_scalar,
)
from rlsft_kernels._columns import NATIVE_DTYPES
from rlsft_kernels._eager import refuse_forward_mode
from rlsft_kernels._head.head import statistics_dtype
from rlsft_kernels._saved_gradients import pair_op_with_gradients
from rlsft_kernels.pair_loss.native import pair_loss_native
from rlsft_kernels.pair_loss.reference import KINDS, STATS
from rlsft_kernels.pair_loss.torch_path import PairTerms, pair_loss_fwd

SUPPORTED: Supported = {"triton": {"cuda": ("float32", "bfloat16", "float16")}, "native": {"cpu": NATIVE_DTYPES}}


def pair_loss(
    delta_real: Tensor,  # [P] float
    delta_generated: Tensor,  # [P]
    *,
    beta: float,
    kind: str = "logistic",
    offset: float = 0.0,
    label_smoothing: float = 0.0,
    mask: Tensor | None = None,  # [P] bool or integer
    normalizer: float | Tensor | None = None,  # a number or 0-d
    backend: Backend = "auto",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over pairs of a loss that prefers the real answer to the generated one.

    A delta is `sum over the answer's tokens of log pi(token) - log pi_ref(token)`; with
    `h = delta_real - delta_generated` and `rho = beta * delta + offset`, the loss of a pair is

    - `logistic`: `-log sigmoid(beta h)` (SPIN, arXiv 2401.01335; DPO, arXiv 2305.18290), with smoothing s
      `-(1 - s) log sigmoid(beta h) - s log sigmoid(-beta h)`;
    - `linear`: `-beta h`, unbounded below;
    - `hinge`: `max(0, 1 - beta h)`;
    - `bernoulli`: `-log sigmoid(rho_real) - log sigmoid(-rho_generated)` (arXiv 2410.10093);
    - `kliep`: `-rho_real + exp(min(rho_generated, 20))` (arXiv 2410.10093); beyond the clamp the generated
      answer has no gradient.

    All are finite for every finite delta whose multiple by `beta` is. Masked pairs add exactly zero to loss,
    gradient and statistics, whatever they hold. Gradients flow to both deltas, computed in the forward; there
    is no second derivative.

    Args:
        delta_real: log-ratio sums of the demonstrations, in nats.
        delta_generated: log-ratio sums of the model's own answers.
        beta: factor of the deltas, above 0.
        kind: which loss.
        offset: added to each scaled delta; only "bernoulli" and "kliep" can tell.
        label_smoothing: share of the pairs taken to be the wrong way round, in [0, 0.5]; only for "logistic".
        mask: nonzero where a pair counts; None is everywhere.
        normalizer: what the sum is divided by; None is the number of pairs that count, at least 1. Pass the
            count of the whole batch when it is processed in micro-batches.
        backend: which implementation runs; "auto" picks by device and dtype.

    Returns:
        The 0-d loss, and 0-d tensors without gradient on the device: `count`, and the means over the pairs
        that count `loss`, `accuracy` (a tie is not correct), `rewards/real` and `rewards/generated`
        (`beta * delta`), `margin` (their difference), and `saturation` (pairs whose pull is nearly gone: a
        sigmoid below 0.01 of its largest slope, a hinge or a clamp reached).

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or setting does not fit.
    """
    refuse_forward_mode("pair_loss", delta_real, delta_generated)
    _check_tensors(delta_real, delta_generated, mask, normalizer)
    _check_settings(beta, kind, offset, label_smoothing)
    divisor = None if normalizer is None else _as_scalar(normalizer, delta_real)
    loss, values = _call(
        delta_real, delta_generated, mask, divisor, kind, float(beta), float(offset), float(label_smoothing), backend
    )
    return loss, dict(zip(STATS, values.unbind(), strict=True))


def _check_tensors(
    delta_real: Tensor, delta_generated: Tensor, mask: Tensor | None, normalizer: float | Tensor | None
) -> None:
    require_float_tensor("delta_real", delta_real)
    require_ndim("delta_real", delta_real, (1,), "[P], one log-ratio sum a pair")
    require_like("delta_generated", delta_generated, "delta_real", delta_real)
    if mask is not None:
        require_mask("mask", mask, "delta_real", delta_real)
    if normalizer is not None:
        require_scalar("normalizer", normalizer)


def _check_settings(beta: float, kind: str, offset: float, label_smoothing: float) -> None:
    require_number("beta", beta, above=0)
    require_choice("kind", kind, KINDS)
    require_number("offset", offset)
    require_between("label_smoothing", label_smoothing, 0, 0.5)
    if label_smoothing != 0 and kind != "logistic":
        raise ValueError(f"label_smoothing must be 0 with kind={kind!r}, got {label_smoothing:g}; it needs 'logistic'")
    if offset != 0 and kind not in ("bernoulli", "kliep"):
        raise ValueError(f"offset must be 0 with kind={kind!r}, got {offset:g}; there it would cancel out")


def _as_scalar(normalizer: float | Tensor, like: Tensor) -> Tensor:
    if isinstance(normalizer, Tensor):
        return normalizer.detach().to(device=like.device)
    return torch.full((), float(normalizer), dtype=statistics_dtype(like.dtype), device=like.device)


def _forward(
    delta_real: Tensor,
    delta_generated: Tensor,
    mask: Tensor | None,
    normalizer: Tensor | None,
    kind: str,
    beta: float,
    offset: float,
    label_smoothing: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    device_type, dtype = delta_real.device.type, delta_real.dtype
    chosen = choose_backend("pair_loss", backend, device_type=device_type, dtype=dtype, supported=SUPPORTED)
    terms = PairTerms(kind, beta, offset, label_smoothing)
    if chosen == "native":
        return pair_loss_native(delta_real, delta_generated, mask, normalizer, terms)
    if chosen == "triton":
        from rlsft_kernels.pair_loss import triton_kernel

        return triton_kernel.pair_loss_fwd(delta_real, delta_generated, mask, normalizer, terms)
    keep = None if mask is None else mask != 0
    return pair_loss_fwd(delta_real, delta_generated, keep, normalizer, terms, statistics_dtype(dtype))


_op = torch.library.custom_op("rlsft::pair_loss", _forward, mutates_args=())


@_op.register_fake
def _(delta_real: Tensor, delta_generated: Tensor, *_settings: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = statistics_dtype(delta_real.dtype)
    sizes = ((), (len(STATS),), tuple(delta_real.shape), tuple(delta_real.shape))
    loss, stats, grad_real, grad_generated = (delta_real.new_empty(size, dtype=dtype) for size in sizes)
    return loss, stats, grad_real, grad_generated


_call = pair_op_with_gradients(_op, _forward, "pair_loss")
