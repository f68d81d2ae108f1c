"""What textrank returns, and the error when it did not get there."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rlsft_kernels._groups import Array, Groups


class TextRankResult(NamedTuple):
    """Scores with the facts of the iteration."""

    scores: Array  # [n], [B, n] or [M]: float32 or float64 as given
    n_iter: Array  # sweeps of each group, int64 [G]; 0-d for a single graph
    residual: Array  # L1 step of the last sweep, float64 [G]; 0-d for a single graph


class ConvergenceError(RuntimeError):
    """A group reached max_iter before its L1 step fell below tol."""

    def __init__(self, message: str, *, n_iter: int, residual: float, group: int) -> None:
        super().__init__(message)
        self.n_iter = n_iter
        self.residual = residual
        self.group = group


def report_nonconvergence(
    n_iter: npt.NDArray[np.int64],  # [G]
    residual: npt.NDArray[np.float64],  # [G]
    layout: Groups,
    *,
    tol: float,
    max_iter: int,
    action: str,
) -> None:
    """Raises, warns or keeps quiet when a group's residual is not below tol."""
    late = np.flatnonzero((residual >= tol) & (n_iter > 0))
    if action == "ignore" or len(late) == 0:
        return
    group = int(late[0])
    which = "the graph" if layout.single else f"group {group} (and {len(late) - 1} more of {len(layout)})"
    message = (
        f"textrank: {which} did not converge: residual = {residual[group]:.3g} >= tol = {tol:g} after "
        f"n_iter = {n_iter[group]} sweeps (max_iter = {max_iter}); raise max_iter or tol, "
        "or pass on_nonconvergence='warn' or 'ignore'"
    )
    if action == "raise":
        raise ConvergenceError(message, n_iter=int(n_iter[group]), residual=float(residual[group]), group=group)
    warnings.warn(message, RuntimeWarning, stacklevel=3)
