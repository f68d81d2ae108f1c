"""Types of the native core. A test compares the names here with those of the built module."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

# one overload for each in the module: all float arrays of a call have the same dtype
_Floats: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]
_Float64: TypeAlias = npt.NDArray[np.float64]
_Int64: TypeAlias = npt.NDArray[np.int64]

def build_info() -> dict[str, str]: ...
def cpu_isa() -> str: ...
def isodata(
    points: _Floats,  # [N, d]
    offsets: _Int64,  # [G + 1]
    start: _Float64 | None,  # [sum of starting centres, d]
    start_offsets: _Int64 | None,  # [G + 1]
    scores: _Float64 | None,  # [N]
    weight: _Float64 | None,  # [N]
    options: dict[str, Any],  # every field of IsodataOptions
    threads: int,
    labels: npt.NDArray[np.int32],  # [N], out
) -> dict[str, Any]: ...  # centers, center_offsets, medoids, steps, step_offsets, stops
def isodata_assign(  # the assignment step alone, `passes` times: for tests and benches
    points: _Floats,  # [n, d]
    centers: _Float64,  # [k, d]
    threads: int,
    passes: int,
    with_squares: bool,
    labels: npt.NDArray[np.int32],  # [n], out
    sums: _Float64,  # [k, 2, d], out: of (x - c) and of its squares
) -> int: ...  # rows decided by float64 distances
def similarity_groups(
    rows: _Floats,  # [M, d]
    offsets: _Int64,  # [G + 1]
    edge: int,
    threads: int,
    edges: _Floats,  # [sum of m^2], out
    ok: npt.NDArray[np.bool_],  # [G], out
) -> None: ...
def text_edges_groups(
    tokens: _Int64,
    token_offsets: _Int64,  # [responses + 1]
    group_offsets: _Int64,  # [G + 1]
    kind: int,
    threads: int,
    edges: _Float64,  # [sum of m^2], out
) -> None: ...
def textrank_dense(
    weights: _Floats,  # [sum of m^2]
    offsets: _Int64,  # [G + 1]
    teleport: _Float64 | None,  # [M]
    start: _Float64 | None,  # [M]
    damping: float,
    tol: float,
    max_iter: int,
    form: int,
    threads: int,
    scores: _Floats,  # [M], out
    n_iter: _Int64,  # [G], out
    residual: _Float64,  # [G], out
) -> None: ...
def textrank_embeddings(
    rows: _Floats,  # [M, d]
    offsets: _Int64,  # [G + 1]
    edge: int,
    teleport: _Float64 | None,  # [M]
    start: _Float64 | None,  # [M]
    damping: float,
    tol: float,
    max_iter: int,
    form: int,
    threads: int,
    scores: _Floats,  # [M], out
    n_iter: _Int64,  # [G], out
    residual: _Float64,  # [G], out
) -> None: ...
