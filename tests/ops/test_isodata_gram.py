"""Small groups are clustered by their dot products: the same clusters as from coordinates, whatever rounding does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlsft_kernels import _backend, isodata
from tests.support.clusters import assert_same_clusters, grouped_blobs, random_settings

pytestmark = pytest.mark.skipif(not _backend.native_status()[0], reason="needs the native core")


@pytest.fixture
def by_gram(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(groups decided by dot products, groups) of every native call."""
    from rlsft_kernels import _C

    calls: list[tuple[int, int]] = []
    core = _C.isodata

    def spy(points: Any, offsets: Any, *rest: Any) -> dict[str, Any]:
        out = core(points, offsets, *rest)
        calls.append((out["groups_by_gram"], len(offsets) - 1))
        return out

    monkeypatch.setattr(_C, "isodata", spy)
    return calls


def awkward_groups(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(points, offsets): groups of at most 64 rows; grids, far from the origin, tiny, huge, of unit length."""
    g = np.random.default_rng(seed)
    d = int(g.choice([8, 16, 33, 64, 100, 384]))
    offsets = np.concatenate([[0], np.cumsum(g.integers(0, 65, g.integers(1, 4)))]).astype(np.int64)
    points = 3 * g.standard_normal((4, d))[g.integers(0, 4, offsets[-1])]
    points += g.choice([1e-4, 0.05, 0.5, 1.5]) * g.standard_normal(points.shape)
    kind = g.choice(["grid", "offset", "scaled", "unit", "plain"])
    if kind == "grid":
        points = np.round(points)
    elif kind == "offset":
        points = points + 1000.0
    elif kind == "scaled":
        points = points * g.choice([1e-6, 1e5])
    elif kind == "unit":
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
    return points.astype(g.choice([np.float32, np.float64])), offsets


@pytest.mark.parametrize("block", range(5))
def test_dot_products_never_change_a_cluster(by_gram: list[tuple[int, int]], block: int) -> None:
    for seed in range(block * 40, block * 40 + 40):
        points, groups = awkward_groups(seed)
        settings = random_settings(7 * seed + 1)
        g = np.random.default_rng(seed)
        scores = g.integers(0, 3, len(points)).astype(np.float32) if g.integers(2) else None
        native, reference = (
            isodata(points, groups=groups, scores=scores, backend=name, **settings)  # type: ignore[arg-type]
            for name in ("native", "reference")
        )
        assert_same_clusters(native, reference)
    decided, groups_seen = np.sum(by_gram, axis=0)
    assert decided > 0.25 * groups_seen  # or the test compares coordinates with coordinates


@pytest.mark.parametrize("settings", [{}, {"geometry": "cosine"}, {"variant": "str", "var_threshold": 0.3}])
def test_ordinary_groups_need_no_coordinates(by_gram: list[tuple[int, int]], settings: dict[str, Any]) -> None:
    points, _ = grouped_blobs(64, 16, 384)
    isodata(points.astype(np.float32), **settings)
    assert by_gram == [(64, 64)]


@pytest.mark.parametrize("distance", [1e-3, 1e-5, 1e-7])
def test_near_duplicates_are_told_apart_although_float32_dot_products_cannot(
    by_gram: list[tuple[int, int]], distance: float
) -> None:
    """Two tight pairs in one direction: |x|^2 + |y|^2 - 2 x.y of float32 is all cancellation here."""
    g = np.random.default_rng(0)
    base, step = g.standard_normal(64), g.standard_normal(64)
    base, step = base / np.linalg.norm(base), step / np.linalg.norm(step)
    points = np.stack([base + distance * t * step for t in (0.0, 1.0, 50.0, 51.0)])
    found = isodata(points, n_clusters=2, seed=3, backend="native")
    assert_same_clusters(found, isodata(points, n_clusters=2, seed=3, backend="reference"))
    assert len(set(np.asarray(found.labels)[:2])) == 1
    assert found.labels[0] != found.labels[2]


def test_rows_that_overflow_as_dot_products_are_clustered_by_coordinates(by_gram: list[tuple[int, int]]) -> None:
    points, _ = grouped_blobs(4, 16, 64)
    small = isodata(points.astype(np.float32))
    large = isodata(points.astype(np.float32) * np.float32(2.0**70))
    np.testing.assert_array_equal(small.labels, large.labels)
    assert [decided for decided, _ in by_gram] == [4, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_thresholds_that_float32_cannot_resolve_are_decided_as_from_coordinates(dtype: Any) -> None:
    """Merging and splitting at a threshold a relative 1e-7 beside the quantity it is compared with."""
    for seed in range(40):
        g = np.random.default_rng(seed)
        points = (4 * g.standard_normal((2, 48))[np.arange(12) % 2] + g.standard_normal((12, 48))).astype(dtype)
        means = [points[c::2].astype(np.float64).mean(0) for c in range(2)]
        distance = float(np.linalg.norm(means[0] - means[1]))
        rms = float(np.sqrt(points[0::2].astype(np.float64).var(0).mean()))
        nudge = 1 + 1e-7 * g.choice([-1, 1])
        for settings in (
            {"min_distance": distance * nudge, "max_std": 9.0},
            {"max_std": rms * nudge, "min_distance": 0.0},
        ):
            # one group of a batch: a single set may be clustered otherwise
            native, reference = (
                isodata(points[None], n_clusters=2, split_criterion="rms", backend=name, **settings)  # type: ignore[arg-type]
                for name in ("native", "reference")
            )
            assert_same_clusters(native, reference)


def test_rows_between_two_final_centres_go_to_the_lower_one() -> None:
    """After the last pass the means move once more; a row half-way between two is a tie, whatever rounding says."""
    ties = 0
    for seed in range(150):
        g = np.random.default_rng(seed)
        points = np.zeros((1, 12, 8))
        points[0, :, 0] = 0.1 * g.integers(0, 7, 12)
        native, reference = (
            isodata(points, n_clusters=3, max_iter=1, seed=seed, backend=name)  # type: ignore[arg-type]
            for name in ("native", "reference")
        )
        assert_same_clusters(native, reference)
        squared = ((points[0][:, None] - np.asarray(reference.centers)[None]) ** 2).sum(2)
        smallest = np.sort(squared, axis=1)
        ties += int((smallest[:, 1] <= smallest[:, 0] * (1 + 1e-10)).sum()) if squared.shape[1] > 1 else 0
    assert ties > 10
