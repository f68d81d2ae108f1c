"""The public function isodata: checks once, picks a backend once, hands over."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from rlsft_kernels._backend import Backend, choose_backend
from rlsft_kernels._checks import require_offsets, require_positive_int
from rlsft_kernels.isodata.reference import isodata_reference
from rlsft_kernels.isodata.result import STOP_REASONS, IsodataHistory, IsodataResult
from rlsft_kernels.isodata.settings import (
    Dispersion,
    Geometry,
    Init,
    IsodataSettings,
    SplitCriterion,
    VarianceKind,
    Variant,
    make_settings,
)

Array = NDArray[Any] | torch.Tensor
LARGEST_MAGNITUDE = 1e150  # beyond it squared distances overflow
_SUPPORTED = {"native": {"cpu": ("float32", "float64")}}
_VARIANCE_KINDS = ("trace", "max_component_variance", "max_component_std")
_ROWS_PER_CHECK = 65536


def isodata(
    points: Array,  # [n, d], [B, n, d], or [N, d] with groups; float32 or float64
    *,
    groups: Array | None = None,  # int64 offsets [0, .., N]
    variant: Variant = "ball_hall",
    n_clusters: int | None = None,
    init: Init | Array = "k-means++",
    n_init_clusters: int | None = None,
    min_samples: int = 1,
    max_std: float | Literal["auto"] = "auto",
    split_criterion: SplitCriterion | None = None,
    min_distance: float | Literal["auto"] = "auto",
    max_merges: int = 2,
    max_iter: int = 20,
    split_factor: float = 0.5,
    dispersion: Dispersion = "distance",
    geometry: Geometry | None = None,
    discard_as_noise: bool = False,
    stop_early: bool = True,
    min_size: int = 0,
    max_size: int | None = None,
    var_threshold: float = 0.05,
    variance_kind: VarianceKind = "trace",
    scores: Array | None = None,
    seed: int = 0,
    threads: int | None = None,
    backend: Backend = "auto",
) -> IsodataResult:
    """Cluster points, or every group of points by itself, letting the number of clusters adapt.

    `variant="ball_hall"` is Ball and Hall's ISODATA (1965): every pass assigns, drops small clusters, then splits wide
    ones (odd passes; always while there are at most K/2) or merges the closest (even passes; always from 2K on).
    `variant="str"` is the one of STR (arXiv 2402.18284, Algorithm 2): clusters are bounded by size and variance, and
    two are merged when the union keeps the bounds, so that near-duplicates end up together. Its cost grows with the
    square of a group's size: it is for groups of responses.

    A group's result depends neither on the other groups, nor on its place, nor on `threads`, and every group draws
    from the same seed. Labels are the nearest of the *returned* centres; values within a relative 1e-10 count as
    equal and the lowest index wins. Points on a GPU are clustered on the CPU and the result is moved back.

    Automatic thresholds are relative to each group's spread. They suit groups of embeddings; a group without any
    structure is still cut, and many clusters in few dimensions need numbers.

    Args:
        points: one set `[n, d]`, a batch of equal groups `[B, n, d]`, or rows `[N, d]` cut by `groups`.
        groups: offsets of the groups; a group may be empty.
        variant: "ball_hall" or "str".
        n_clusters: K, capped at the rows of a group. Default: ceil(sqrt(m)) for groups, 8 for one set.
        init: "k-means++", "random" (distinct rows) or starting centres `[k, d]`; `[groups, k, d]` for a batch.
        n_init_clusters: starting clusters N_c. Default: K.
        min_samples: theta_N. Clusters with fewer members are dropped, their rows join the nearest centre left.
        max_std: theta_S. A cluster that deviates more may be split. "auto": 0.6 s, s^2 the mean coordinate variance.
        split_criterion: what is compared with max_std: "max", the largest coordinate's standard deviation (default
            for a number), or "rms", the root mean square over the coordinates (default for "auto").
        min_distance: theta_C. Closer centres may be merged. "auto": 0.75 R, R^2 the total variance.
        max_merges: L, pairs merged a pass at most.
        max_iter: I, passes at most.
        split_factor: gamma. The halves start at centre +- gamma * sigma along the widest coordinate.
        dispersion: a cluster is wide for its mean "distance" to the centre, or its root mean "squared" distance.
        geometry: "euclidean", or "cosine": rows are scaled to unit length, and for "ball_hall" the centres too.
            Default: "euclidean" for "ball_hall", "cosine" for "str" (whose thresholds are meant for unit rows).
        discard_as_noise: rows of a dropped cluster get label -1 and take no further part.
        stop_early: stop when a state comes back. False runs all `max_iter` passes; the clusters are the same.
        min_size: "str": clusters of at most this size are merged into the nearest. 0: outliers stay singletons.
        max_size: "str": clusters of at least this size are split. None: no bound.
        var_threshold: "str": clusters with a larger variance are split; unions with a larger one are not made.
        variance_kind: "str": "trace" (1 - |centroid|^2 of unit rows), "max_component_variance" or
            "max_component_std".
        scores: `points.shape[:-1]`: among members equally near the centre the highest score is the medoid.
        seed: seed of `init`; the same one gives the same clusters in C++ and in Python.
        threads: CPU threads. Default: torch.get_num_threads().
        backend: "auto", "native" (C++) or "reference" (NumPy).

    Returns:
        IsodataResult(labels, centers, medoids, n_iter, history), with center_offsets, n_clusters, n_splits,
        n_merges, n_discarded and stop_reason as properties.

    Raises:
        TypeError: wrong kind or dtype of an argument.
        ValueError: wrong shape or range, NaN or infinity (named by group and row), or an argument that belongs to
            the other variant.
    """
    rows, offsets = _rows_and_offsets(points, groups)
    one_set = points.ndim == 2 and groups is None
    init_is_array = not isinstance(init, str)
    settings = make_settings(
        init_is_array=init_is_array,
        one_set=one_set,
        variant=variant,
        n_clusters=n_clusters,
        init=init,
        n_init_clusters=n_init_clusters,
        min_samples=min_samples,
        max_std=max_std,
        split_criterion=split_criterion,
        min_distance=min_distance,
        max_merges=max_merges,
        max_iter=max_iter,
        split_factor=split_factor,
        dispersion=dispersion,
        geometry=geometry,
        discard_as_noise=discard_as_noise,
        stop_early=stop_early,
        min_size=min_size,
        max_size=max_size,
        var_threshold=var_threshold,
        variance_kind=variance_kind,
        seed=seed,
    )
    _require_finite_points(rows, offsets)
    start_GKD = _starting_centers(init, len(offsets) - 1, rows.shape[1]) if init_is_array else None
    scores_N = None if scores is None else _scores(scores, tuple(points.shape[:-1]))
    if threads is None:
        threads = torch.get_num_threads()
    require_positive_int("isodata: threads", threads)
    chosen = choose_backend(
        "isodata", backend, device_type="cpu", dtype=rows.dtype, supported=_SUPPORTED
    )
    if chosen == "native":
        found = _run_native(rows, offsets, settings, start_GKD, scores_N, threads)
    else:
        found = _run_reference(rows, offsets, settings, start_GKD, scores_N)
    return _packed(found, points, one_set)


def _rows_and_offsets(points: Array, groups: Array | None) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """points as a contiguous NumPy [N, d], and the offsets that cut it into groups."""
    array = _as_numpy("points", points)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(
            f"isodata: points must be float32 or float64, got {array.dtype}; convert it explicitly, e.g. points.float()"
        )
    if array.ndim not in (2, 3) or array.shape[-1] < 1:
        raise ValueError(f"isodata: points must be [n, d] or [B, n, d] with d >= 1, got {list(array.shape)}")
    rows = np.ascontiguousarray(array).reshape(-1, array.shape[-1])
    if array.ndim == 3:
        if groups is not None:
            raise ValueError("isodata: groups goes with points [N, d]; points [B, n, d] are groups already")
        return rows, np.arange(array.shape[0] + 1, dtype=np.int64) * array.shape[1]
    if groups is None:
        return rows, np.array([0, len(rows)], dtype=np.int64)
    offsets = torch.as_tensor(groups).cpu()
    require_offsets("isodata: groups", offsets, len(rows), "rows of points")
    return rows, np.ascontiguousarray(offsets.numpy())


def _as_numpy(name: str, value: Any) -> NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"isodata: {name} must be a torch.Tensor or numpy.ndarray, got {type(value).__name__}")
    if value.dtype == torch.bfloat16:  # NumPy has no such type to name in a message
        raise TypeError(f"isodata: {name} must be float32 or float64, got bfloat16; convert it, e.g. {name}.float()")
    return value.detach().cpu().numpy()


def _require_finite_points(rows: NDArray[Any], offsets: NDArray[np.int64]) -> None:
    largest = min(LARGEST_MAGNITUDE, float(np.finfo(rows.dtype).max))
    for begin in range(0, len(rows), _ROWS_PER_CHECK):
        part = rows[begin : begin + _ROWS_PER_CHECK]
        is_good = np.abs(part) <= largest  # False for NaN
        if is_good.all():
            continue
        row, column = (int(i) for i in np.argwhere(~is_good)[0])
        value, row = part[row, column], row + begin
        group = int(np.searchsorted(offsets, row, side="right")) - 1
        where = f"(group {group}, row {row - int(offsets[group])} of it, column {column})"
        if np.isfinite(value):
            raise ValueError(f"isodata: points row {row} holds {value:g} {where}; scale the points below 1e150")
        raise ValueError(f"isodata: points row {row} holds {value} {where}; remove the row or re-encode it")


def _starting_centers(init: Any, num_groups: int, d: int) -> NDArray[np.float64]:
    """init as [groups, k, d] float64."""
    array = _as_numpy("init", init)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"isodata: init must be float32 or float64, got {array.dtype}")
    shapes_ok = array.ndim == 2 or (array.ndim == 3 and len(array) == num_groups)
    if not shapes_ok or array.shape[-1] != d or array.shape[-2] < 1:
        raise ValueError(
            f"isodata: init must be [k, {d}] or [{num_groups}, k, {d}] with k >= 1, got {list(array.shape)}"
        )
    if not (np.abs(array.astype(np.float64)) <= LARGEST_MAGNITUDE).all():
        raise ValueError("isodata: init holds NaN, infinity or values beyond 1e150")
    return np.array(np.broadcast_to(array, (num_groups, *array.shape[-2:])), dtype=np.float64)


def _scores(scores: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = _as_numpy("scores", scores)
    if array.dtype not in (np.float32, np.float64):
        raise TypeError(f"isodata: scores must be float32 or float64, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"isodata: scores must be {list(shape)}, one for each point, got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError("isodata: scores holds NaN or infinity")
    return np.array(array, dtype=np.float64).reshape(-1)


def _run_native(
    rows: NDArray[Any],
    offsets: NDArray[np.int64],
    settings: IsodataSettings,
    start_GKD: NDArray[np.float64] | None,
    scores_N: NDArray[np.float64] | None,
    threads: int,
) -> dict[str, Any]:
    from rlsft_kernels import _C

    options = {
        "is_str": settings.variant == "str",
        "init_is_random": settings.init == "random",
        "n_clusters": settings.n_clusters or 0,
        "n_init_clusters": settings.n_init_clusters or 0,
        "default_is_sqrt": not settings.one_set,
        "max_iter": settings.max_iter,
        "cosine": settings.geometry == "cosine",
        "seed": settings.seed,
        "min_samples": settings.min_samples,
        "max_std": -1.0 if settings.max_std is None else settings.max_std,
        "split_by_largest": settings.split_criterion == "max",
        "min_distance": -1.0 if settings.min_distance is None else settings.min_distance,
        "max_merges": settings.max_merges,
        "split_factor": settings.split_factor,
        "squared_dispersion": settings.dispersion == "squared",
        "discard_as_noise": settings.discard_as_noise,
        "stop_early": settings.stop_early,
        "min_size": settings.min_size,
        "max_size": settings.max_size or 0,
        "var_threshold": settings.var_threshold,
        "variance_kind": _VARIANCE_KINDS.index(settings.variance_kind),
    }
    start = start_offsets = None
    if start_GKD is not None:
        start = start_GKD.reshape(-1, rows.shape[1])
        start_offsets = np.arange(len(start_GKD) + 1, dtype=np.int64) * start_GKD.shape[1]
    labels = np.empty(len(rows), np.int32)
    found = _C.isodata(rows, offsets, start, start_offsets, scores_N, options, threads, labels)
    return {**found, "labels": labels, "stops": tuple(STOP_REASONS[stop] for stop in found["stops"])}


def _run_reference(
    rows: NDArray[Any],
    offsets: NDArray[np.int64],
    settings: IsodataSettings,
    start_GKD: NDArray[np.float64] | None,
    scores_N: NDArray[np.float64] | None,
) -> dict[str, Any]:
    d = rows.shape[1]
    runs = [
        isodata_reference(
            rows[begin:end],
            settings,
            start=None if start_GKD is None else start_GKD[g],
            scores=None if scores_N is None else scores_N[begin:end],
        )
        for g, (begin, end) in enumerate(zip(offsets[:-1], offsets[1:], strict=True))
    ]
    steps = [step for run in runs for step in run.steps]
    return {
        "labels": np.concatenate([np.zeros(0, np.int32), *(run.labels for run in runs)]),
        "centers": np.concatenate([np.zeros((0, d)), *(run.centers for run in runs)]),
        "medoids": np.concatenate(
            [np.zeros(0, np.int64), *(run.medoids + begin for run, begin in zip(runs, offsets, strict=False))]
        ),
        "center_offsets": np.cumsum([0, *(len(run.centers) for run in runs)], dtype=np.int64),
        "steps": np.array(steps, dtype=np.int64).reshape(-1, 4),
        "step_offsets": np.cumsum([0, *(len(run.steps) for run in runs)], dtype=np.int64),
        "stops": tuple(run.stop_reason for run in runs),
    }


def _packed(found: dict[str, Any], points: Array, one_set: bool) -> IsodataResult:
    history = IsodataHistory(found["steps"], found["step_offsets"], found["center_offsets"], found["stops"])
    n_iter: Any = np.diff(history.step_offsets)
    labels = found["labels"].reshape(tuple(points.shape[:-1]))
    if isinstance(points, np.ndarray):
        centers, medoids = found["centers"].astype(points.dtype), found["medoids"]
    else:
        to_tensor = torch.from_numpy
        labels = to_tensor(labels).to(points.device)
        centers = to_tensor(found["centers"]).to(points.device, points.dtype)
        medoids = to_tensor(found["medoids"]).to(points.device)
        n_iter = to_tensor(n_iter)
    return IsodataResult(labels, centers, medoids, int(n_iter[0]) if one_set else n_iter, history)
