"""TextRank of batches of small groups, of one large dense graph, and of one large graph of cosines without its matrix.

Batches: embeddings in, scores out, cosines included; 4*m*d bytes and, over the upper triangle in tiles of four, about
(m^2 + 4 m) * d flops a group. The floors are measured in the same run: one read of the same memory, and one product of
square matrices with as many flops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import networkx as nx
import numpy as np
import torch

from bench.measure import Provider
from bench.textrank_peers import batch_peers, matrix_peers
from rlsft_kernels import textrank

DAMPING, TOL = 0.85, 1e-6
LARGE_TOL = 1e-8
NETWORKX_GROUPS = 32  # of 512: the loop takes a second for all of them, and its time is linear in their number


def numpy_batched(groups: np.ndarray, tol: float = TOL) -> np.ndarray:
    """The batch as one NumPy power iteration; stops when the worst group has converged."""
    unit = groups / np.maximum(np.linalg.norm(groups, axis=2, keepdims=True), 1e-12)
    edges = np.maximum(unit @ unit.mT, 0)
    diagonal = np.arange(groups.shape[1])
    edges[:, diagonal, diagonal] = 0
    strength = edges.sum(2, keepdims=True)
    n = groups.shape[1]
    transition = np.where(strength > 0, edges / np.where(strength > 0, strength, 1), 1 / n)
    x = np.full(groups.shape[:2], 1 / n, groups.dtype)
    for _ in range(1000):
        following = DAMPING * np.einsum("bi,bij->bj", x, transition) + (1 - DAMPING) / n
        step = np.abs(following - x).sum(1).max()
        x = following
        if step < tol:
            break
    return x


def torch_batched(groups: torch.Tensor, tol: float = TOL) -> torch.Tensor:
    """The batch as one torch power iteration; stops when the worst group has converged."""
    unit = torch.nn.functional.normalize(groups, dim=2)
    edges = (unit @ unit.mT).clamp_(min=0)
    edges.diagonal(dim1=1, dim2=2).zero_()
    strength = edges.sum(2, keepdim=True)
    n = groups.shape[1]
    transition = torch.where(strength > 0, edges / strength.clamp(min=1e-30), 1 / n).mT.contiguous()
    x = groups.new_full((*groups.shape[:2], 1), 1 / n)
    for _ in range(1000):
        following = DAMPING * torch.bmm(transition, x) + (1 - DAMPING) / n
        step = (following - x).abs().sum(1).max()
        x = following
        if step < tol:
            break
    return x[:, :, 0]


def networkx_loop(groups: np.ndarray, tol: float = TOL) -> np.ndarray:
    """networkx.pagerank, one group after the other; its tol is per node, so tol / n is our absolute step."""
    unit = groups / np.linalg.norm(groups, axis=2, keepdims=True)
    n = groups.shape[1]
    scores = np.empty(groups.shape[:2])
    for g, rows in enumerate(unit):
        edges = np.maximum(rows @ rows.T, 0)
        np.fill_diagonal(edges, 0)
        ranks = nx.pagerank(nx.from_numpy_array(edges), alpha=DAMPING, tol=tol / n, max_iter=1000)
        scores[g] = [ranks[i] for i in range(n)]
    return scores


@dataclass
class TextRankCase:
    """512 groups of m responses."""

    groups: np.ndarray  # [G, m, d]
    truth: np.ndarray  # [G, m] float64
    shape: str
    providers: list[Provider]
    dtype: str = "float32"
    note: str = "relu_cosine, damping 0.85, L1 step 1e-6 (one row 1e-10); warm inputs, cosines included"
    baseline: str = "rlsft native 1T"

    def check(self, provider: Provider) -> str:
        """The largest L1 error of a group against float64 at 1e-13."""
        if provider.name.startswith("floor"):
            return "no scores: a limit"
        got = np.asarray(provider.run(), dtype=np.float64)
        error = float(np.abs(got - self.truth[: len(got)]).sum(1).max())
        if not error < 1e-5:
            raise AssertionError(f"{provider.name} is wrong by {error:.2e} (L1) on {self.shape}; not timed")
        return f"L1 {error:.1e}"


def cases(*, quick: bool) -> Iterator[TextRankCase]:
    """Groups of 8 to 64 answers from encoders of 384 and 1024 dimensions; then one large graph of either kind."""
    count = 64 if quick else 512
    for m, d in [(16, 384)] if quick else [(8, 384), (16, 384), (16, 1024), (64, 384), (64, 1024)]:
        g = np.random.default_rng(0)
        groups = (g.standard_normal((count, 1, d)) + g.standard_normal((count, m, d))).astype(np.float32)
        truth = textrank(
            embeddings=groups.astype(np.float64), edge="relu_cosine", tol=1e-13, backend="reference"
        ).scores
        yield TextRankCase(groups, np.asarray(truth), f"{count}x{m}x{d}", providers(groups))
    for n in [500] if quick else [1000, 2000, 4000]:
        yield matrix_case(n)
    for n in [1000] if quick else [4000, 20_000]:
        yield implicit_case(n)


def clustered_rows(n: int) -> np.ndarray:
    """Unit rows around 20 centres, [n, 384] float32."""
    g = np.random.default_rng(0)
    rows = g.standard_normal((20, 384))[g.integers(0, 20, n)] + 1.5 * g.standard_normal((n, 384))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def matrix_case(n: int) -> TextRankCase:
    """A given dense matrix of cut-off cosines."""
    rows = clustered_rows(n)
    edges = np.maximum(rows @ rows.T, 0)
    np.fill_diagonal(edges, 0)
    edges = np.maximum(edges, edges.T)
    truth = np.asarray(textrank(edges.astype(np.float64), tol=1e-13).scores)
    tensor = torch.from_numpy(edges)
    listed = [
        Provider("rlsft native 1T", lambda: textrank(edges, tol=TOL, backend="native").scores[None]),
        Provider("rlsft native 2T", lambda: textrank(edges, tol=TOL, backend="native").scores[None], threads=2),
        Provider("numpy GEMV loop float32", partial(gemv_loop, edges), package="numpy"),
        Provider("torch GEMV loop 1T", partial(gemv_loop_torch, tensor), package="torch"),
        *matrix_peers(edges, TOL),
    ]
    note = f"given float32 matrix, L1 step {TOL:g}; a sweep reads {4 * n * n / 1e6:.0f} MB"
    return TextRankCase(edges, truth[None], f"matrix {n}x{n}", listed, note=note)


def gemv_loop(edges: np.ndarray, tol: float = TOL) -> np.ndarray:
    """Power iteration on a given matrix in its own precision."""
    strength = edges.sum(1)
    inverse = np.where(strength > 0, 1 / np.where(strength > 0, strength, 1), 0)
    n = len(edges)
    x = np.full(n, 1 / n, edges.dtype)
    for _ in range(1000):
        following = DAMPING * ((x * inverse) @ edges) + (1 - DAMPING) / n
        step = np.abs(following - x).sum()
        x = following
        if step < tol:
            break
    return x[None]


def gemv_loop_torch(edges: torch.Tensor, tol: float = TOL) -> torch.Tensor:
    """The same in torch."""
    inverse, n = 1 / edges.sum(1), len(edges)
    x = edges.new_full((n,), 1 / n)
    for _ in range(1000):
        following = DAMPING * ((x * inverse) @ edges) + (1 - DAMPING) / n
        step = (following - x).abs().sum()
        x = following
        if step < tol:
            break
    return x[None]


def implicit_case(n: int) -> TextRankCase:
    """(1 + cos) / 2 of all pairs of rows, by two thin products a sweep."""
    rows = clustered_rows(n)
    truth = np.asarray(textrank(embeddings=rows.astype(np.float64), tol=1e-13).scores)
    listed = [
        Provider("rlsft native 1T", lambda: textrank(embeddings=rows, tol=LARGE_TOL, backend="native").scores[None]),
        Provider(
            "rlsft native 2T",
            lambda: textrank(embeddings=rows, tol=LARGE_TOL, backend="native").scores[None],
            threads=2,
        ),
        Provider("numpy X(X^T v) loop float32", partial(thin_products, rows), package="numpy"),
        Provider("numpy X(X^T v) loop float64", partial(thin_products, rows.astype(np.float64)), package="numpy"),
    ]
    note = f"shifted_cosine, L1 step {LARGE_TOL:g}, no n x n matrix ({4 * n * n / 1e6:.0f} MB); norms included in ours"
    return TextRankCase(rows, truth[None], f"cosines of {n}x384", listed, note=note)


def thin_products(unit: np.ndarray, tol: float = LARGE_TOL) -> np.ndarray:
    """The same idea in NumPy: W u = (sum u - u + X (X^T u) - u) / 2 for unit rows."""
    n = len(unit)

    def apply(u: np.ndarray) -> np.ndarray:
        return 0.5 * (u.sum() - u) + 0.5 * (unit @ (unit.T @ u) - u)

    inverse = 1 / apply(np.ones(n, unit.dtype))
    x = np.full(n, 1 / n, unit.dtype)
    for _ in range(1000):
        following = DAMPING * apply(x * inverse) + (1 - DAMPING) / n
        step = np.abs(following - x).sum()
        x = following
        if step < tol:
            break
    return x[None]


def providers(groups: np.ndarray) -> list[Provider]:
    """Ours on one and two threads, and what a user would write instead."""
    tensor = torch.from_numpy(groups)
    few = groups[:NETWORKX_GROUPS]
    return [
        Provider("rlsft native 1T", ours(groups, TOL)),
        Provider("rlsft native 2T", ours(groups, TOL), threads=2),
        Provider("rlsft native 1T, tol 1e-10", ours(groups, 1e-10)),
        *floors(groups),
        Provider("numpy batched 1T", partial(numpy_batched, groups), package="numpy"),
        Provider("torch batched 1T", partial(torch_batched, tensor), package="torch"),
        Provider("torch batched 2T", partial(torch_batched, tensor), threads=2, package="torch"),
        *batch_peers(groups, TOL),
        Provider("networkx loop", partial(networkx_loop, few), scale=len(groups) / len(few), package="networkx"),
    ]


def floors(groups: np.ndarray) -> list[Provider]:
    """One read of the embeddings, and as many flops in one square product."""
    flat = torch.from_numpy(groups).reshape(-1)
    count, m, d = groups.shape
    side = max(64, round((count * (m * m + 4 * m) * d / 2) ** (1 / 3)))
    square = torch.randn(side, side)
    return [
        Provider("floor: one read", flat.sum),
        Provider("floor: flops in one product", partial(torch.mm, square, square)),
    ]


def ours(groups: np.ndarray, tol: float) -> Callable[[], np.ndarray]:
    """The public op; `threads` follows torch, which the harness sets."""
    return lambda: textrank(embeddings=groups, edge="relu_cosine", tol=tol, backend="native").scores  # type: ignore[return-value]
