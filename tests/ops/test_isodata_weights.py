"""sample_weight of isodata: a row of weight w is w equal rows, weight 0 is no row, and every backend agrees."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from rlsft_kernels import isodata
from tests.support.clusters import assert_same_clusters, ragged_points, random_settings

BACKENDS = ("native", "reference")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def blobs(seed: int, rows: int, *, d: int = 4) -> np.ndarray:
    g = np.random.default_rng(seed)
    centers = 4 * g.standard_normal((4, d))
    return centers[g.integers(0, 4, rows)] + g.standard_normal((rows, d))


def ball_hall_settings(seed: int) -> dict[str, Any]:
    chosen = random_settings(seed)
    names = ("n_clusters", "geometry", "max_iter", "seed", "init", "min_samples", "max_std", "split_criterion",
             "min_distance", "max_merges", "split_factor", "dispersion", "discard_as_noise", "stop_early")  # fmt: skip
    return {name: chosen[name] for name in names if name in chosen}


@pytest.mark.parametrize("rows", [20, 300])  # with and without the float32 filter
@pytest.mark.parametrize("geometry", ["euclidean", "cosine"])
@pytest.mark.parametrize("dispersion", ["distance", "squared"])
def test_integer_weights_are_repeated_rows(backend: Any, rows: int, geometry: Any, dispersion: Any) -> None:
    for seed in range(6):
        points = blobs(seed, rows)
        weight = np.random.default_rng(seed).integers(0, 4, rows).astype(np.float64)
        if not weight.any():
            continue
        of_row = np.repeat(np.arange(rows), weight.astype(int))
        settings: dict[str, Any] = {
            "init": points[weight > 0][:5],
            "n_clusters": 6,
            "min_samples": 3,
            "geometry": geometry,
            "dispersion": dispersion,
            "backend": backend,
        }
        weighted = isodata(points, sample_weight=weight, **settings)
        repeated = isodata(points[of_row], **settings)
        np.testing.assert_array_equal(weighted.labels[of_row], repeated.labels)
        np.testing.assert_allclose(weighted.centers, repeated.centers, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(weighted.history.steps, repeated.history.steps)
        np.testing.assert_array_equal(weighted.medoids, of_row[repeated.medoids])


@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("rows", [20, 300])
def test_weight_zero_is_no_row_but_gets_a_label(backend: Any, init: Any, rows: int) -> None:
    for seed in range(8):
        points = blobs(seed, rows)
        weight = (0.5 + np.random.default_rng(seed).random(rows)) * (np.arange(rows) % 3 > 0)
        points[weight == 0] *= 5  # would matter if they counted
        settings: dict[str, Any] = {"n_clusters": 5, "init": init, "min_samples": 1.5, "seed": seed, "backend": backend}
        whole = isodata(points, sample_weight=weight, **settings)
        part = isodata(points[weight > 0], sample_weight=weight[weight > 0], **settings)
        np.testing.assert_array_equal(whole.labels[weight > 0], part.labels)
        np.testing.assert_allclose(whole.centers, part.centers, rtol=1e-13)
        np.testing.assert_array_equal(whole.medoids, np.flatnonzero(weight > 0)[part.medoids])
        np.testing.assert_array_equal(whole.history.steps, part.history.steps)
        squared = np.square(points[:, None] - whole.centers).sum(-1)
        np.testing.assert_array_equal(whole.labels, squared.argmin(1))


def test_a_centre_left_to_weightless_rows_is_removed(backend: Any) -> None:
    points = np.array([[0.0], [1.0], [9.0], [30.0]])
    found = isodata(
        points,
        init=np.array([[0.0], [9.0], [30.0]]),
        n_clusters=3,
        max_iter=1,
        sample_weight=np.array([1.0, 1.0, 0.0, 2.0]),
        backend=backend,
    )
    assert found.labels.tolist() == [0, 0, 0, 1]
    assert found.centers.tolist() == [[0.5], [30.0]]
    assert found.medoids.tolist() == [0, 3]
    assert found.n_discarded == 1


def test_a_cluster_without_weight_is_dropped_whatever_min_samples_is(backend: Any) -> None:
    points, weight = np.array([[0.0], [1.0], [9.0]]), np.array([0.1, 0.2, 0.0])
    found = isodata(
        points, init=points[[0, 2]], n_clusters=2, min_samples=0.0, max_std=9.0, sample_weight=weight, backend=backend
    )
    assert found.labels.tolist() == [0, 0, 0]
    assert found.n_discarded == 1


def test_a_centre_that_keeps_only_weightless_rows_at_the_end_is_removed(backend: Any) -> None:
    # the means of the one pass are 0, -5.6 and 5.6: both rows of the first cluster are then nearer to another
    points = np.array([[-5.5], [5.5], [-5.6], [5.6], [0.3]])
    found = isodata(
        points,
        init=np.array([[0.0], [-11.1], [11.1]]),
        max_iter=1,
        sample_weight=np.array([1.0, 1.0, 1.0, 1.0, 0.0]),
        backend=backend,
    )
    assert found.labels.tolist() == [0, 1, 0, 1, 1]
    assert found.centers.tolist() == [[-5.6], [5.6]]


@pytest.mark.parametrize("factor", [0.125, 8.0])
def test_the_scale_of_the_weights_does_not_matter(backend: Any, factor: float) -> None:
    # the scaled min_samples enters the split rule N_j > 2 (min_samples + 1) too, far from binding here
    for seed in range(5):
        points = blobs(seed, 200)
        weight = np.random.default_rng(seed).random(200) + 0.5
        settings: dict[str, Any] = {"n_clusters": 5, "backend": backend, "seed": seed}
        plain = isodata(points, sample_weight=weight, min_samples=4, **settings)
        scaled = isodata(points, sample_weight=weight * factor, min_samples=4 * factor, **settings)
        assert_same_clusters(scaled, plain)


def test_min_samples_compares_the_sum_of_weights(backend: Any) -> None:
    points = np.array([[0.0], [1.0], [50.0]])
    settings: dict[str, Any] = {
        "init": np.array([[0.0], [50.0]]), "n_clusters": 2, "max_iter": 1, "max_std": 99.0, "backend": backend,
    }  # fmt: skip
    for heavy, clusters in ((2.5, 2), (2.4, 1)):
        weight = np.array([1.5, 1.5, heavy])
        assert isodata(points, sample_weight=weight, min_samples=2.5, **settings).n_clusters == clusters


def test_thresholds_deviations_and_dispersion_are_weighted(backend: Any) -> None:
    # weighted: mean 1, variance (9 * 1 + 81) / 10 = 9; unweighted it would be 25
    points, weight = np.array([[0.0], [10.0]]), np.array([9.0, 1.0])
    settings: dict[str, Any] = {"init": np.array([[3.0]]), "n_clusters": 2, "max_iter": 2, "backend": backend}
    for max_std, splits in ((2.999, 1), (3.0, 0)):
        found = isodata(points, sample_weight=weight, max_std=max_std, min_distance=0.0, **settings)
        assert found.n_splits == splits
    assert isodata(points, sample_weight=weight, n_clusters=1, backend=backend).centers.tolist() == [[1.0]]


def test_lumped_centres_are_weighted_means(backend: Any) -> None:
    points, weight = np.array([[0.0], [4.0], [100.0]]), np.array([3.0, 1.0, 1.0])
    found = isodata(
        points, init=points, n_clusters=1, min_distance=5.0, max_std=9.0, max_iter=2, sample_weight=weight,
        backend=backend,
    )  # fmt: skip
    assert found.centers.tolist() == [[1.0], [100.0]]
    assert found.history.steps.tolist()[0] == [0, 1, 0, 2]


def test_starts_are_drawn_by_weight(backend: Any) -> None:
    points = np.arange(6.0)[:, None] * 10
    weight = np.array([0.0, 1.0, 0.0, 98.0, 1.0, 0.0])
    settings: dict[str, Any] = {"n_clusters": 1, "max_iter": 1, "sample_weight": weight, "backend": backend}
    for init in ("k-means++", "random"):
        starts = [isodata(points, n_init_clusters=3, init=init, seed=s, **settings).n_clusters for s in range(5)]  # type: ignore[arg-type]
        assert starts == [3] * 5  # never more than the rows that have weight


@pytest.mark.parametrize("block", range(4))
def test_native_equals_the_reference(block: int) -> None:
    for seed in range(block * 30 + 900, block * 30 + 930):
        points, groups = ragged_points(seed, max_rows=40 if block < 2 else 160)
        g = np.random.default_rng(seed)
        weight = g.choice([0.0, 0.3, 1.0, 2.5], len(points)) if seed % 2 else g.random(len(points))
        for begin, end in pairwise(groups):
            if end > begin and not weight[begin:end].any():
                weight[begin] = 1
        native, reference = (
            isodata(points, groups=groups, sample_weight=weight, backend=name, **ball_hall_settings(seed))  # type: ignore[arg-type]
            for name in BACKENDS
        )
        assert_same_clusters(native, reference)


def test_weights_of_one_are_no_weights_and_threads_change_no_bit() -> None:
    points = blobs(0, 5000, d=9).astype(np.float32)
    plain = isodata(points, n_clusters=6)
    ones = isodata(points, n_clusters=6, sample_weight=np.ones(5000))
    assert_same_clusters(ones, plain)
    weight = torch.rand(5000, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    one, many = (isodata(torch.from_numpy(points), sample_weight=weight, threads=t) for t in (1, 4))
    assert torch.equal(one.labels, many.labels)
    assert torch.equal(one.centers, many.centers)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"sample_weight": [1.0, 1.0, 1.0]}, TypeError, "sample_weight must be a torch tensor or a NumPy array"),
        ({"sample_weight": np.ones(3, np.int64)}, TypeError, "sample_weight must be float32 or float64, got int64"),
        ({"sample_weight": np.ones(2)}, ValueError, r"sample_weight must have one entry a point, \[3\], got \[2\]"),
        ({"sample_weight": np.array([1, np.nan, 1])}, ValueError, r"sample_weight\[1\] contains nan \(row 1\)"),
        ({"sample_weight": np.array([1, 2, -0.5])}, ValueError, r"sample_weight\[2\] is -0.5 \(row 2\); .* >= 0"),
        ({"sample_weight": np.zeros(3)}, ValueError, "sample_weight is zero for every row; give at least one"),
        (
            {"sample_weight": np.array([1.0, 0.0, 0.0]), "groups": np.array([0, 1, 1, 3])},
            ValueError,
            "sample_weight is zero for every row in group 2",
        ),
        (
            {"sample_weight": np.ones(3), "variant": "str"},
            ValueError,
            "sample_weight is for variant='ball_hall': STR's bounds count rows; remove it",
        ),
        ({"sample_weight": np.ones(3), "min_samples": -1}, ValueError, "min_samples must be finite and >= 0"),
        ({"min_samples": 1.5}, TypeError, "min_samples must be an integer >= 1, got 1.5"),
    ],
)  # fmt: skip
def test_weights_that_cannot_be(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        isodata(np.zeros((3, 2)), **given)
