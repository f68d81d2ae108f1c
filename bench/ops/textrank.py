"""Batches of small response groups: embeddings in, scores out, cosines included. 4*G*m*d bytes, 2*G*m^2*d flops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import networkx as nx
import numpy as np
import torch

from bench.measure import Provider
from rlsft_kernels import textrank

DAMPING, TOL = 0.85, 1e-6
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
        got = np.asarray(provider.run(), dtype=np.float64)
        error = float(np.abs(got - self.truth[: len(got)]).sum(1).max())
        if not error < 1e-5:
            raise AssertionError(f"{provider.name} is wrong by {error:.2e} (L1) on {self.shape}; not timed")
        return f"L1 {error:.1e}"


def cases(*, quick: bool) -> Iterator[TextRankCase]:
    """The shapes of the core workload: groups of 8 to 64 answers, encoders of 384 and 1024 dimensions."""
    count = 64 if quick else 512
    for m, d in [(16, 384)] if quick else [(8, 384), (16, 384), (16, 1024), (64, 384), (64, 1024)]:
        g = np.random.default_rng(0)
        groups = (g.standard_normal((count, 1, d)) + g.standard_normal((count, m, d))).astype(np.float32)
        truth = textrank(
            embeddings=groups.astype(np.float64), edge="relu_cosine", tol=1e-13, backend="reference"
        ).scores
        yield TextRankCase(groups, np.asarray(truth), f"{count}x{m}x{d}", providers(groups))


def providers(groups: np.ndarray) -> list[Provider]:
    """Ours on one and two threads, and what a user would write instead."""
    tensor = torch.from_numpy(groups)
    few = groups[:NETWORKX_GROUPS]
    return [
        Provider("rlsft native 1T", ours(groups, TOL)),
        Provider("rlsft native 2T", ours(groups, TOL), threads=2),
        Provider("rlsft native 1T, tol 1e-10", ours(groups, 1e-10)),
        Provider("numpy batched 1T", partial(numpy_batched, groups), package="numpy"),
        Provider("torch batched 1T", partial(torch_batched, tensor), package="torch"),
        Provider("torch batched 2T", partial(torch_batched, tensor), threads=2, package="torch"),
        Provider("networkx loop", partial(networkx_loop, few), scale=len(groups) / len(few), package="networkx"),
    ]


def ours(groups: np.ndarray, tol: float) -> Callable[[], np.ndarray]:
    """The public op; `threads` follows torch, which the harness sets."""
    return lambda: textrank(embeddings=groups, edge="relu_cosine", tol=tol, backend="native").scores  # type: ignore[return-value]
