"""similarity_matrix: edge weights between the responses of each group."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._backend import Backend, Supported, choose_backend
from rlsft_kernels._checks import require_choice, require_positive_int
from rlsft_kernels._groups import (
    FLOATS,
    Array,
    Groups,
    contiguous_numpy,
    device_type_of,
    float64_tensor,
    group_rows,
    like,
    require_array,
    require_finite_rows,
)
from rlsft_kernels.similarity.reference import (
    bm25_reference,
    cosine_edges_reference,
    word_overlap_reference,
)
from rlsft_kernels.similarity.tokens import TokenGroups, Tokens, token_groups

EMBEDDING_EDGES = ("cosine", "shifted_cosine", "relu_cosine")  # in the order of EdgeMap in csrc
TEXT_EDGES = ("word_overlap", "bm25")
OVERLAPS = ("set", "multiset")
SUPPORTED: Supported = {"native": {"cpu": FLOATS}}


def similarity_matrix(
    embeddings: Array | None = None,  # [n, d], [B, n, d], or flat [M, d] with groups; float32 or float64
    *,
    tokens: Tokens | None = None,  # a list of responses, each a list of token ids; or flat int64 ids
    token_offsets: Array | None = None,  # [responses + 1] int64, with flat tokens
    groups: Array | None = None,  # [G + 1] int64 offsets that cut the rows into groups
    edge: str = "shifted_cosine",
    overlap: str = "set",
    threads: int | None = None,
    backend: Backend = "auto",
) -> Array:  # [n, n], [B, n, n], or flat [sum of m^2] blocks with groups
    """Edge weight of every pair of responses of a group: what `textrank` runs on. The diagonal is 0.

    edge="shifted_cosine" is 0.5 + 0.5 cos, "relu_cosine" max(cos, 0), "cosine" the raw cosine (for study: it can be
    negative). A zero row has cosine 0 with everything. From tokens: "word_overlap" is |shared| / (log |S_i| + log
    |S_j|) (Mihalcea and Tarau 2004), "bm25" the directed BM25 score of response j for the words of response i, with a
    negative idf floored at 0 (Barrios et al. 2016).

    Args:
        embeddings: one row a response. Give either this or tokens.
        tokens: token ids of each response.
        token_offsets: where each response starts in flat tokens.
        groups: [0, .., M]; without it, 2-D embeddings or a token list are one group and 3-D embeddings a batch.
        edge: the weight, see above.
        overlap: "set" counts a shared word once, "multiset" as often as both sides have it (word_overlap only).
        threads: native backend; None follows torch.get_num_threads(). The result does not depend on it.
        backend: "native" is the C++ core on the CPU, "reference" plain PyTorch in float64.

    Returns:
        The weights in the embeddings' dtype, as the same kind of array on the same device; float64 from tokens.

    Raises:
        TypeError: wrong kind or dtype. ValueError: wrong shape or value; the message names argument, group and row.
    """
    if (embeddings is None) == (tokens is None):
        raise ValueError("give either embeddings or tokens")
    require_choice("overlap", overlap, OVERLAPS)
    threads = resolve_threads(threads)
    if tokens is not None:
        require_choice("edge", edge, TEXT_EDGES)
        parsed = token_groups(tokens, token_offsets, groups)
        chosen = choose_backend("similarity_matrix", backend, device_type="cpu", dtype="float64", supported=SUPPORTED)
        edges = text_edges(parsed, edge, overlap, chosen, threads)
        return like(_reshape(edges, parsed.groups), token_pattern(tokens), "float64")
    assert embeddings is not None
    require_choice("edge", edge, EMBEDDING_EDGES)
    flat, layout = flat_embeddings(embeddings, groups)
    chosen = choose_backend(
        "similarity_matrix",
        backend,
        device_type=device_type_of(flat),
        dtype=str(flat.dtype),
        supported=SUPPORTED,
    )
    blocks = embedding_edges(flat, layout, edge, chosen, threads)
    return like(_reshape(blocks, layout), embeddings, str(flat.dtype).removeprefix("torch."))


def resolve_threads(threads: int | None) -> int:
    """The argument `threads`, or what torch uses."""
    if threads is None:
        return torch.get_num_threads()
    require_positive_int("threads", threads)
    return threads


def flat_embeddings(embeddings: Array, groups: Array | None) -> tuple[Array, Groups]:
    """embeddings as [M, d] rows and the groups they form."""
    require_array("embeddings", embeddings)
    if embeddings.ndim not in (2, 3):
        raise ValueError(
            f"embeddings must be [n, d], [B, n, d] or flat [M, d] with groups, got shape {list(embeddings.shape)}"
        )
    d = embeddings.shape[-1]
    if d == 0:
        raise ValueError(f"embeddings must have at least one column, got shape {list(embeddings.shape)}")
    layout = group_rows("embeddings", tuple(embeddings.shape[:-1]), groups, "flat [M, d]")
    return embeddings.reshape(-1, d), layout


def embedding_edges(flat: Array, layout: Groups, edge: str, backend: str, threads: int) -> Any:
    """Flat m x m blocks of cosine weights: the rows' dtype from native, float64 from the reference."""
    if backend != "native":
        require_finite_rows("embeddings", flat, layout)
        rows = float64_tensor(flat)
        blocks = [cosine_edges_reference(rows[s], edge).reshape(-1) for s in layout.slices()]
        return torch.cat([rows.new_empty(0), *blocks])
    from rlsft_kernels import _C

    values = contiguous_numpy(flat)
    edges = np.empty(int(layout.block_offsets[-1]), dtype=values.dtype)
    ok = np.empty(len(layout), dtype=bool)
    _C.similarity_groups(values, layout.offsets, EMBEDDING_EDGES.index(edge), threads, edges, ok)
    if not ok.all():
        require_finite_rows("embeddings", flat, layout)
    return edges


def text_edges(tokens: TokenGroups, edge: str, overlap: str, backend: str, threads: int) -> npt.NDArray[np.float64]:
    """Flat m x m blocks of word_overlap or bm25 weights."""
    if backend == "native":
        from rlsft_kernels import _C

        edges = np.empty(int(tokens.groups.block_offsets[-1]))
        kind = 2 if edge == "bm25" else OVERLAPS.index(overlap)
        _C.text_edges_groups(tokens.ids, tokens.offsets, tokens.groups.offsets, kind, threads, edges)
        return edges
    blocks = []
    for rows in tokens.groups.slices():
        responses = tokens.responses(rows)
        if edge == "bm25":
            blocks.append(bm25_reference(responses))
        else:
            blocks.append(word_overlap_reference(responses, multiset=overlap == "multiset"))
    return np.concatenate([np.empty(0), *(block.numpy().reshape(-1) for block in blocks)])


def token_pattern(tokens: Tokens) -> Array:
    """The kind of array that results from tokens come back as: torch for torch, NumPy otherwise."""
    return tokens if isinstance(tokens, torch.Tensor) else np.empty(0)


def _reshape(blocks: Any, layout: Groups) -> Any:
    if layout.single:
        return blocks.reshape(layout.rows, layout.rows)
    if len(layout.shape) == 2:
        batch, n = layout.shape
        return blocks.reshape(batch, n, n)
    return blocks
