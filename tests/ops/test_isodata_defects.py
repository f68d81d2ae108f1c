"""Eleven defects found in published ISODATA programs, each a named test, mostly by hand on a line or a plane."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from rlsft_kernels import isodata
from rlsft_kernels.isodata import IsodataResult
from rlsft_kernels.isodata.reference import BallHallReference
from rlsft_kernels.isodata.settings import make_settings
from tests.support.clusters import ragged_points, random_settings

COPIES = 32  # enough rows for the float32 filter of large sets
Run = Callable[..., IsodataResult]


@pytest.fixture(params=("native", "reference"))
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def run_repeated(points: np.ndarray, **settings: Any) -> IsodataResult:
    """Every row 32 times, in float32: the path of large sets. The result is told of the rows as they were."""
    rows = np.repeat(points.astype(np.float32), COPIES, axis=0)
    found = isodata(rows, **settings | {"min_samples": COPIES * settings.get("min_samples", 1)})
    return found._replace(labels=found.labels[::COPIES], medoids=found.medoids // COPIES)


def run_weighted(points: np.ndarray, **settings: Any) -> IsodataResult:
    """Every row with weight 32."""
    weight = np.full(len(points), float(COPIES))
    settings |= {"min_samples": COPIES * settings.get("min_samples", 1)}
    return isodata(points, sample_weight=weight, **settings)


@pytest.fixture(params=("native", "reference", "native repeated", "native weighted", "reference weighted"))
def run(request: pytest.FixtureRequest) -> Run:
    """isodata on a backend, as it is, on repeated rows, or on weighted rows: all must find the same clusters."""
    backend, *way = request.param.split()
    functions: dict[str, Run] = {"repeated": run_repeated, "weighted": run_weighted}
    return partial(functions[way[0]] if way else isodata, backend=backend)


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


def reference_steps(points: np.ndarray, **given: Any) -> BallHallReference:
    """The single steps of the reference, which the native core equals on random input (test_isodata.py)."""
    defaults: dict[str, Any] = {
        "variant": "ball_hall", "n_clusters": None, "n_init_clusters": None, "init": "random", "max_iter": 20,
        "geometry": None, "seed": 0, "min_samples": 1, "max_std": "auto", "split_criterion": None,
        "min_distance": "auto", "max_merges": 2, "split_factor": 0.5, "dispersion": "distance",
        "discard_as_noise": False, "stop_early": True, "min_size": 0, "max_size": None, "var_threshold": 0.05,
        "variance_kind": "trace",
    }  # fmt: skip
    return BallHallReference(points, make_settings(init_is_array=False, one_set=True, **defaults | given))


def test_1_mean_and_deviation_of_a_cluster_are_exact(run: Run) -> None:
    points = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 0.0], [2.0, 6.0]])
    start = points[:1]
    assert run(points, init=start, n_clusters=1).centers.tolist() == [[2.0, 1.5]]
    # sigma_y^2 = (3 * 1.5^2 + 4.5^2) / 4 = 6.75 with divisor n, 9 with n - 1; sigma_x^2 = 2; rms^2 = 4.375
    for criterion, sigma in (("max", 6.75**0.5), ("rms", 4.375**0.5)):
        for factor, splits in ((1 - 1e-6, 1), (1.0, 0), (1 + 1e-6, 0)):
            found = run(
                points,
                init=start,
                n_clusters=2,
                max_iter=2,
                max_std=sigma * factor,
                split_criterion=criterion,  # type: ignore[arg-type]
            )
            assert found.n_splits == splits


def test_2_a_split_moves_the_widest_coordinate_by_gamma_sigma() -> None:
    points = np.array([[-1.0, 5.0], [1.0, 5.0], [-1.0, 5.5], [1.0, 4.5]])
    steps = reference_steps(points, n_clusters=2, max_std=0.1, split_factor=0.25)
    centers, splits = steps.split(np.zeros(4, np.int64), np.array([[0.0, 5.0]]))
    assert splits == 1
    assert centers.tolist() == [[0.25, 5.0], [-0.25, 5.0]]  # sigma_x = 1; the other coordinate stays


def test_2_a_cluster_around_the_origin_splits(run: Run) -> None:
    points = np.array([[-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    found = run(points, n_clusters=2, n_init_clusters=1, max_std=0.5, min_distance=0.5)
    assert [found.n_clusters, found.n_splits] == [2, 1]


def test_2_scale_and_shift_change_nothing(backend: Any) -> None:
    points = np.random.default_rng(0).standard_normal((80, 3)) * [1, 4, 2]
    start = points[:2]
    settings: dict[str, Any] = {"n_clusters": 5, "backend": backend}
    plain = isodata(points, init=start, max_std=1.0, min_distance=2.0, **settings)
    scaled = isodata(points * 1000 + 7, init=start * 1000 + 7, max_std=1000.0, min_distance=2000.0, **settings)
    np.testing.assert_array_equal(scaled.labels, plain.labels)
    np.testing.assert_array_equal(scaled.history.steps, plain.history.steps)
    automatic = isodata(points, init=start, **settings)
    np.testing.assert_array_equal(
        isodata(points * 1000 + 7, init=start * 1000 + 7, **settings).labels, automatic.labels
    )
    assert plain.n_splits > 0


def test_2_scale_and_shift_change_nothing_on_a_large_set() -> None:
    points = np.round(8 * np.random.default_rng(0).standard_normal((3000, 20)) * np.linspace(1, 4, 20)) / 8
    moved = (points * 512 + 4096).astype(np.float32)  # exact: eighths and powers of two
    start = points[:4]
    settings: dict[str, Any] = {"n_clusters": 9, "backend": "native"}
    plain = isodata(points.astype(np.float32), init=start, **settings)
    np.testing.assert_array_equal(isodata(moved, init=start * 512 + 4096, **settings).labels, plain.labels)
    by_hand = isodata(moved, init=start * 512 + 4096, max_std=1024.0, min_distance=2048.0, **settings)
    expected = isodata(points.astype(np.float32), init=start, max_std=2.0, min_distance=4.0, **settings)
    np.testing.assert_array_equal(by_hand.labels, expected.labels)
    np.testing.assert_array_equal(by_hand.history.steps, expected.history.steps)
    assert expected.n_splits > 0 < plain.n_splits


def test_3_a_merged_centre_is_the_weighted_mean() -> None:
    points = column(0, 0, 0, 0.5)
    steps = reference_steps(points, min_distance=1.0)
    centers, merges = steps.merge(np.array([0, 0, 0, 1]), column(0, 0.5))
    assert [centers.tolist(), merges] == [[[0.125]], 1]  # not 0.25, not rounded to an integer


def test_3_float32_images_of_bytes_do_not_overflow(run: Run) -> None:
    points = np.tile(np.array([[250.0], [254.0]], dtype=np.float32), (100, 1))
    found = run(points, init=points[:2], n_clusters=1, min_distance=10.0)
    assert found.centers.tolist() == [[252.0]]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_4_after_a_drop_labels_are_contiguous_and_rows_join_the_nearest_centre(run: Run, position: int) -> None:
    points = column(-10, -11, -9, 6, 10, 11, 9)  # 6 alone is nearest the start 4
    start = np.insert(column(-10, 10), position, [[4.0]], axis=0)
    found = run(points, init=start, n_clusters=2, min_samples=2, max_std=9.0, max_iter=1)
    assert found.n_discarded == 1
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert found.centers.tolist() == [[-10.0], [9.0]]


def test_5_exactly_the_minimum_survives(run: Run) -> None:
    points = column(0, 1, 2, 100, 101)
    start = column(1, 100)
    settings: dict[str, Any] = {"init": start, "n_clusters": 2, "max_std": 99.0, "max_iter": 1}
    assert run(points, min_samples=2, **settings).n_clusters == 2
    assert run(points, min_samples=3, **settings).n_clusters == 1


def test_5_one_cluster_always_remains_and_it_is_the_largest(run: Run) -> None:
    points = column(0, 50, 51, 100)
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        start = column(0, 50, 100)[order]
        found = run(points, init=start, min_samples=9, discard_as_noise=True, max_iter=1)
        assert found.labels.tolist() == [-1, 0, 0, -1]
        assert found.n_discarded == 2


def test_5_drops_repeat_until_none_is_left_within_one_pass(run: Run) -> None:
    # {0}, {4}: both below 2, dropped together; their rows make no third pass necessary
    points = column(0, 4, 20, 21, 22)
    found = run(points, init=column(0, 4, 21), n_clusters=3, min_samples=2, max_std=99, max_iter=1)
    assert found.history.steps.tolist() == [[0, 0, 2, 1]]


def test_6_recorded_history_from_one_start(run: Run) -> None:
    # pass 1: one cluster <= K/2, sigma = 10.05 > 5: split. 2 (even): 20 apart, nothing. 3 (odd): sigma = 1, nothing
    found = run(column(-11, -9, 9, 11), init=column(0), n_clusters=2, max_std=5.0, min_distance=3.0)
    assert found.history.steps.tolist() == [[1, 0, 0, 2], [0, 0, 0, 2], [0, 0, 0, 2]]
    assert found.stop_reason == "stable"


def test_6_recorded_history_from_eight_starts(run: Run) -> None:
    # at least 2K clusters: every pass merges the two closest pairs, whatever its parity, until 4, then 2 are left
    points = column(-11.5, -10.5, -9.5, -8.5, 8.5, 9.5, 10.5, 11.5)
    found = run(points, init=points, n_clusters=2, max_std=5.0, min_distance=3.0)
    assert found.history.steps.tolist() == [[0, 2, 0, 6], [0, 2, 0, 4], [0, 2, 0, 2], [0, 0, 0, 2], [0, 0, 0, 2]]
    assert found.centers.tolist() == [[-10.0], [10.0]]


def test_6_even_passes_do_not_split_and_the_last_pass_does_nothing(run: Run) -> None:
    # K = 3, N_c = 2: more than K/2, so a split waits for an odd pass; D_j > D holds for the wide cluster only
    points = column(*range(-50, -38), *range(40, 61, 2), 0.0)
    settings: dict[str, Any] = {"n_clusters": 3, "max_std": 2.0, "min_distance": 0.0}
    found = run(points, init=column(-45, 50), max_iter=6, stop_early=False, **settings)
    assert found.history.steps[1::2, 0].tolist() == [0, 0, 0]
    assert found.history.steps[0, 0] == 1
    last = run(points, init=column(-45, 50), max_iter=1, **settings)
    assert last.history.steps.tolist() == [[0, 0, 0, 2]]


def beside(origin_rows: np.ndarray, at: float) -> np.ndarray:
    return origin_rows + np.array([at, 0.0])


def ring(radius: float, times: int, at: float) -> np.ndarray:
    four = np.array([[radius, 0.0], [-radius, 0.0], [0.0, radius], [0.0, -radius]])
    return beside(np.tile(four, (times, 1)), at)


def test_7_overall_dispersion_is_weighted_by_members(run: Run) -> None:
    # D_j: alone 0, pairs 1.0 (6 rows), ring 1.2 (28 rows). By rows D = 1.13 > 1: no split; by clusters 0.73: a split.
    # sigma: pairs 1 > 0.9, ring 0.85
    pairs = beside(np.tile(np.array([[1.0, 0.0], [-1.0, 0.0]]), (3, 1)), 100)
    points = np.concatenate([[[0.0, 0.0]], pairs, ring(1.2, 7, 200)])
    start = np.array([[0.0, 0.0], [100.0, 0.0], [200.0, 0.0]])
    settings: dict[str, Any] = {"init": start, "n_clusters": 5, "max_std": 0.9, "min_distance": 0.0, "max_iter": 2}
    assert run(points, **settings).n_splits == 0
    # with a ring of radius 0.8 the pairs are the loosest: D = (6 + 22.4) / 35 = 0.81 < 1
    points = np.concatenate([[[0.0, 0.0]], pairs, ring(0.8, 7, 200)])
    assert run(points, **settings).n_splits == 1


def test_7_dispersion_is_the_mean_of_distances_or_on_request_of_squares(run: Run) -> None:
    # two rows at 3 and four at 0: mean distance 1, root mean square 1.73; the ring is 1.2 in both readings
    lumpy = beside(np.array([[3.0, 0.0], [-3.0, 0.0], [0, 0], [0, 0], [0, 0], [0, 0]]), 100)
    points = np.concatenate([[[0.0, 0.0]], lumpy, ring(1.2, 7, 200)])
    start = np.array([[0.0, 0.0], [100.0, 0.0], [200.0, 0.0]])
    settings: dict[str, Any] = {"init": start, "n_clusters": 5, "max_std": 0.9, "min_distance": 0.0, "max_iter": 2}
    assert run(points, dispersion="distance", **settings).n_splits == 0
    assert run(points, dispersion="squared", **settings).n_splits == 1


def test_7_small_clusters_do_not_split(backend: Any) -> None:
    # N_j > 2 (theta_N + 1): 4 rows are too few for theta_N = 1, 6 are enough
    for rows, splits in ((4, 0), (6, 1)):
        loose = column(*np.linspace(-5, 5, rows)) + 100
        points = np.concatenate([column(*[0.0] * 9), loose])
        found = isodata(
            points, init=column(0, 100), n_clusters=3, max_std=1, min_distance=0, max_iter=2, backend=backend
        )
        assert found.n_splits == splits


@pytest.mark.parametrize(
    ("max_merges", "labels"),
    [(0, [0, 1, 2, 3, 4, 5]), (1, [0, 1, 2, 2, 3, 4]), (2, [0, 1, 2, 2, 3, 3]), (3, [0, 0, 1, 1, 2, 2])],
)
def test_8_the_closest_pairs_merge_first_and_at_most_l(run: Run, max_merges: int, labels: list[int]) -> None:
    points = column(0, 1, 10, 10.5, 20, 20.7)
    found = run(points, init=points, n_clusters=3, min_distance=2.0, max_std=9.0, max_merges=max_merges, max_iter=2)
    assert found.labels.tolist() == labels
    assert found.history.steps.tolist()[0] == [0, max_merges, 0, 6 - max_merges]


def test_8_pairs_at_exactly_the_distance_and_lumped_centres_stay(run: Run) -> None:
    settings: dict[str, Any] = {"n_clusters": 1, "max_std": 9.0, "max_merges": 5, "max_iter": 2}
    apart = column(0, 1, 10)
    assert run(apart, init=apart, min_distance=1.0, **settings).n_merges == 0
    assert run(apart, init=apart, min_distance=1.001, **settings).n_merges == 1
    chain = column(0, 1, 2.1, 3.3)  # (0, 1) takes both of (1, 2.1); then (2.1, 3.3)
    assert run(chain, init=chain, min_distance=1.15, **settings).labels.tolist() == [0, 0, 1, 2]
    assert run(chain, init=chain, min_distance=1.25, **settings).labels.tolist() == [0, 0, 1, 1]


def test_8_ties_go_to_the_lowest_pair(run: Run) -> None:
    points = column(0, 1, 10, 11, 20, 21)
    found = run(points, init=points, n_clusters=3, min_distance=2, max_std=9, max_merges=1, max_iter=2)
    assert found.labels.tolist() == [0, 0, 1, 2, 3, 4]


def test_9_the_first_cluster_can_split(run: Run) -> None:
    wide, tight = column(-12, -11, -10, 10, 11, 12), column(100, 100.1, 100.2)
    for order in ([0, 1], [1, 0]):
        start = column(0, 100)[order]
        found = run(np.concatenate([wide, tight]), init=start, n_clusters=3, max_std=3, min_distance=1)
        assert found.n_clusters == 3
        assert len({found.labels[0], found.labels[3], found.labels[6]}) == 3


@pytest.mark.parametrize("max_iter", [1, 2, 3, 20])
def test_10_labels_belong_to_the_centres_returned(backend: Any, max_iter: int) -> None:
    for seed in range(25):
        points, groups = ragged_points(seed, max_rows=40 if seed % 5 or random_settings(seed).get("variant") else 150)
        settings = random_settings(seed) | {"max_iter": max_iter}
        if settings.get("discard_as_noise") or settings["geometry"] != "euclidean":
            settings |= {"geometry": "euclidean"}
            settings.pop("discard_as_noise", None)
        found = isodata(points, groups=groups, backend=backend, **settings)
        for g, (begin, end) in enumerate(pairwise(groups)):
            centers = found.centers[found.center_offsets[g] : found.center_offsets[g + 1]].astype(np.float64)
            rows, labels = points[begin:end].astype(np.float64), found.labels[begin:end]
            if end > begin:
                squared = np.square(rows[:, None] - centers).sum(-1)
                own = squared[np.arange(len(rows)), labels]
                assert (own <= squared.min(1) * (1 + 1e-9)).all()
                assert sorted(set(labels)) == list(range(len(centers)))


@pytest.mark.parametrize("rows", [20, 200])
@pytest.mark.parametrize("d", [1, 3, 64, 384])
def test_11_calls_and_threads_share_nothing(d: int, rows: int) -> None:
    points = np.random.default_rng(d).standard_normal((6, rows, d))

    def run(threads: int) -> Any:
        return isodata(points, n_clusters=5, threads=threads, backend="native")

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, [1, 2, 3, 1, 2, 3]))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].labels, other.labels)
        np.testing.assert_array_equal(results[0].centers, other.centers)
