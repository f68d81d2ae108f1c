"""pagerank: scores of the nodes of one large sparse graph."""

from __future__ import annotations

import math
from typing import Any

import torch

from rlsft_kernels._backend import Backend, Supported, backend_status, choose_backend
from rlsft_kernels._checks import require_choice, require_positive_int
from rlsft_kernels._groups import FLOATS
from rlsft_kernels.pagerank.cuda_path import DeviceEdges, lies_on, rank_on_device, read_on_device
from rlsft_kernels.pagerank.graph import give_back, node_distribution, read_graph
from rlsft_kernels.pagerank.result import PagerankResult, report_nonconvergence
from rlsft_kernels.pagerank.run import METHODS, Options, rank_edges
from rlsft_kernels.similarity.op import resolve_threads

ACTIONS = ("raise", "warn", "ignore")
MAX_NODES = 2**31 - 64
SUPPORTED_ON_CUDA: Supported = {"native": {"cuda": FLOATS}}


def pagerank(
    graph: Any,
    *,
    alpha: float = 0.85,
    personalization: Any = None,  # [n], or a dict from nodes to weights
    max_iter: int = 200,
    tol: float = 1e-8,
    nstart: Any = None,  # [n], or a dict
    weight: str | None = "weight",
    dangling: Any = None,  # [n], or a dict
    method: str = "gauss_seidel",
    tol_per_node: bool = False,
    on_nonconvergence: str = "raise",
    return_info: bool = False,
    threads: int | None = None,
    backend: Backend = "auto",
) -> Any:
    """PageRank of each node of a graph, directed or not: networkx's argument names, many times its speed.

    x_j = (1-a) v_j + a (sum_{i: s_i>0} x_i w_ij / s_i + D d_j), with weights w_ij of edges from i to j, s_i the sum of
    w_ij over j, teleport v (personalization), D the sum of x_i over nodes without outgoing weight, and d where that
    mass goes (Page, Brin, Motwani and Winograd 1999). Scores sum to 1. Not differentiable.

    Stops when the L1 step of a sweep, the sum of the absolute changes of all scores, is below tol, whatever the size
    of the graph; with method="jacobi" the scores are then within a / (1-a) * tol of the solution in L1. networkx
    stops at a step of n * tol instead: for its rule pass tol_per_node=True, and expect an error that grows with n.

    Args:
        graph: a networkx graph (Graph, DiGraph, or their Multi kinds), a SciPy sparse array or matrix, a torch sparse
            CSR, CSC or COO tensor, a square NumPy array or torch tensor, or a tuple (indptr, indices, weights or
            None). Row i holds the edges that leave i. Weights are finite and not negative, float32, float64, or
            integers or booleans (read as float64). Repeated edges add up; self loops count.
        alpha: damping a, in [0, 1).
        personalization: teleport v, not negative, scaled to sum 1; a dict gives the nodes it lacks 0. None is uniform.
        max_iter: sweeps before on_nonconvergence applies.
        tol: absolute L1 step on scores that sum to 1.
        nstart: first guess, scaled like personalization; changes the number of sweeps, not the result beyond tol.
        weight: edge attribute of a networkx graph that holds the weight; None makes every edge 1. Not used otherwise.
        dangling: d, scaled like personalization; None is the teleport.
        method: "gauss_seidel" uses new values within a sweep, in a fixed order of blocks, and needs fewer sweeps;
            "jacobi" uses those of the last sweep alone. Neither's bits depend on threads.
        tol_per_node: multiply tol by the number of nodes, as networkx does.
        on_nonconvergence: "raise" a ConvergenceError, "warn", or "ignore" when max_iter is reached.
        return_info: return a PagerankResult with n_iter and residual beside the scores.
        threads: native backend; None follows torch.get_num_threads().
        backend: "native" is the compiled core: C++ on the CPU; for a torch sparse tensor, dense tensor or tuple of
            tensors on a CUDA device, CUDA kernels (Jacobi, whatever method), which look at the stopping rule every
            eighth sweep: one small copy, and a wait. "reference" is plain PyTorch in float64 (Jacobi too).

    Returns:
        Scores: a dict for a networkx graph; otherwise [n] in the weights' dtype as the graph's kind of array, on its
        device. With return_info a PagerankResult(scores, n_iter, residual).

    Raises:
        TypeError: wrong kind or dtype. ValueError: wrong shape or value; the message names the edge or node.
        ConvergenceError: max_iter reached; carries n_iter and residual, and is a networkx
            PowerIterationFailedConvergence too where networkx is loaded.
    """
    _check_options(alpha, tol, max_iter, method, on_nonconvergence)
    on_device = _read_for_cuda(graph, backend)
    edges = read_graph(graph, weight) if on_device is None else on_device.nodes_only()
    if edges.n >= MAX_NODES:
        raise ValueError(f"graph must have fewer than {MAX_NODES} nodes, got {edges.n}")
    options = Options(
        alpha,
        tol * edges.n if tol_per_node and edges.n else tol,
        max_iter,
        method,
        node_distribution("personalization", personalization, edges),
        node_distribution("dangling", dangling, edges),
        node_distribution("nstart", nstart, edges),
        resolve_threads(threads),
    )
    if on_device is None:
        scores, n_iter, residual = rank_edges(edges, options, "pagerank", backend)
        given = give_back(scores, edges)
    else:
        device_scores, n_iter, residual = rank_on_device(on_device, options)
        given = device_scores.to(getattr(torch, on_device.dtype))
    report_nonconvergence(n_iter, residual, tol=options.tol, max_iter=max_iter, action=on_nonconvergence)
    return PagerankResult(given, n_iter, residual) if return_info else given


def _read_for_cuda(graph: Any, backend: str) -> DeviceEdges | None:
    """The edges of a graph on a CUDA device when the CUDA kernels are to rank it, else None."""
    if not lies_on(graph, "cuda") or backend == "reference":
        return None
    if backend == "auto" and not backend_status("native", "cuda")[0]:
        return None
    dtype = graph.dtype if isinstance(graph, torch.Tensor) and graph.dtype == torch.float32 else "float64"
    choose_backend("pagerank", backend, device_type="cuda", dtype=dtype, supported=SUPPORTED_ON_CUDA)
    return read_on_device(graph)


def _check_options(alpha: float, tol: float, max_iter: int, method: str, on_nonconvergence: str) -> None:
    require_choice("method", method, METHODS)
    require_choice("on_nonconvergence", on_nonconvergence, ACTIONS)
    if not 0 <= alpha < 1:
        raise ValueError(f"alpha must be in [0, 1), got {alpha!r}")
    if not (tol > 0 and math.isfinite(tol)):
        raise ValueError(f"tol must be a positive number (absolute L1 step), got {tol!r}")
    require_positive_int("max_iter", max_iter)
