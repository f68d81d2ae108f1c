"""What pagerank returns with return_info=True, and the error when it did not get there."""

from __future__ import annotations

import functools
import sys
import warnings
from typing import Any, NamedTuple

from rlsft_kernels.textrank.result import ConvergenceError


class PagerankResult(NamedTuple):
    """Scores with the facts of the iteration."""

    scores: Any  # an array or tensor [n], or a dict for a networkx graph
    n_iter: int  # sweeps over the edges
    residual: float  # L1 step of the last sweep, on scores that sum to 1


def report_nonconvergence(n_iter: int, residual: float, *, tol: float, max_iter: int, action: str) -> None:
    """Raises, warns or keeps quiet when the residual is not below tol."""
    if residual < tol or action == "ignore":
        return
    message = (
        f"pagerank: the graph did not converge: residual = {residual:.3g} >= tol = {tol:g} after n_iter = {n_iter} "
        f"sweeps (max_iter = {max_iter}); raise max_iter or tol, or pass on_nonconvergence='warn' or 'ignore'"
    )
    if action == "raise":
        raise _error_class()(message, n_iter=n_iter, residual=residual, group=0)
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def _error_class() -> type[ConvergenceError]:
    """ConvergenceError, caught by networkx's `except` clauses too where networkx is loaded; it is never imported."""
    base = getattr(sys.modules.get("networkx"), "PowerIterationFailedConvergence", None)
    return ConvergenceError if base is None else _joined_with(base)


@functools.cache
def _joined_with(base: type[Exception]) -> type[ConvergenceError]:
    return type("ConvergenceError", (ConvergenceError, base), {"__module__": ConvergenceError.__module__})
