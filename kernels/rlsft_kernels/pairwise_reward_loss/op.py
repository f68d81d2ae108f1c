"""pairwise_reward_loss: the Bradley-Terry loss of a reward model on chosen and rejected scores."""

from __future__ import annotations

import torch
from torch import Tensor

from rlsft_kernels._backend import Backend, Supported, choose_backend
from rlsft_kernels._checks import require_float_tensor, require_like, require_ndim, require_number
from rlsft_kernels._columns import NATIVE_DTYPES
from rlsft_kernels._eager import refuse_forward_mode
from rlsft_kernels._head.head import statistics_dtype
from rlsft_kernels._saved_gradients import pair_op_with_gradients
from rlsft_kernels.pairwise_reward_loss.native import pairwise_reward_loss_native
from rlsft_kernels.pairwise_reward_loss.torch_path import STATS, pairwise_reward_loss_fwd

SUPPORTED: Supported = {"triton": {"cuda": ("float32", "bfloat16", "float16")}, "native": {"cpu": NATIVE_DTYPES}}


def pairwise_reward_loss(
    chosen: Tensor,  # [P] float
    rejected: Tensor,  # [P]
    *,
    margin: Tensor | None = None,  # [P]
    center_coef: float = 0.0,
    backend: Backend = "auto",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over pairs of `-log sigmoid(chosen - rejected - margin) + center_coef * (chosen + rejected)^2`.

    The Bradley-Terry likelihood (arXiv 2203.02155) with the margin of Llama 2 (arXiv 2307.09288, section
    3.2.2) and the centring term of arXiv 2312.09244, which keeps scores near zero. Finite for every finite
    score. Gradients flow to chosen and rejected; there is no second derivative.

    Args:
        chosen: scores of the better answers.
        rejected: scores of the worse answers.
        margin: by how much each pair should differ, a constant.
        center_coef: weight of the centring term.
        backend: which implementation runs; "auto" picks by device and dtype.

    Returns:
        The 0-d loss (0 for no pairs), and 0-d tensors without gradient on the device: `count`, and the means
        `loss/ranking`, `loss/center` (before its weight), `accuracy` (a tie is not correct), `margin`
        (chosen - rejected), `chosen`, `rejected`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape, device or setting does not fit.
    """
    refuse_forward_mode("pairwise_reward_loss", chosen, rejected)
    require_float_tensor("chosen", chosen)
    require_ndim("chosen", chosen, (1,), "[P], one score a pair")
    require_like("rejected", rejected, "chosen", chosen)
    if margin is not None:
        require_like("margin", margin, "chosen", chosen)
    require_number("center_coef", center_coef, at_least=0)
    loss, stats = _call(chosen, rejected, margin, float(center_coef), backend)
    return loss, dict(zip(STATS, stats.unbind(), strict=True))


def _forward(
    chosen: Tensor, rejected: Tensor, margin: Tensor | None, center_coef: float, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    device_type, dtype = chosen.device.type, chosen.dtype
    runs_on = choose_backend("pairwise_reward_loss", backend, device_type=device_type, dtype=dtype, supported=SUPPORTED)
    if runs_on == "native":
        return pairwise_reward_loss_native(chosen, rejected, margin, center_coef)
    if runs_on == "triton":
        from rlsft_kernels.pairwise_reward_loss import triton_kernel

        return triton_kernel.pairwise_reward_loss_fwd(chosen, rejected, margin, center_coef)
    return pairwise_reward_loss_fwd(chosen, rejected, margin, center_coef, statistics_dtype(dtype))


_op = torch.library.custom_op("rlsft::pairwise_reward_loss", _forward, mutates_args=())


@_op.register_fake
def _(
    chosen: Tensor, rejected: Tensor, margin: Tensor | None, center_coef: float, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = statistics_dtype(chosen.dtype)
    sizes = ((), (len(STATS),), tuple(chosen.shape), tuple(chosen.shape))
    loss, stats, grad_chosen, grad_rejected = (chosen.new_empty(size, dtype=dtype) for size in sizes)
    return loss, stats, grad_chosen, grad_rejected


_call = pair_op_with_gradients(_op, _forward, "pairwise_reward_loss")
