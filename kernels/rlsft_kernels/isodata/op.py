"""The public function isodata: checks once, picks a backend once, hands over."""

from __future__ import annotations

from typing import Literal, TypeGuard

import torch

from rlsft_kernels._backend import Backend, backend_status, choose_backend
from rlsft_kernels._groups import FLOATS, Array, Groups, contiguous_numpy, device_type_of
from rlsft_kernels.isodata.cuda_path import fits, run_on_device
from rlsft_kernels.isodata.inputs import flat_points, scores_of_rows, starting_centers_of_groups, weights_of_rows
from rlsft_kernels.isodata.result import IsodataResult
from rlsft_kernels.isodata.run import Floats, packed, run_native, run_reference
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
from rlsft_kernels.similarity.op import resolve_threads

_SUPPORTED = {"native": {"cpu": FLOATS}}


def isodata(
    points: Array,  # [n, d], [B, n, d], or [N, d] with groups; float32 or float64
    *,
    groups: Array | None = None,  # int64 offsets [0, .., N]
    variant: Variant = "ball_hall",
    n_clusters: int | None = None,
    init: Init | Array = "k-means++",
    n_init_clusters: int | None = None,
    min_samples: float = 1,
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
    tol: float = 0.0,
    min_size: int = 0,
    max_size: int | None = None,
    var_threshold: float = 0.05,
    variance_kind: VarianceKind = "trace",
    scores: Array | None = None,
    sample_weight: Array | None = None,
    seed: int = 0,
    threads: int | None = None,
    backend: Backend = "auto",
) -> IsodataResult:
    """Cluster points, or every group of points by itself, letting the number of clusters adapt.

    `variant="ball_hall"` is Ball and Hall's ISODATA (1965): every pass assigns, drops small clusters, then splits wide
    ones (odd passes; always while there are at most K/2) or merges the closest (even passes; always from 2K on).
    `variant="str"` is the one of STR (arXiv 2402.18284, Algorithm 2): clusters are bounded by size and variance, and
    two are merged when the union keeps the bounds, so that near-duplicates end up together. A member merged in a pass
    is not split off again in it. The bounds hold within a pass; the final assignment to the nearest centre may move a
    row across them. The cost grows with the square of a group's size: it is for groups of responses.

    A group's result depends neither on the other groups, nor on its place, nor on `threads`, and every group draws
    from the same seed. Labels are the nearest of the *returned* centres; values within a relative 1e-10 count as
    equal and the lowest index wins. Points on a CUDA device stay there where the CUDA kernels do the job (groups of up
    to 256 rows; the history comes to the host, so the call waits for the device); otherwise they are clustered on the
    CPU and the result is moved back. Both give the same clusters.

    Automatic thresholds are relative to each group's spread. They suit groups of embeddings; a group without any
    structure is still cut, and many clusters in few dimensions need numbers.

    Args:
        points: one set `[n, d]`, a batch of equal groups `[B, n, d]`, or rows `[N, d]` cut by `groups`.
        groups: offsets of the groups; a group may be empty.
        variant: "ball_hall" or "str".
        n_clusters: K, capped at the rows of a group. Default: ceil(sqrt(m)) for groups, 8 for one set.
        init: "k-means++", "random" (distinct rows) or starting centres `[k, d]`; `[groups, k, d]` for a batch.
        n_init_clusters: starting clusters N_c. Default: K.
        min_samples: theta_N. Clusters with fewer members are dropped, their rows join the nearest centre left. With
            `sample_weight` a number that is compared with the sum of the members' weights.
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
        tol: also stop (reason "tol") after an odd and an even pass that neither split, merged nor dropped, when the
            squared moves of the centres sum to at most tol * the mean coordinate variance. 0: off.
        min_size: "str": clusters of at most this size are merged into the nearest. 0: outliers stay singletons.
        max_size: "str": clusters of at least this size are split. None: no bound.
        var_threshold: "str": clusters with a larger variance are split; unions with a larger one are not made.
        variance_kind: "str": "trace" (1 - |centroid|^2 of unit rows), "max_component_variance" or
            "max_component_std".
        scores: `points.shape[:-1]`: among members equally near the centre the highest score is the medoid.
        sample_weight: `points.shape[:-1]`, finite, >= 0, not all 0 in a group: a row of weight w counts as w equal rows
            in means, deviations, dispersions, sizes and the draws of `init`. A row of weight 0 gets a label and
            influences nothing; medoids have weight. Only "ball_hall", whose rule that clusters of more than
            2 (min_samples + 1) rows may split takes the 1 as a row of weight 1. K is capped at the rows with weight.
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
    rows, layout = flat_points(points, groups)
    settings = make_settings(
        init_is_array=not isinstance(init, str),
        one_set=layout.single,
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
        tol=tol,
        is_weighted=sample_weight is not None,
        min_size=min_size,
        max_size=max_size,
        var_threshold=var_threshold,
        variance_kind=variance_kind,
        seed=seed,
    )
    start = None if isinstance(init, str) else starting_centers_of_groups(init, len(layout), rows.shape[1])
    scores_N = None if scores is None else scores_of_rows(scores, layout)
    weight_N = None if sample_weight is None else weights_of_rows(sample_weight, layout)
    num_threads = resolve_threads(threads)
    # whatever the CUDA kernel does not take runs on the CPU, so that is the device that decides
    chosen = choose_backend("isodata", backend, device_type="cpu", dtype=rows.dtype, supported=_SUPPORTED)
    if chosen == "native" and _stays_on_device(rows, layout, settings, start):
        found = run_on_device(rows, layout, settings, start, scores_N, weight_N)
    elif chosen == "native":
        found = run_native(contiguous_numpy(rows), layout, settings, start, scores_N, weight_N, num_threads)
    else:
        found = run_reference(contiguous_numpy(rows), layout, settings, start, scores_N, weight_N)
    return packed(found, layout, points)


def _stays_on_device(
    rows: Array, layout: Groups, settings: IsodataSettings, start: Floats | None
) -> TypeGuard[torch.Tensor]:
    is_on_cuda = device_type_of(rows) == "cuda" and backend_status("native", "cuda")[0]
    return is_on_cuda and fits(layout, settings, start, rows.shape[1])
