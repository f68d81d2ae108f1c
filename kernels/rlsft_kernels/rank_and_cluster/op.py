"""rank_and_cluster: scores and clusters of the same groups, whose dot products are computed once."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt

from rlsft_kernels._backend import Backend, backend_status, choose_backend
from rlsft_kernels._checks import require_choice
from rlsft_kernels._groups import FLOATS, Array, Groups, contiguous_numpy, device_type_of, like
from rlsft_kernels.isodata.inputs import require_usable
from rlsft_kernels.isodata.op import isodata
from rlsft_kernels.isodata.result import IsodataResult
from rlsft_kernels.isodata.run import Found, core_options, history_of, packed
from rlsft_kernels.isodata.settings import IsodataSettings, make_settings
from rlsft_kernels.rank_and_cluster.reference import rank_and_cluster_reference
from rlsft_kernels.similarity.op import EMBEDDING_EDGES, embedding_edges, flat_embeddings, resolve_threads
from rlsft_kernels.textrank.cuda_path import fits
from rlsft_kernels.textrank.inputs import FORMS, check_options, distribution, explain_bad_weights
from rlsft_kernels.textrank.result import TextRankResult, report_nonconvergence

_SUPPORTED = {"native": {"cpu": FLOATS}}
_SETTINGS = frozenset(IsodataSettings.__dataclass_fields__)
_NOT_CLUSTER_OPTIONS = ("points", "groups", "scores", "threads", "backend")


class RankAndClusterResult(NamedTuple):
    """What `textrank` and `isodata` return."""

    ranking: TextRankResult
    clusters: IsodataResult


def rank_and_cluster(
    embeddings: Array,  # [n, d], [B, n, d], or [M, d] with groups; float32 or float64
    *,
    groups: Array | None = None,  # [G + 1] int64 offsets
    edge: str = "shifted_cosine",
    form: str = "stochastic",
    damping: float = 0.85,
    tol: float = 1e-10,
    max_iter: int = 1000,
    teleport: Array | None = None,  # [n], [B, n] or [M]
    start: Array | None = None,  # [n], [B, n] or [M]
    on_nonconvergence: str = "raise",
    cluster: Mapping[str, Any] | None = None,
    threads: int | None = None,
    backend: Backend = "auto",
) -> RankAndClusterResult:
    """TextRank scores and ISODATA clusters of each group of responses.

    Equals, bit for bit, `ranking = textrank(embeddings=embeddings, ...)` and then
    `isodata(embeddings, scores=ranking.scores, **cluster)`: among members equally near a centre the highest score is
    the medoid. Groups of up to 64 responses compute their dot products once for both and are read from memory once; on
    a CUDA device the two ops run one after the other, and the embeddings stay there.

    Args:
        embeddings: one row a response.
        groups: [0, .., M]; without it a 2-D input is one group and a 3-D input a batch.
        edge: "shifted_cosine", "relu_cosine" or "cosine", see `similarity_matrix`.
        form, damping, tol, max_iter, teleport, start, on_nonconvergence: of `textrank`.
        cluster: keyword arguments of `isodata`, such as {"n_clusters": 4, "min_samples": 2}.
        threads: native backend; None follows torch.get_num_threads().
        backend: "auto", "native" (C++) or "reference" (the two ops' references).

    Returns:
        (ranking, clusters).

    Raises:
        TypeError, ValueError, ConvergenceError: as the two ops do. A key of `cluster` that isodata does not know is a
            TypeError with the nearest name.
    """
    require_choice("edge", edge, EMBEDDING_EDGES)
    check_options(damping, tol, max_iter, form, on_nonconvergence)
    options = _checked_cluster_options(cluster or {})
    flat, layout = flat_embeddings(embeddings, groups)
    chosen = choose_backend(
        "rank_and_cluster", backend, device_type="cpu", dtype=_dtype_name(flat), supported=_SUPPORTED
    )
    rank = {
        "edge": edge,
        "form": form,
        "damping": damping,
        "tol": tol,
        "max_iter": max_iter,
        "teleport": teleport,
        "start": start,
        "on_nonconvergence": on_nonconvergence,
    }
    if chosen != "native" or _stays_on_device(flat, layout) or not _is_fused(options):
        return RankAndClusterResult(
            *rank_and_cluster_reference(embeddings, groups, rank, options, threads=threads, backend=chosen)
        )
    settings = _settings(options, one_set=layout.single)
    ranking, found = _native(flat, layout, rank, settings, resolve_threads(threads))
    report_nonconvergence(*ranking[1:], layout, tol=tol, max_iter=max_iter, action=on_nonconvergence)
    return RankAndClusterResult(_ranking(*ranking, layout, embeddings), packed(found, layout, embeddings))


def _stays_on_device(flat: Array, layout: Groups) -> bool:
    """Whether CUDA kernels rank these groups: the two calls then leave the embeddings on their device."""
    return device_type_of(flat) == "cuda" and fits(layout) and backend_status("native", "cuda")[0]


def _dtype_name(flat: Array) -> str:
    return str(flat.dtype).removeprefix("torch.")


def _checked_cluster_options(given: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise TypeError(f"cluster must be a mapping of isodata's keyword arguments, got {type(given).__name__}")
    known = _cluster_defaults()
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; isodata knows {', '.join(known)}"
            raise TypeError(f"cluster has an unknown key {name!r}{hint}")
    return dict(given)


def _is_fused(options: dict[str, Any]) -> bool:
    """Starting centres that are given, and arrays with a number a row, take the two calls."""
    return all(value is None or not hasattr(value, "shape") for value in options.values())


def _settings(options: dict[str, Any], *, one_set: bool) -> IsodataSettings:
    given = {name: value for name, value in {**_cluster_defaults(), **options}.items() if name in _SETTINGS}
    return make_settings(init_is_array=False, one_set=one_set, **given)


@functools.cache
def _cluster_defaults() -> dict[str, Any]:
    parameters = inspect.signature(isodata).parameters.items()
    return {name: p.default for name, p in parameters if name not in _NOT_CLUSTER_OPTIONS}


_Ranked = tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.float64]]  # scores [M], n_iter, residual [G]


def _native(
    flat: Array, layout: Groups, rank: dict[str, Any], settings: IsodataSettings, threads: int
) -> tuple[_Ranked, Found]:
    from rlsft_kernels import _C

    rows = contiguous_numpy(flat)
    if rows.shape[1] == 0:
        raise ValueError(f"embeddings must have at least one column, got {list(rows.shape)}")
    scores, labels = np.empty(layout.rows, rows.dtype), np.empty(layout.rows, np.int32)
    n_iter, residual = np.zeros(len(layout), np.int64), np.zeros(len(layout))
    out = _C.rank_and_cluster(
        rows,
        layout.offsets,
        EMBEDDING_EDGES.index(rank["edge"]),
        distribution("teleport", rank["teleport"], layout),
        distribution("start", rank["start"], layout),
        rank["damping"],
        rank["tol"],
        rank["max_iter"],
        FORMS.index(rank["form"]),
        core_options(settings),
        threads,
        scores,
        n_iter,
        residual,
        labels,
    )
    if out["bad_group"] >= 0:
        _explain(rows, layout, rank["edge"], threads)
    return (scores, n_iter, residual), Found(labels, out["centers"], out["medoids"], history_of(out))


def _explain(rows: npt.NDArray[Any], layout: Groups, edge: str, threads: int) -> NoReturn:
    require_usable(rows, layout, name="embeddings")
    explain_bad_weights(embedding_edges(rows, layout, edge, "native", threads), layout, edge)


def _ranking(
    scores: npt.NDArray[Any],
    n_iter: npt.NDArray[np.int64],
    residual: npt.NDArray[np.float64],
    layout: Groups,
    pattern: Array,
) -> TextRankResult:
    shape = () if layout.single else (len(layout),)
    return TextRankResult(
        like(scores.reshape(layout.shape), pattern, _dtype_name(pattern)),
        like(n_iter.reshape(shape), pattern, "int64"),
        like(residual.reshape(shape), pattern, "float64"),
    )
