"""Runs isodata on a backend and packs what comes out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rlsft_kernels._groups import Array, Groups, like
from rlsft_kernels.isodata.inputs import require_usable
from rlsft_kernels.isodata.reference import isodata_reference
from rlsft_kernels.isodata.result import STOP_REASONS, IsodataHistory, IsodataResult
from rlsft_kernels.isodata.settings import VARIANCE_KINDS, IsodataSettings

Floats = npt.NDArray[np.float64]


class Found(NamedTuple):
    """A backend's clusters, as NumPy arrays or as tensors on the points' device."""

    labels: Array  # int32 [N]
    centers: Array  # [sum k, d]
    medoids: Array  # int64 [sum k], row of the flat points
    history: IsodataHistory


def run_native(
    rows: npt.NDArray[np.floating],  # [N, d]
    layout: Groups,
    settings: IsodataSettings,
    start: Floats | None,  # [groups, k, d]
    scores: Floats | None,  # [N]
    weight: Floats | None,  # [N]
    threads: int,
) -> Found:
    """The C++ core, all groups in one call."""
    from rlsft_kernels import _C

    flat_start = start_offsets = None
    if start is not None:
        flat_start = start.reshape(-1, rows.shape[1])
        start_offsets = np.arange(len(start) + 1, dtype=np.int64) * start.shape[1]
    labels = np.empty(len(rows), np.int32)
    out = _C.isodata(
        rows, layout.offsets, flat_start, start_offsets, scores, weight, core_options(settings), threads, labels
    )
    if out["bad_group"] >= 0:
        require_usable(rows, layout)
    return Found(labels, out["centers"], out["medoids"], history_of(out))


def history_of(out: dict[str, Any]) -> IsodataHistory:
    """The history in what the core returned."""
    stops = tuple(STOP_REASONS[stop] for stop in out["stops"].tolist())
    return IsodataHistory(out["steps"], out["step_offsets"], out["center_offsets"], stops)


def core_options(settings: IsodataSettings) -> dict[str, Any]:
    """The settings under the names and codes of csrc/include/rlsft/isodata.hpp."""
    return {
        "is_str": settings.variant == "str",
        "init_is_random": settings.init == "random",
        "n_clusters": settings.n_clusters or 0,
        "n_init_clusters": settings.n_init_clusters or 0,
        "default_is_sqrt": not settings.one_set,
        "max_iter": settings.max_iter,
        "cosine": settings.geometry == "cosine",
        "seed": settings.seed,
        "min_samples": float(settings.min_samples),
        "max_std": -1.0 if settings.max_std is None else settings.max_std,
        "split_by_largest": settings.split_criterion == "max",
        "min_distance": -1.0 if settings.min_distance is None else settings.min_distance,
        "max_merges": settings.max_merges,
        "split_factor": settings.split_factor,
        "squared_dispersion": settings.dispersion == "squared",
        "discard_as_noise": settings.discard_as_noise,
        "stop_early": settings.stop_early,
        "tol": settings.tol,
        "min_size": settings.min_size,
        "max_size": settings.max_size or 0,
        "var_threshold": settings.var_threshold,
        "variance_kind": VARIANCE_KINDS.index(settings.variance_kind),
    }


def run_reference(
    rows: npt.NDArray[np.floating],  # [N, d]
    layout: Groups,
    settings: IsodataSettings,
    start: Floats | None,  # [groups, k, d]
    scores: Floats | None,  # [N]
    weight: Floats | None,  # [N]
) -> Found:
    """The NumPy reference, group by group."""
    require_usable(rows, layout)
    labels, centers, medoids = np.empty(len(rows), np.int32), [np.zeros((0, rows.shape[1]))], [np.zeros(0, np.int64)]
    steps, num_steps, num_centers, stops = [np.zeros((0, 4), np.int64)], [0], [0], []
    for group, members in enumerate(layout.slices()):
        run = isodata_reference(
            rows[members],
            settings,
            start=None if start is None else start[group],
            scores=None if scores is None else scores[members],
            weight=None if weight is None else weight[members],
        )
        labels[members] = run.labels
        centers.append(run.centers)
        medoids.append(run.medoids + members.start)
        steps.append(np.array(run.steps, dtype=np.int64).reshape(-1, 4))
        num_steps.append(len(run.steps))
        num_centers.append(len(run.centers))
        stops.append(run.stop_reason)
    history = IsodataHistory(
        np.concatenate(steps),
        np.cumsum(num_steps, dtype=np.int64),
        np.cumsum(num_centers, dtype=np.int64),
        tuple(stops),
    )
    return Found(labels, np.concatenate(centers), np.concatenate(medoids), history)


def packed(found: Found, layout: Groups, pattern: Array) -> IsodataResult:
    """What the caller gets: arrays of the kind, and on the device, that `pattern` (the points) has."""
    n_iter = np.diff(found.history.step_offsets).reshape(() if layout.single else (len(layout),))
    return IsodataResult(
        like(found.labels.reshape(layout.shape), pattern, "int32"),
        like(found.centers, pattern, str(pattern.dtype).removeprefix("torch.")),
        like(found.medoids, pattern, "int64"),
        like(n_iter, pattern, "int64"),
        found.history,
    )
