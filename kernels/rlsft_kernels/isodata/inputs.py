"""Checked inputs of isodata: flat rows, starting centres and scores as NumPy arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rlsft_kernels._groups import (
    Array,
    Groups,
    contiguous_numpy,
    group_rows,
    require_array,
    require_finite_rows,
)

LARGEST_MAGNITUDE = 1e150  # beyond it squared distances overflow


def flat_points(points: Array, groups: Array | None) -> tuple[Array, Groups]:
    """points as [N, d] rows where they are, and how they fall into groups. The values are still to be checked:
    require_usable."""
    require_array("points", points)
    if points.ndim not in (2, 3) or points.shape[-1] < 1:
        raise ValueError(f"points must be [n, d] or [B, n, d] with d >= 1, got {list(points.shape)}")
    layout = group_rows("points", tuple(points.shape[:-1]), groups, "[M, d]")
    return points.reshape(-1, points.shape[-1]), layout


def require_usable(rows: npt.NDArray[np.floating], layout: Groups, *, name: str = "points") -> None:
    """ValueError that names the first row with NaN, infinity or a value whose square overflows.

    The native core checks while it reads and asks here only for the words: a pass over all values costs more than
    clustering small groups.
    """
    require_finite_rows(name, rows, layout)
    if rows.dtype == np.float64:  # float32 cannot hold such values
        _require_no_overflow(rows, layout, name)


def _require_no_overflow(rows: npt.NDArray[np.floating], layout: Groups, name: str) -> None:
    is_large = (np.abs(rows) > LARGEST_MAGNITUDE).any(axis=-1)
    if is_large.any():
        index, words = layout.place(int(np.argmax(is_large)))
        raise ValueError(
            f"{name}[{index}] has a value beyond 1e150 ({words}), whose squared distance overflows; scale the rows"
        )


def starting_centers_of_groups(init: Array, num_groups: int, d: int) -> npt.NDArray[np.float64]:
    """init as [groups, k, d]; [k, d] serves every group."""
    require_array("init", init)
    is_shaped = init.ndim == 2 or (init.ndim == 3 and len(init) == num_groups)
    if not is_shaped or init.shape[-1] != d or init.shape[-2] < 1:
        raise ValueError(
            f"init must be starting centres [k, {d}] or [{num_groups}, k, {d}] with k >= 1, got {list(init.shape)}"
        )
    centers = contiguous_numpy(init).astype(np.float64)
    if not (np.abs(centers) <= LARGEST_MAGNITUDE).all():  # False for NaN
        raise ValueError("init contains nan, inf or a value beyond 1e150; give finite starting centres")
    return np.ascontiguousarray(np.broadcast_to(centers, (num_groups, *centers.shape[-2:])))


def scores_of_rows(scores: Array, layout: Groups) -> npt.NDArray[np.float64]:
    """scores as [N] float64."""
    require_array("scores", scores)
    if tuple(scores.shape) != layout.shape:
        raise ValueError(f"scores must have one entry a point, {list(layout.shape)}, got {list(scores.shape)}")
    flat = contiguous_numpy(scores).astype(np.float64).reshape(-1)
    require_finite_rows("scores", flat[:, None], layout)
    return flat


def weights_of_rows(sample_weight: Array, layout: Groups) -> npt.NDArray[np.float64]:
    """sample_weight as [N] float64: finite, >= 0, a positive one in every group that has rows."""
    require_array("sample_weight", sample_weight)
    if tuple(sample_weight.shape) != layout.shape:
        raise ValueError(
            f"sample_weight must have one entry a point, {list(layout.shape)}, got {list(sample_weight.shape)}"
        )
    flat = contiguous_numpy(sample_weight).astype(np.float64).reshape(-1)
    require_finite_rows("sample_weight", flat[:, None], layout)
    if (flat < 0).any():
        index, words = layout.place(int(np.argmax(flat < 0)))
        raise ValueError(f"sample_weight[{index}] is {flat[flat < 0][0]} ({words}); weights must be >= 0")
    for group, members in enumerate(layout.slices()):
        if members.stop > members.start and not flat[members].any():
            where = "" if layout.single else f" in group {group}"
            raise ValueError(f"sample_weight is zero for every row{where}; give at least one row a positive weight")
    return flat
