"""textrank: scores of the responses of each group, from embeddings, tokens or explicit edges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._backend import Backend, Supported, choose_backend
from rlsft_kernels._checks import require_choice
from rlsft_kernels._groups import (
    FLOATS,
    Array,
    Groups,
    contiguous_numpy,
    device_type_of,
    float64_tensor,
    like,
    require_finite_rows,
)
from rlsft_kernels.similarity.op import (
    EMBEDDING_EDGES,
    OVERLAPS,
    TEXT_EDGES,
    embedding_edges,
    flat_embeddings,
    resolve_threads,
    text_edges,
    token_pattern,
)
from rlsft_kernels.similarity.tokens import TokenGroups, Tokens, token_groups
from rlsft_kernels.textrank.cuda_path import fits, rank_on_device, require_fitting
from rlsft_kernels.textrank.inputs import (
    FORMS,
    METHODS,
    check_options,
    distribution,
    explain_bad_weights,
    flat_similarity,
    has_bad_weights,
)
from rlsft_kernels.textrank.reference import Ranked, textrank_reference
from rlsft_kernels.textrank.result import TextRankResult, report_nonconvergence
from rlsft_kernels.textrank.sparse import is_sparse, textrank_sparse

SUPPORTED: Supported = {"native": {"cpu": FLOATS, "cuda": FLOATS}}
SUPPORTED_LARGE: Supported = {"native": {"cpu": FLOATS}}  # groups of more rows than a CUDA block ranks
OVERFLOW = -2  # kOverflow in csrc; kBadInput is -1
Outcome = tuple[Any, npt.NDArray[np.int64], npt.NDArray[np.float64]]  # flat scores [M], n_iter [G], residual [G]


@dataclass(frozen=True)
class _Options:
    damping: float
    tol: float
    max_iter: int
    form: str
    method: str
    teleport: npt.NDArray[np.float64] | None  # [M]
    start: npt.NDArray[np.float64] | None  # [M]
    threads: int


@dataclass(frozen=True)
class _Graph:
    flat: Array  # [M, d] embeddings, or [sum of m^2] weights; empty with tokens
    layout: Groups
    pattern: Array  # results come back as this kind of array
    tokens: TokenGroups | None = None

    @property
    def dtype(self) -> str:
        return str(self.flat.dtype).removeprefix("torch.")


def textrank(
    similarity: Any = None,  # [n, n] (also sparse), [B, n, n], or flat [sum of m^2] blocks with groups
    *,
    embeddings: Array | None = None,  # [n, d], [B, n, d], or flat [M, d] with groups
    tokens: Tokens | None = None,  # a list of responses, each a list of token ids; or flat int64 ids
    token_offsets: Array | None = None,  # [responses + 1] int64, with flat tokens
    groups: Array | None = None,  # [G + 1] int64 offsets that cut the rows into groups
    damping: float = 0.85,
    tol: float = 1e-10,
    max_iter: int = 1000,
    teleport: Array | None = None,  # [n], [B, n] or [M]
    start: Array | None = None,  # [n], [B, n] or [M]
    edge: str = "shifted_cosine",
    overlap: str = "set",
    form: str = "stochastic",
    method: str = "auto",
    on_nonconvergence: str = "raise",
    threads: int | None = None,
    backend: Backend = "auto",
) -> TextRankResult:
    """TextRank score of each response among the responses of its group.

    form="stochastic": x_j = (1-a) v_j + a (sum_{i: s_i>0} x_i w_ij / s_i + D v_j), with edges w_ij from i to j,
    s_i = sum_j w_ij, teleport v and D the sum of x_i over rows without edges (arXiv 2402.18284 eq. 4-5 divided by n;
    Mihalcea and Tarau 2004). Scores sum to 1 in each group. form="eigenvector": the principal eigenvector of W^T, the
    limit of that paper's released code, or the Katz centrality (1-a) (I - a W^T)^-1 n v where a * rho(W) <= 1; the
    largest score is 1 and the teleport matters for Katz only.

    A group of more than 256 embeddings with edge="shifted_cosine" is ranked without its n x n matrix; with other edges
    the matrix is made, n * n values of the embeddings' dtype.

    Iterates in float64 until the absolute L1 step of a sweep is below tol; the stochastic scores are then within
    a / (1-a) * tol of the solution. Each group stops by itself, so batching changes no bit, nor does the number of
    threads. Responses the graph cannot tell apart tie exactly. Not differentiable.

    Args:
        similarity: explicit edge weights, finite and not negative; row i holds the edges that leave i. Self loops
            are kept. One graph may be a SciPy sparse array or a torch sparse tensor (see `pagerank`). Give exactly
            one of similarity, embeddings and tokens.
        embeddings: one row a response; self loops are removed.
        tokens: token ids of each response, for edge="word_overlap" or "bm25".
        token_offsets: where each response starts in flat tokens.
        groups: [0, .., M]; without it a 2-D input is one graph and a 3-D input a batch.
        damping: a, in [0, 1).
        tol: absolute L1 step on scores that sum to 1; it does not grow with n.
        max_iter: sweeps a group may take.
        teleport: v, not negative, scaled to sum 1 in each group; None is uniform.
        start: first guess, scaled like teleport; changes the number of sweeps, not the result beyond tol.
        edge: see `similarity_matrix`; "precomputed" (or the default) with similarity.
        overlap: "set" or "multiset", for edge="word_overlap".
        form: see above.
        method: how the stochastic form is solved natively. "jacobi" sweeps from the last scores alone; "gauss_seidel"
            uses new ones within a sweep and ends with a Jacobi sweep, whose step is the residual; "auto" takes what is
            faster: Jacobi on dense graphs, Gauss-Seidel on sparse ones. They agree within tol, and neither's bits
            depend on threads. Embeddings that are ranked without their matrix always take Jacobi sweeps.
        on_nonconvergence: "raise" a ConvergenceError, "warn", or "ignore" when a group reaches max_iter.
        threads: native backend; None follows torch.get_num_threads().
        backend: "native" is the compiled core: C++ on the CPU, CUDA kernels for tensors on a CUDA device, where
            embeddings and scores stay (groups of up to 256 rows; teleport and start are checked on the host, and one
            copy of n_iter and residual comes back, so the call waits for the device). "reference" is plain PyTorch in
            float64.

    Returns:
        scores in the input's dtype (float64 from tokens), n_iter and residual for each group (0-d for one graph), as
        the input's kind of array on its device.

    Raises:
        TypeError: wrong kind or dtype. ValueError: wrong shape or value; the message names argument, group and row.
        MemoryError: the matrix of a large group does not fit; the message says how large it is.
        ConvergenceError: max_iter reached; carries n_iter, residual and group.
    """
    if sum(x is not None for x in (similarity, embeddings, tokens)) != 1:
        raise ValueError("give exactly one of similarity, embeddings and tokens")
    check_options(damping, tol, max_iter, form, on_nonconvergence)
    require_choice("method", method, METHODS)
    require_choice("overlap", overlap, OVERLAPS)
    require_edge_for(edge, similarity=similarity is not None, tokens=tokens is not None)
    if is_sparse(similarity):
        return textrank_sparse(
            similarity,
            groups=groups,
            damping=damping,
            tol=tol,
            max_iter=max_iter,
            teleport=teleport,
            start=start,
            form=form,
            method=method,
            on_nonconvergence=on_nonconvergence,
            threads=threads,
            backend=backend,
        )

    graph = _read_graph(similarity, embeddings, tokens, token_offsets, groups)
    layout = graph.layout
    options = _Options(
        damping,
        tol,
        max_iter,
        form,
        method,
        distribution("teleport", teleport, layout),
        distribution("start", start, layout),
        resolve_threads(threads),
    )
    flat, device_type = graph.flat, device_type_of(graph.flat)
    if device_type == "cuda" and backend == "native":
        require_fitting(layout)
    supported = SUPPORTED if device_type == "cpu" or fits(layout) else SUPPORTED_LARGE
    chosen = choose_backend("textrank", backend, device_type=device_type, dtype=graph.dtype, supported=supported)
    if graph.tokens is not None:
        flat = text_edges(graph.tokens, edge, overlap, chosen, options.threads)
    run = _native if chosen == "native" else _reference
    scores, n_iter, residual = run(flat, layout, edge if embeddings is not None else None, options)
    report_nonconvergence(n_iter, residual, layout, tol=tol, max_iter=max_iter, action=on_nonconvergence)
    return _result(scores, n_iter, residual, graph)


def _read_graph(
    similarity: Array | None,
    embeddings: Array | None,
    tokens: Tokens | None,
    token_offsets: Array | None,
    groups: Array | None,
) -> _Graph:
    if tokens is not None:
        parsed = token_groups(tokens, token_offsets, groups)
        return _Graph(np.empty(0), parsed.groups, token_pattern(tokens), parsed)
    if embeddings is not None:
        return _Graph(*flat_embeddings(embeddings, groups), embeddings)
    assert similarity is not None
    return _Graph(*flat_similarity(similarity, groups), similarity)


def require_edge_for(edge: str, *, similarity: bool, tokens: bool) -> None:
    """ValueError when the edge does not go with the kind of input."""
    if tokens:
        require_choice("edge with tokens", edge, TEXT_EDGES)
    elif similarity:
        if edge not in ("precomputed", "shifted_cosine"):
            raise ValueError(
                f"edge={edge!r} cannot be made from similarity, which is used as it is: pass edge='precomputed', "
                "or embeddings (tokens for word_overlap and bm25)"
            )
    else:
        require_choice("edge with embeddings", edge, EMBEDDING_EDGES)


def _native(flat: Array, layout: Groups, edge: str | None, options: _Options) -> Outcome:
    if isinstance(flat, torch.Tensor) and device_type_of(flat) == "cuda":
        scores, n_iter, residual = rank_on_device(flat, layout, edge, options)
        if (n_iter < 0).any():
            _explain_failure(flat, layout, edge, n_iter, options.threads)
        return scores, n_iter, residual
    return _native_cpu(flat, layout, edge, options)


def _native_cpu(flat: Array, layout: Groups, edge: str | None, options: _Options) -> Outcome:
    from rlsft_kernels import _C

    values = contiguous_numpy(flat)
    scores = np.empty(layout.rows, dtype=values.dtype)
    n_iter, residual = np.empty(len(layout), dtype=np.int64), np.empty(len(layout))
    common = (
        options.teleport,
        options.start,
        options.damping,
        options.tol,
        options.max_iter,
        FORMS.index(options.form),
        METHODS.index(options.method),
        options.threads,
        scores,
        n_iter,
        residual,
    )
    if edge is None:
        _C.textrank_dense(values, layout.offsets, *common)
    else:
        try:
            _C.textrank_embeddings(values, layout.offsets, EMBEDDING_EDGES.index(edge), *common)
        except MemoryError as error:
            raise _no_room(layout, edge, values.itemsize) from error
    if (n_iter < 0).any():
        _explain_failure(flat, layout, edge, n_iter, options.threads)
    return scores, n_iter, residual


def _no_room(layout: Groups, edge: str, itemsize: int) -> MemoryError:
    n = int(layout.sizes.max())
    return MemoryError(
        f"textrank: no room for the {n} x {n} matrix of edge={edge!r}, {n * n * itemsize / 2**30:.1f} GiB; "
        "edge='shifted_cosine' needs no matrix"
    )


def _explain_failure(
    flat: Array, layout: Groups, edge: str | None, n_iter: npt.NDArray[np.int64], threads: int
) -> NoReturn:
    if (n_iter == OVERFLOW).any():
        raise ValueError(
            f"the weights of group {int(np.argmax(n_iter == OVERFLOW))} are so large that their sums overflow; "
            "divide them by their maximum"
        )
    if edge is None:
        explain_bad_weights(flat, layout, None)
    require_finite_rows("embeddings", flat, layout)  # before a large group's edges are written down
    explain_bad_weights(embedding_edges(flat, layout, edge, "native", threads), layout, edge)


def _reference(flat: Array, layout: Groups, edge: str | None, options: _Options) -> Outcome:
    blocks = float64_tensor(flat)
    if edge is not None:
        blocks = embedding_edges(flat, layout, edge, "reference", options.threads)
    if has_bad_weights(blocks) and not (edge == "cosine" and options.form == "eigenvector"):
        explain_bad_weights(blocks, layout, edge)
    ranked = [
        _rank_one(blocks[begin:end].reshape(rows.stop - rows.start, rows.stop - rows.start), rows, options)
        for (begin, end), rows in zip(pairwise(layout.block_offsets), layout.slices(), strict=True)
    ]
    scores = torch.cat([blocks.new_empty(0), *(scores for scores, _, _ in ranked)])
    return scores, np.array([n for _, n, _ in ranked], np.int64), np.array([step for _, _, step in ranked])


def _rank_one(weights: torch.Tensor, rows: slice, options: _Options) -> Ranked:
    size = len(weights)
    uniform = weights.new_full((size,), 1.0 / max(size, 1))
    teleport = uniform if options.teleport is None else torch.from_numpy(options.teleport[rows]).to(weights)
    start = teleport if options.start is None else torch.from_numpy(options.start[rows]).to(weights)
    return textrank_reference(
        weights,
        teleport,
        start,
        damping=options.damping,
        tol=options.tol,
        max_iter=options.max_iter,
        form=options.form,
    )


def _result(
    scores: Any, n_iter: npt.NDArray[np.int64], residual: npt.NDArray[np.float64], graph: _Graph
) -> TextRankResult:
    layout = graph.layout
    shape = () if layout.single else (len(layout),)
    return TextRankResult(
        like(scores.reshape(layout.shape), graph.pattern, graph.dtype),
        like(n_iter.reshape(shape), graph.pattern, "int64"),
        like(residual.reshape(shape), graph.pattern, "float64"),
    )
