"""Labels of new rows: the nearest of given centres, by the rules of isodata."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rlsft_kernels._backend import native_status
from rlsft_kernels.isodata.reference_parts import SAME_DIRECTION, nearest, unit_rows
from rlsft_kernels.isodata.settings import Geometry
from rlsft_kernels.similarity.op import resolve_threads

_ROWS_AT_ONCE = 4096


def geometry_rows(rows: NDArray[np.floating], geometry: Geometry) -> NDArray[np.floating]:
    """The rows as they are compared with centres: scaled to unit length, in float64, for "cosine"."""
    return unit_rows(rows.astype(np.float64)) if geometry == "cosine" else rows


def nearest_centers(
    rows: NDArray[np.floating],  # [n, d] float32 or float64, finite
    centers: NDArray[np.floating],  # [k, d], k >= 1
    *,
    geometry: Geometry = "euclidean",
    threads: int | None = None,  # None: torch.get_num_threads()
) -> NDArray[np.int32]:
    """[n]: the label that `isodata` would give each row for these centres; ties go to the lowest number."""
    rows, exact = geometry_rows(rows, geometry), centers.astype(np.float64)
    labels = np.empty(len(rows), np.int32)
    if geometry == "euclidean" and len(rows) and native_status()[0]:
        from rlsft_kernels import _C

        sums = np.empty((len(exact), 2, exact.shape[1]))
        rows = np.require(rows, requirements=["C", "A"])
        _C.isodata_assign(rows, exact, resolve_threads(threads), 1, False, labels, sums)
        return labels
    floor = SAME_DIRECTION if geometry == "cosine" else 0.0
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(begin, begin + _ROWS_AT_ONCE)
        labels[part] = nearest(rows[part].astype(np.float64), exact, floor)
    return labels


def center_distances(
    rows: NDArray[np.floating], centers: NDArray[np.floating], *, geometry: Geometry = "euclidean"
) -> NDArray[np.float64]:
    """[n, k] Euclidean distances, between unit vectors for "cosine"; a row equal to a centre is at 0."""
    rows, exact = geometry_rows(rows, geometry), centers.astype(np.float64)
    middle = exact.mean(axis=0)
    exact -= middle
    lengths = np.einsum("ij,ij->i", exact, exact)
    squared = np.empty((len(rows), len(exact)))
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[begin : begin + _ROWS_AT_ONCE].astype(np.float64) - middle
        scale = np.einsum("ij,ij->i", part, part)[:, None] + lengths
        found = scale - 2 * (part @ exact.T)
        i, c = np.nonzero(found < 1e-4 * scale)  # digits cancelled: from the differences instead
        found[i, c] = np.square(part[i] - exact[c]).sum(axis=1)
        squared[begin : begin + len(part)] = found
    return np.sqrt(squared)
