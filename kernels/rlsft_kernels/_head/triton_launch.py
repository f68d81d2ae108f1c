"""Launchers of the head's row kernels: a tile of `hidden @ weight.T` is folded, or overwritten with its gradient.

The tile is `[R, V]` in float32, float16 or bfloat16 with contiguous columns; its rows may be longer in memory than V.
A row stride divisible by 16 gives 16-byte loads; the vocabulary itself may be odd.
"""

from __future__ import annotations

import struct

from torch import Tensor

from rlsft_kernels._head.rows import FoldState
from rlsft_kernels._head.triton_loss_kernels import loss_tile_kernel
from rlsft_kernels._head.triton_row_kernels import fold_tile_kernel, gradient_tile_kernel

RULES = ("nll", "dft", "reinforce", "ppo", "cispo")
KL_ESTIMATORS = ("k1", "k2", "k3")
_LOAD_BYTES = 16
# (widest tile, warps, rounds of one 16-byte load a thread). No autotuning: a new length must not stall training.
_FOLD_TABLE = ((2048, 4, 1), (8192, 4, 2), (2**31, 8, 4))
_GRADIENT_TABLE = ((2048, 4, 1), (8192, 4, 2), (2**31, 8, 2))
# One row a multiprocessor: what the second pass over the row reads is then still in the L2 cache.
_LOSS_TABLE = ((2048, 4, 1), (8192, 8, 2), (2**31, 16, 4))
_WIDE_LOSS_TABLE = ((2048, 4, 1), (8192, 8, 2), (2**31, 16, 2))  # float32


def fold_tile_(
    tile_RV: Tensor,
    column_start: int,
    targets_R: Tensor,
    *,
    state: FoldState,
    bias_V: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
) -> None:
    """Folds the columns `column_start ...` of the final logits into `state`; tiles come in ascending order.

    Column 0 initialises the state, whatever it held. Reads the tile once and leaves it as it is. `bias_V` is cut to the
    tile. A row with NaN has no first largest column: -1.
    """
    rounds, lanes, warps = _shape(tile_RV, _FOLD_TABLE, softcap)
    if len(tile_RV) == 0:
        return
    fold_tile_kernel[(len(tile_RV),)](
        tile_RV, targets_R, bias_V, _per_row(temperature),
        state.row_max, state.sum_exp, state.sum_exp_shifted, state.sum_exp_sq, state.sum_logit, state.target_logit,
        state.first_largest,
        tile_RV.shape[1], tile_RV.stride(0), column_start, _scalar_bits(temperature),
        LOGIT_SCALE=logit_scale, SOFTCAP=softcap, FIRST=column_start == 0,
        ENTROPY=state.sum_exp_shifted is not None, SQUARES=state.sum_exp_sq is not None,
        MEAN=state.sum_logit is not None, TOP1=state.first_largest is not None,
        ROUNDS=rounds, LANES=lanes, num_warps=warps,
    )  # fmt: skip


def gradient_tile_(
    tile_RV: Tensor,
    column_start: int,
    targets_R: Tensor,
    *,
    row_max_R: Tensor,
    log_sum_R: Tensor,
    logprob_R: Tensor,
    entropy_R: Tensor | None = None,
    grad_logprob_R: Tensor | None = None,
    grad_entropy_R: Tensor | None = None,
    grad_lse_R: Tensor | None = None,
    bias_V: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
) -> None:
    """Overwrites the tile with d loss / d (hidden @ weight.T + bias): one read and one write.

    With g, e, h the gradients by logprob, entropy and lse, the gradient by a final logit is
    `g [j = target] + p_j (h - g - e (log p_j + entropy))`. The [R] tensors are float32; an entropy gradient needs
    `entropy_R`.
    """
    rounds, lanes, warps = _shape(tile_RV, _GRADIENT_TABLE, softcap)
    if len(tile_RV) == 0:
        return
    gradient_tile_kernel[(len(tile_RV),)](
        tile_RV, targets_R, bias_V, _per_row(temperature), row_max_R, log_sum_R, logprob_R,
        entropy_R, grad_logprob_R, grad_entropy_R, grad_lse_R,
        tile_RV.shape[1], tile_RV.stride(0), column_start, _scalar_bits(temperature),
        LOGIT_SCALE=logit_scale, SOFTCAP=softcap, BLOCK=rounds * lanes, num_warps=warps,
    )  # fmt: skip


def loss_tile_(
    tile_RV: Tensor,
    targets_R: Tensor,
    *,
    rule: str,
    logprob_R: Tensor,
    with_gradient: bool,
    entropy_R: Tensor | None = None,
    is_top1_R: Tensor | None = None,
    grad_logprob_R: Tensor | None = None,
    grad_entropy_R: Tensor | None = None,
    weight_R: Tensor | None = None,
    mask_R: Tensor | None = None,
    advantages_R: Tensor | None = None,
    old_logprobs_R: Tensor | None = None,
    ref_logprobs_R: Tensor | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
    entropy_coef: float = 0.0,
    bias_V: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    logit_scale: float = 1.0,
    softcap: float | None = None,
) -> None:
    """Log-probability, entropy and the token's coefficients of whole rows, and with a gradient the rows overwritten.

    The loss of a token is `weight (rule(logprob) + kl_coef KL - entropy_coef entropy)` with the rules

    * nll `-logprob`, dft `-p logprob` with p detached (arXiv 2508.05629), reinforce `-A logprob`
    * ppo `max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))` with r = e^(logprob - old), at most `-A dual_clip`
      where A < 0
    * cispo `-A clip(r) logprob` with r detached (arXiv 2506.13585)

    `grad_logprob_R` and `grad_entropy_R` receive d loss / d logprob and d loss / d entropy. Rows outside `mask_R` get
    zeros everywhere, whatever they and their tokens hold.
    """
    rounds, lanes, warps = _shape(tile_RV, _LOSS_TABLE if tile_RV.element_size() == 2 else _WIDE_LOSS_TABLE, softcap)
    if len(tile_RV) == 0:
        return
    loss_tile_kernel[(len(tile_RV),)](
        tile_RV, targets_R, bias_V, _per_row(temperature), weight_R, mask_R, advantages_R, old_logprobs_R,
        ref_logprobs_R, logprob_R, entropy_R, is_top1_R, grad_logprob_R, grad_entropy_R,
        tile_RV.shape[1], tile_RV.stride(0), _scalar_bits(temperature),
        _bits(1.0 - clip_low), _bits(1.0 + clip_high), _bits(dual_clip or 0.0), _bits(kl_coef), _bits(entropy_coef),
        LOGIT_SCALE=logit_scale, SOFTCAP=softcap, RULE=rule, DUAL=dual_clip is not None, KL=kl_estimator,
        BONUS=entropy_coef != 0.0, GRADIENT=with_gradient, ROUNDS=rounds, LANES=lanes, num_warps=warps,
    )  # fmt: skip


def _shape(tile_RV: Tensor, table: tuple[tuple[int, int, int], ...], softcap: float | None) -> tuple[int, int, int]:
    """(rounds, lanes, warps) of the kernel for a tile this wide."""
    assert tile_RV.stride(1) == 1 or tile_RV.shape[1] == 1, "the columns of a tile are contiguous"
    warps, rounds = next((warps, rounds) for widest, warps, rounds in table if tile_RV.shape[1] <= widest)
    if softcap is not None or tile_RV.stride(0) % 16:
        rounds = max(1, rounds // 2)  # a cap and element-wise loads need registers, which four rounds would spill
    return rounds, _LOAD_BYTES // tile_RV.element_size() * 32 * warps, warps


def _bits(value: float) -> int:
    """The float32 as an int32: a float argument would be compiled in or reach the kernel as float64."""
    return int(struct.unpack("<i", struct.pack("<f", value))[0])


def _per_row(temperature: float | Tensor) -> Tensor | None:
    return temperature if isinstance(temperature, Tensor) else None


def _scalar_bits(temperature: float | Tensor) -> int | None:
    """None, which compiles the division away, where there is none."""
    return None if isinstance(temperature, Tensor) or temperature == 1.0 else _bits(temperature)
