"""The sweeps behind pagerank and the sparse textrank: edges in, scores out, by the chosen backend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._backend import Supported, choose_backend
from rlsft_kernels._groups import FLOATS
from rlsft_kernels.pagerank.graph import FAULTS, ORDERS, Edges, Ids, find_fault, raise_fault
from rlsft_kernels.pagerank.reference import pagerank_reference

METHODS = ("gauss_seidel", "jacobi")  # in the order of SweepMethod in csrc
SUPPORTED: Supported = {"native": {"cpu": FLOATS}}
Ranked = tuple[npt.NDArray[np.float64], int, float]  # scores [n], sweeps, L1 step of the last one


@dataclass(frozen=True)
class Options:
    """What a run needs beside the edges."""

    damping: float
    tol: float  # absolute L1 step
    max_iter: int
    method: str
    teleport: npt.NDArray[np.float64] | None  # [n], sums to 1; None is uniform
    dangling: npt.NDArray[np.float64] | None  # [n], sums to 1; None is the teleport
    start: npt.NDArray[np.float64] | None  # [n], sums to 1
    threads: int


def rank_edges(edges: Edges, options: Options, op: str, backend: str) -> Ranked:
    """Scores [n] float64, sweeps and L1 step, by the chosen backend.

    Raises:
        ValueError: ids out of range, pointers that fall, or a weight that is NaN, infinite or negative.
    """
    device = edges.pattern.device.type if isinstance(edges.pattern, torch.Tensor) else "cpu"
    chosen = choose_backend(op, backend, device_type=device, dtype=edges.dtype, supported=SUPPORTED)
    return _native(edges, options) if chosen == "native" else _reference(edges, options)


def _native(edges: Edges, options: Options) -> Ranked:
    from rlsft_kernels import _C

    scores = np.empty(edges.n)
    weights = edges.weights
    found = _C.pagerank(
        edges.n,
        ORDERS.index(edges.order),
        edges.pointers,
        _narrow(edges, "starts", edges.starts, options.threads),
        _narrow(edges, "ends", edges.ends, options.threads),
        weights if weights is not None and weights.dtype == np.float32 else None,
        weights if weights is not None and weights.dtype == np.float64 else None,
        options.teleport,
        options.dangling,
        options.start,
        options.damping,
        options.tol,
        options.max_iter,
        METHODS.index(options.method),
        options.threads,
        scores,
    )
    if found["fault"]:
        raise_fault(edges, FAULTS[found["fault"]], found["position"])
    return scores, found["n_iter"], found["residual"]


def _narrow(edges: Edges, name: str, ids: Ids | None, threads: int) -> npt.NDArray[np.int32] | None:
    """Node ids as int32, which halves what a sweep reads."""
    from rlsft_kernels import _C

    if ids is None or ids.dtype == np.int32:
        return ids  # type: ignore[return-value]
    narrow = np.empty(len(ids), dtype=np.int32)
    bad = _C.narrow_ids(ids, edges.n, threads, narrow)  # type: ignore[arg-type]
    if bad >= 0:
        raise_fault(edges, name, bad)
    return narrow


def _reference(edges: Edges, options: Options) -> Ranked:
    fault, position = find_fault(edges)
    if fault != "none":
        raise_fault(edges, fault, position)
    device = edges.pattern.device if isinstance(edges.pattern, torch.Tensor) else torch.device("cpu")
    starts, ends = (torch.from_numpy(ids).to(device) for ids in edges.coordinates())
    weights = np.ones(len(edges.ends)) if edges.weights is None else edges.weights.astype(np.float64)
    uniform = np.full(edges.n, 1 / max(edges.n, 1))
    teleport = uniform if options.teleport is None else options.teleport
    scores, n_iter, residual = pagerank_reference(
        starts,
        ends,
        torch.from_numpy(weights).to(device),
        torch.from_numpy(teleport).to(device),
        torch.from_numpy(teleport if options.dangling is None else options.dangling).to(device),
        torch.from_numpy(teleport if options.start is None else options.start).to(device),
        damping=options.damping,
        tol=options.tol,
        max_iter=options.max_iter,
    )
    return scores.cpu().numpy(), n_iter, residual
