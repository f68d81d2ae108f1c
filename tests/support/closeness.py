"""The one tolerance rule: an op may be at most twice as wrong as eager PyTorch, both measured against float64.

`eager` is plain PyTorch with the matrix product in the same dtype and float32 afterwards, `truth` the same in float64
on the same rounded inputs. A largest error alone does not see a small systematic one, so scale and mean are held too,
to what the scatter of eager's own error leaves open for the number of elements compared.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SLACK = 2.0
# A half-precision tile rounds numbers that lie close together (p - 1 of many unsure rows) all the same way, by up to
# half a step. The cap keeps a gradient that is 0.2 % too long visible in bfloat16, whose half step is 0.4 %.
SAME_WAY_CAP = 5e-4
TRUTH_ERROR = 4 * torch.finfo(torch.float64).eps  # what the truth itself is uncertain by


def assert_as_accurate_as_eager(
    actual: Tensor, eager: Tensor, truth: Tensor, *, name: str = "result", slack: float = SLACK
) -> None:
    """Fails where `actual` is more than `slack` times as far from `truth` as `eager` is, plus rounding.

    Args:
        actual: what the op returned.
        eager: what plain PyTorch returned, same dtype.
        truth: float64.
        name: what is compared, for the message.
        slack: how many times eager's error is allowed; more than 2 wants a reason beside it.
    """
    assert truth.dtype == torch.float64, f"{name}: truth must be float64, got {truth.dtype}"
    assert actual.shape == eager.shape == truth.shape, (
        f"{name}: shapes differ: actual {list(actual.shape)}, eager {list(eager.shape)}, truth {list(truth.shape)}"
    )
    assert actual.dtype == eager.dtype, f"{name}: actual is {actual.dtype}, eager {eager.dtype}"
    assert actual.numel() > 0, f"{name}: nothing was compared"
    assert truth.isfinite().all(), f"{name}: truth has NaN or inf; compare those elements by hand"
    assert actual.isfinite().all(), f"{name}: actual has NaN or inf"
    actual_N, eager_N, truth_N = (x.detach().double().reshape(-1) for x in (actual, eager, truth))
    eps = torch.finfo(actual.dtype).eps
    _hold_largest_error(actual_N, eager_N, truth_N, eps, slack, name)
    _hold_scale(actual_N, eager_N, truth_N, eps, slack, name)
    _hold_mean(actual_N, eager_N, truth_N, eps, slack, name)


def _hold_largest_error(actual: Tensor, eager: Tensor, truth: Tensor, eps: float, slack: float, name: str) -> None:
    errors = (actual - truth).abs()
    eager_error = float((eager - truth).abs().max())
    allowed = slack * eager_error + 4 * eps * float(truth.abs().max())
    worst = int(errors.argmax())
    assert float(errors[worst]) <= allowed, (
        f"{name}: largest error {float(errors[worst]):.3e} at flat index {worst} (actual {float(actual[worst]):.9g}, "
        f"truth {float(truth[worst]):.9g}) exceeds {allowed:.3e}; eager's largest error is {eager_error:.3e}"
    )


def _hold_scale(actual: Tensor, eager: Tensor, truth: Tensor, eps: float, slack: float, name: str) -> None:
    """The factor that best explains `actual` by `truth` must be 1: catches a gradient that is 0.2 % too long."""
    length = float(truth @ truth)
    if length == 0:
        return
    scale, eager_scale = float(actual @ truth) / length, float(eager @ truth) / length
    # large elements carry the estimate, so they alone count as samples
    effective = length**2 / float(truth.pow(4).sum())
    scatter = max(math.sqrt(float((eager - truth).square().sum()) / length), eps / 4)
    allowed = slack * abs(eager_scale - 1) + 4 * scatter / math.sqrt(effective) + _same_way(eps)
    assert abs(scale - 1) <= allowed, (
        f"{name}: scaled by {scale:.6f}, off by more than {allowed:.1e}; eager is scaled by {eager_scale:.6f}"
    )


def _hold_mean(actual: Tensor, eager: Tensor, truth: Tensor, eps: float, slack: float, name: str) -> None:
    """The mean error must be what scattered rounding leaves: catches a constant added to everything."""
    bias, eager_bias = float((actual - truth).mean()), float((eager - truth).mean())
    typical = math.sqrt(float(truth.square().mean()))
    scatter = max(math.sqrt(float((eager - truth).square().mean())), eps / 4 * typical)
    allowed = slack * abs(eager_bias) + 4 * scatter / math.sqrt(len(truth)) + TRUTH_ERROR * typical
    allowed += _same_way(eps) * abs(float(truth.mean()))
    assert abs(bias) <= allowed, (
        f"{name}: mean error {bias:.3e}, more than {allowed:.1e}; eager's mean error is {eager_bias:.3e}"
    )


def _same_way(eps: float) -> float:
    return min(eps / 2, SAME_WAY_CAP) + TRUTH_ERROR
