"""How good a reward is on pairs with a known winner: accuracy, margin and calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlsft.errors import ConfigError


@dataclass(frozen=True)
class Calibration:
    """Calibration of pair probabilities, with the bins of a reliability plot (empty bins left out)."""

    ece: float  # expected calibration error, 0 to 0.5
    brier: float  # mean squared error of the probability of the true winner, 0 to 1
    confidence: tuple[float, ...]  # mean predicted probability of the predicted winner, per bin
    accuracy: tuple[float, ...]  # share of right predictions, per bin
    count: tuple[int, ...]


def reward_accuracy(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """Share of pairs whose chosen answer has the higher reward; a tie counts one half. NaN without pairs."""
    margin = _margins(chosen, rejected)
    return float(np.where(margin == 0, 0.5, margin > 0).mean()) if len(margin) else float("nan")


def mean_margin(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """Mean of `chosen - rejected`, in units of the reward. NaN without pairs."""
    margin = _margins(chosen, rejected)
    return float(margin.mean()) if len(margin) else float("nan")


def pair_calibration(chosen: ArrayLike, rejected: ArrayLike, *, num_bins: int = 10) -> Calibration:
    """Calibration of the Bradley-Terry probability `sigmoid(chosen - rejected)`.

    Every pair has the same label (the chosen one won), so confidence is taken towards the predicted winner:
    `max(p, 1 - p)` in equal bins over [0.5, 1]; `ECE = sum_b n_b/n * |accuracy_b - confidence_b|` (Guo et al.
    2017).
    """
    margin = _margins(chosen, rejected)
    if num_bins < 1:
        raise ConfigError(f"num_bins must be at least 1, got {num_bins}")
    if not len(margin):
        raise ConfigError("chosen and rejected must hold at least one pair to calibrate, got none")
    confidence = 1.0 / (1.0 + np.exp(-np.abs(margin)))
    is_right = np.where(margin == 0, 0.5, margin > 0)
    bins = np.minimum(((confidence - 0.5) * 2 * num_bins).astype(np.int64), num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    used = count > 0
    mean_confidence = np.bincount(bins, weights=confidence, minlength=num_bins)[used] / count[used]
    mean_accuracy = np.bincount(bins, weights=is_right, minlength=num_bins)[used] / count[used]
    probability = np.where(margin >= 0, confidence, 1.0 - confidence)
    return Calibration(
        ece=float((count[used] / len(margin)) @ np.abs(mean_accuracy - mean_confidence)),
        brier=float(((1.0 - probability) ** 2).mean()),
        confidence=tuple(mean_confidence.tolist()),
        accuracy=tuple(mean_accuracy.tolist()),
        count=tuple(count[used].tolist()),
    )


def _margins(chosen: ArrayLike, rejected: ArrayLike) -> NDArray[np.float64]:
    chosen_row, rejected_row = np.asarray(chosen, np.float64), np.asarray(rejected, np.float64)
    if chosen_row.ndim != 1 or chosen_row.shape != rejected_row.shape:
        raise ConfigError(
            f"chosen and rejected must be two rows of one length, got {list(chosen_row.shape)} "
            f"and {list(rejected_row.shape)}"
        )
    margin = chosen_row - rejected_row
    if not np.isfinite(margin).all():
        raise ConfigError(f"chosen and rejected must be finite, pair {int(np.argmin(np.isfinite(margin)))} is not")
    return margin
