"""Checks of textrank's arguments: graphs, teleport and start vectors."""

from __future__ import annotations

import math
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._checks import require_choice, require_positive_int
from rlsft_kernels._groups import Array, Groups, contiguous_numpy, group_rows, offsets_array, require_array

FORMS = ("stochastic", "eigenvector")  # in the order of RankForm in csrc
METHODS = ("auto", "gauss_seidel", "jacobi")  # in the order of RankMethod in csrc
ACTIONS = ("raise", "warn", "ignore")


def check_options(damping: float, tol: float, max_iter: int, form: str, on_nonconvergence: str) -> None:
    """ValueError or TypeError that names the option."""
    require_choice("form", form, FORMS)
    require_choice("on_nonconvergence", on_nonconvergence, ACTIONS)
    if not 0 <= damping < 1:
        raise ValueError(f"damping must be in [0, 1), got {damping!r}")
    if not (tol > 0 and math.isfinite(tol)):
        raise ValueError(f"tol must be a positive number (absolute L1 step), got {tol!r}")
    require_positive_int("max_iter", max_iter)


def flat_similarity(similarity: Array, groups: Array | None) -> tuple[Array, Groups]:
    """An explicit graph as flat m x m blocks and the groups they form."""
    require_array("similarity", similarity)
    shape = tuple(similarity.shape)
    if groups is not None:
        if len(shape) != 1:
            raise ValueError(f"similarity must be flat m x m blocks [sum of m^2] with groups, got shape {list(shape)}")
        offsets = offsets_array("groups", groups, None, "nodes")
        layout = Groups(offsets, (int(offsets[-1]),), single=False)
        if shape[0] != layout.block_offsets[-1]:
            raise ValueError(
                f"similarity must hold {layout.block_offsets[-1]} weights for groups of these sizes, got {shape[0]}"
            )
        return similarity, layout
    if len(shape) not in (2, 3) or shape[-1] != shape[-2]:
        raise ValueError(f"similarity must be square: [n, n] or [B, n, n], got shape {list(shape)}")
    return similarity.reshape(-1), group_rows("similarity", shape[:-1], None, "")


def distribution(name: str, values: Array | None, layout: Groups) -> npt.NDArray[np.float64] | None:
    """A non-negative weight for each node, scaled to sum 1 in each group; flat [M], or None.

    Raises:
        ValueError: wrong shape, NaN, inf, a negative entry, or a group whose entries are all zero.
    """
    if values is None:
        return None
    array = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be numbers, got dtype {array.dtype}")
    if array.shape != layout.shape:
        raise ValueError(f"{name} must have one entry a node, shape {list(layout.shape)}, got {list(array.shape)}")
    flat = np.ascontiguousarray(array, dtype=np.float64).reshape(-1)
    bad = np.flatnonzero(~(np.isfinite(flat) & (flat >= 0)))
    if len(bad):
        index, words = layout.place(int(bad[0]))
        raise ValueError(f"{name}[{index}] is {flat[bad[0]]} ({words}); entries must be finite and not negative")
    return _scaled_to_one(name, flat, layout)


def _scaled_to_one(name: str, flat: npt.NDArray[np.float64], layout: Groups) -> npt.NDArray[np.float64]:
    group = layout.group_of_row
    largest = np.zeros(len(layout))
    np.maximum.at(largest, group, flat)
    empty = np.flatnonzero((largest == 0) & (layout.sizes > 0))
    if len(empty):
        where = "" if layout.single else f" of group {int(empty[0])}"
        raise ValueError(f"{name}{where} sums to 0; at least one entry must be positive")
    scaled = flat / largest[group]  # the largest entry first: a sum of huge entries would overflow
    return scaled / np.bincount(group, weights=scaled, minlength=len(layout))[group]


def explain_bad_weights(blocks: Array, layout: Groups, edge: str | None) -> NoReturn:
    """Raises the error for the first NaN, inf or negative weight of flat m x m blocks."""
    flat = contiguous_numpy(blocks)
    at = int(np.flatnonzero(~(np.isfinite(flat) & (flat >= 0)))[0])
    group = int(np.searchsorted(layout.block_offsets, at, side="right")) - 1
    size = int(layout.sizes[group])
    row, column = divmod(at - int(layout.block_offsets[group]), size)
    words = f"edge {row} -> {column}" if layout.single else f"group {group}, edge {row} -> {column}"
    if edge is not None:
        raise ValueError(
            f"edge={edge!r} gives the negative weight {flat[at]:.6g} ({words}), which has no meaning in the "
            "stochastic form; use edge='shifted_cosine' or 'relu_cosine'"
        )
    index = f"{row}, {column}" if layout.single else f"{group}, {row}, {column}"
    index = str(at) if len(layout.shape) == 1 and not layout.single else index
    raise ValueError(
        f"similarity[{index}] is {flat[at]} ({words}); weights must be finite and not negative: "
        "map them first, e.g. 0.5 + 0.5 * cosine"
    )


def has_bad_weights(blocks: torch.Tensor) -> bool:
    """Whether some weight is negative, NaN or inf."""
    return not bool((torch.isfinite(blocks) & (blocks >= 0)).all())
