"""Rows and centres that are hard for a float32 filter of the nearest centre, and the check of what it decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlsft_kernels.isodata.reference_parts import nearest

DEPTHS = (1, 2, 3, 7, 16, 17, 63, 64, 65, 130, 384, 1000)  # a packed block holds 64 coordinates
COUNTS = (1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 33, 300)  # a panel holds 4, 8 or 16 centres
KINDS = (
    "blobs",
    "offset",
    "grid",
    "copies",
    "pairs",
    "tiny",
    "huge",
    "far",
    "one point",
    "uniform",
    "distant",
    "scales",
)


@dataclass
class NearestCase:
    """One call of the assignment step."""

    kind: str
    points: np.ndarray  # [n, d]
    centers: np.ndarray  # [k, d] float64

    def __str__(self) -> str:
        return f"{self.kind} {self.points.dtype} n={len(self.points)} d={self.points.shape[1]} k={len(self.centers)}"


def nearest_case(seed: int) -> NearestCase:
    """A case drawn by its seed; every kind meets every depth and count over enough seeds."""
    g = np.random.default_rng(seed)
    kind, d, k = KINDS[seed % len(KINDS)], int(g.choice(DEPTHS)), int(g.choice(COUNTS))
    n = int(g.choice([1, 3, 17, 64, 200, 700]))
    middles = 3 * g.standard_normal((max(2, k // 2), d))
    points = middles[g.integers(0, len(middles), n)] + g.standard_normal((n, d))
    centers = np.concatenate([middles, points])[g.integers(0, len(middles) + n, k)] + 0.3 * g.standard_normal((k, d))
    points, centers = _transformed(kind, points, centers, g)
    dtype = g.choice([np.float32, np.float64])
    if kind == "huge" and dtype == np.float64:
        points, centers = points * 1e120, centers * 1e120
    return NearestCase(kind, points.astype(dtype), centers)


def _transformed(
    kind: str, points: np.ndarray, centers: np.ndarray, g: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    if kind == "offset":
        return points * 1000 + 7e5, centers * 1000 + 7e5
    if kind == "grid":  # distances are small integers: ties everywhere
        return np.round(points / 2), np.round(centers / 2)
    if kind == "copies":  # equal centres: the lowest number must win
        return points, centers[g.integers(0, max(1, len(centers) // 2), len(centers))]
    if kind == "pairs":  # pairs nearly equal, on both sides of the tie rule and far inside float32 rounding
        relative = g.choice([1e-13, 1e-8, 1e-5], (len(centers), 1))
        twin = centers[(np.arange(len(centers)) // 2) * 2]
        return points, twin * (1 + relative * (np.arange(len(centers)) % 2)[:, None])
    if kind == "tiny":
        return points * 1e-30, centers * 1e-30
    if kind == "huge":
        return points * 1e18, centers * 1e18
    if kind == "far":
        return points, np.concatenate([centers[:-1], centers[-1:] * 1e25])
    if kind == "one point":
        return np.repeat(points[:1], len(points), axis=0), centers
    if kind == "distant":  # seen from some rows, all centres are equally far to within the tie rule
        pairs = len(points) // 3
        points[:pairs], points[pairs : 2 * pairs] = 3e9 * points[:pairs], -3e9 * points[:pairs]  # middle near 0
        return points, centers
    if kind == "scales":  # pairs that float32 cannot tell apart, seen from rows far below the set's mean norm
        lengths = 10.0 ** g.uniform(-3, 4, (len(points), 1))
        points = np.concatenate([points * lengths, -points * lengths])
        twin = 1e-4 * centers[(np.arange(len(centers)) // 2) * 2]
        return points, twin * (1 + 1e-8 * (np.arange(len(centers)) % 2)[:, None])
    if kind == "uniform":
        return g.random(points.shape), g.random(centers.shape)
    return points, centers


def assign(case: NearestCase, *, threads: int = 1) -> tuple[np.ndarray, np.ndarray, int]:
    """(labels, sums [k, 2, d], rows that float64 decided) of the native step."""
    from rlsft_kernels import _C

    labels = np.full(len(case.points), -7, np.int32)
    sums = np.full((len(case.centers), 2, case.points.shape[1]), np.nan)
    undecided = _C.isodata_assign(case.points, case.centers, threads, 1, True, labels, sums)
    return labels, sums, undecided


def check(case: NearestCase) -> int:
    """Labels are those of float64 distances, sums those of the labels, threads change no bit."""
    labels, sums, undecided = assign(case)
    rows: Any = case.points.astype(np.float64)
    np.testing.assert_array_equal(labels, nearest(rows, case.centers, 0.0), err_msg=str(case))
    difference = rows - case.centers[labels]
    expected, scale = np.zeros_like(sums), np.full_like(sums, 1e-300)
    for power in (1, 2):
        np.add.at(expected[:, power - 1], labels, difference**power)
        np.add.at(scale[:, power - 1], labels, np.abs(difference) ** power)
    assert (np.abs(sums - expected) <= 1e-13 * scale).all(), case
    again = assign(case, threads=3)
    np.testing.assert_array_equal(again[0], labels)
    np.testing.assert_array_equal(again[1], sums)
    return undecided


def cases(first: int, count: int) -> Iterator[NearestCase]:
    for seed in range(first, first + count):
        yield nearest_case(seed)


def check_many(first: int, count: int) -> str:
    """Checks many cases; says on which instruction set, for a test that runs this in a process of its own."""
    from rlsft_kernels import _C

    for case in cases(first, count):
        check(case)
    return _C.cpu_isa()
