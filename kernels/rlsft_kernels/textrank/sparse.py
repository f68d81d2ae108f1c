"""textrank of one sparse graph: SciPy CSR, CSC or COO, or a torch sparse tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._groups import Groups, like
from rlsft_kernels.pagerank.graph import Edges, find_fault, is_scipy_sparse, is_torch_sparse, raise_fault, read_graph
from rlsft_kernels.pagerank.run import METHODS, Options, rank_edges
from rlsft_kernels.similarity.op import resolve_threads
from rlsft_kernels.textrank.inputs import check_options, distribution
from rlsft_kernels.textrank.reference import textrank_reference
from rlsft_kernels.textrank.result import TextRankResult, report_nonconvergence

DIRECT = 256  # up to this many nodes Katz is solved, not iterated: kDirect of the dense form
Floats = npt.NDArray[np.float64]
Ranked = tuple[Floats, int, float]


def is_sparse(similarity: Any) -> bool:
    """Whether `textrank_sparse` takes this similarity."""
    return is_scipy_sparse(similarity) or is_torch_sparse(similarity)


def textrank_sparse(
    similarity: Any,  # [n, n]
    *,
    groups: Any = None,
    damping: float = 0.85,
    tol: float = 1e-10,
    max_iter: int = 1000,
    teleport: Any = None,  # [n]
    start: Any = None,  # [n]
    form: str = "stochastic",
    method: str = "auto",
    on_nonconvergence: str = "raise",
    threads: int | None = None,
    backend: str = "auto",
) -> TextRankResult:
    """`textrank` of one graph whose edges are stored sparsely; see there for the arguments.

    form="stochastic" runs `pagerank`'s sweeps, form="eigenvector" a power iteration over the edges in NumPy.

    Raises:
        TypeError: wrong kind or dtype. ValueError: wrong shape or value, or groups with it.
        ConvergenceError: max_iter reached.
    """
    check_options(damping, tol, max_iter, form, on_nonconvergence)
    if groups is not None:
        raise ValueError("groups cuts dense rows: a sparse similarity is one graph, got groups with it")
    if method not in ("auto", *METHODS):
        raise ValueError(f"method must be one of 'auto', 'gauss_seidel', 'jacobi', got {method!r}")
    edges = read_graph(similarity, None)
    layout = Groups(np.array([0, edges.n], dtype=np.int64), (edges.n,), single=True)
    options = Options(
        damping,
        tol,
        max_iter,
        METHODS[0] if method == "auto" else method,
        distribution("teleport", teleport, layout) if edges.n else None,
        None,
        distribution("start", start, layout) if edges.n else None,
        resolve_threads(threads),
    )
    if form == "stochastic":
        scores, n_iter, residual = rank_edges(edges, options, "textrank", backend)
    else:
        scores, n_iter, residual = _eigenvector(edges, options)
    sweeps, steps = np.array([n_iter], dtype=np.int64), np.array([residual])
    report_nonconvergence(sweeps, steps, layout, tol=tol, max_iter=max_iter, action=on_nonconvergence)
    return _result(edges, scores, sweeps, steps)


def _result(edges: Edges, scores: Floats, sweeps: npt.NDArray[np.int64], steps: Floats) -> TextRankResult:
    assert edges.pattern is not None
    return TextRankResult(
        like(scores, edges.pattern, edges.dtype),
        like(sweeps.reshape(()), edges.pattern, "int64"),
        like(steps.reshape(()), edges.pattern, "float64"),
    )


def _eigenvector(edges: Edges, options: Options) -> Ranked:
    """The dense form's definition over the edges: principal eigenvector of W^T, or Katz where a * rho(W) <= 1."""
    fault, position = find_fault(edges)
    if fault != "none":
        raise_fault(edges, fault, position)
    n = edges.n
    if n == 0:
        return np.zeros(0), 0, 0.0
    teleport = np.full(n, 1 / n) if options.teleport is None else options.teleport
    start = teleport if options.start is None else options.start
    if n <= DIRECT:
        return _dense_eigenvector(edges, teleport, start, options)
    starts, ends = edges.coordinates()
    weights = np.ones(len(ends)) if edges.weights is None else edges.weights.astype(np.float64)
    with np.errstate(over="ignore"):  # an overflow is refused by name
        x, n_iter, residual = _power_iteration(_Walk(starts, ends, weights, n), teleport, start, options)
    return x / x.max(), n_iter, residual


def _dense_eigenvector(edges: Edges, teleport: Floats, start: Floats, options: Options) -> Ranked:
    starts, ends = edges.coordinates()
    weights = torch.zeros(edges.n, edges.n, dtype=torch.float64)
    values = np.ones(len(ends)) if edges.weights is None else edges.weights.astype(np.float64)
    weights.index_put_((torch.from_numpy(starts), torch.from_numpy(ends)), torch.from_numpy(values), accumulate=True)
    scores, n_iter, residual = textrank_reference(
        weights,
        torch.from_numpy(teleport),
        torch.from_numpy(start),
        damping=options.damping,
        tol=options.tol,
        max_iter=options.max_iter,
        form="eigenvector",
    )
    return scores.numpy(), n_iter, residual


class _Walk:
    """x -> W^T x over coordinates."""

    def __init__(self, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], weights: Floats, n: int) -> None:
        self.starts, self.ends, self.weights, self.n = starts, ends, weights, n

    def __call__(self, x: Floats) -> Floats:
        sums = np.bincount(self.ends, weights=x[self.starts] * self.weights, minlength=self.n)
        return sums.astype(np.float64, copy=False)


def _power_iteration(walk: _Walk, teleport: Floats, start: Floats, options: Options) -> Ranked:
    x, n_iter, residual, rho = start.copy(), 0, float("inf"), 0.0
    while n_iter < options.max_iter and not residual < options.tol:
        grown = walk(x)
        rho, n_iter = float(grown.sum()), n_iter + 1
        if not np.isfinite(rho):
            raise ValueError("the weights of the graph are so large that their sums overflow; divide by their maximum")
        if rho == 0.0 or options.damping * _largest_growth(grown, x) <= 1:
            return _katz(walk, teleport, options, n_iter)
        shifted = grown + 0.25 * rho * x  # changes no eigenvector, and a bipartite graph no longer oscillates
        shifted /= shifted.sum()
        residual, x = float(np.abs(shifted - x).sum()), shifted
    if residual < options.tol and options.damping * rho <= 1:
        return _katz(walk, teleport, options, n_iter)
    return x, n_iter, residual


def _largest_growth(grown: Floats, x: Floats) -> float:
    """max_j (W^T x)_j / x_j: an upper bound of rho(W) for positive x (Collatz, Wielandt)."""
    if (grown[x == 0] > 0).any():
        return float("inf")
    return float(np.divide(grown, x, out=np.zeros_like(x), where=x > 0).max())


def _katz(walk: _Walk, teleport: Floats, options: Options, n_iter: int) -> Ranked:
    x, residual = teleport.copy(), float("inf")
    while n_iter < options.max_iter and not residual < options.tol:
        following = options.damping * walk(x) + teleport
        residual = float(np.abs(following - x).sum() / following.sum())
        x, n_iter = following, n_iter + 1
    return x / x.sum(), n_iter, residual
