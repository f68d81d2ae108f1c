"""The variant of STR: bounds on size and variance under three readings, the added merge, the guard, medoids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlsft_kernels import isodata


@pytest.fixture(params=("native", "reference"))
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def at_angles(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


def on_a_line(points: np.ndarray, *, var_threshold: float = 1e9, **given: Any) -> Any:
    """STR on raw coordinates, with a variance bound that never binds unless given."""
    return isodata(points, variant="str", geometry="euclidean", var_threshold=var_threshold, **given)


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == k).tolist()) for k in set(labels.tolist())}


# ---- the variance bound ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "bound"),
    [("trace", 0.25 + 0.0625), ("max_component_variance", 0.25), ("max_component_std", 0.5)],
)
def test_the_three_readings_of_the_variance(backend: Any, kind: Any, bound: float) -> None:
    # deviations 0.5 and 0.25 along the two axes
    points = np.array([[0.5, 0.25], [-0.5, 0.25], [0.5, -0.25], [-0.5, -0.25]]) + 3
    for factor, splits in ((1.0, False), (1 + 1e-6, False), (1 - 1e-6, True)):
        found = on_a_line(
            points, var_threshold=bound * factor, variance_kind=kind, n_clusters=1, max_iter=1, backend=backend
        )
        assert (found.n_splits > 0) == splits


def test_default_variance_is_one_minus_the_squared_centroid_of_unit_rows(backend: Any) -> None:
    # two unit rows at angle t: |centroid|^2 = (1 + cos t) / 2, so 0.05 is crossed at cos t = 0.9
    for degrees, clusters in ((25.8, 1), (25.9, 2)):  # cos 25.842 = 0.9
        points = at_angles(0, degrees) * [[3.0], [0.2]]  # lengths do not matter: rows are scaled
        found = isodata(points, variant="str", backend=backend)
        assert found.n_clusters == clusters


def test_the_outcome_depends_on_the_bound_not_on_the_number_of_starts(backend: Any) -> None:
    g = np.random.default_rng(0)
    directions = g.standard_normal((4, 64))
    points = np.repeat(directions, 4, axis=0) + 0.05 * g.standard_normal((16, 64))
    expected = {frozenset(range(4 * k, 4 * k + 4)) for k in range(4)}
    for n_clusters in (1, 2, 4, 9, 16):
        for seed in range(4):
            found = isodata(points, variant="str", n_clusters=n_clusters, seed=seed, backend=backend)
            assert partition(found.labels) == expected
            assert found.stop_reason == "stable"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_near_duplicates_are_joined_even_when_both_are_starting_centres(backend: Any, dtype: Any) -> None:
    # cosine 1 - 1e-7: in float32 the difference of two dot products would be rounding alone
    g = np.random.default_rng(1)
    base = np.linalg.qr(g.standard_normal((384, 8)))[0].T
    angle = np.arccos(1 - 1e-7)
    twins = np.cos(angle) * base[:4] + np.sin(angle) * base[4:]
    points = np.concatenate([base[:4], twins]).astype(dtype)
    found = isodata(points, variant="str", init=points, backend=backend)
    assert partition(found.labels) == {frozenset({k, k + 4}) for k in range(4)}
    # a bound between their variance (5e-8) and rounding keeps them apart
    apart = isodata(points, variant="str", init=points, var_threshold=2e-8, backend=backend)
    assert apart.n_clusters == 8


def test_unrelated_answers_stay_singletons(backend: Any) -> None:
    points = np.random.default_rng(2).standard_normal((12, 100))
    found = isodata(points, variant="str", backend=backend)
    assert found.n_clusters == 12
    assert sorted(found.medoids) == list(range(12))


# ---- the bounds on size ----------------------------------------------------------------------------------------


def test_small_clusters_merge_into_the_nearest(backend: Any) -> None:
    points = column(0, 0.1, 0.2, 5, 10, 10.1, 10.2)
    start = column(0.1, 5, 10.1)
    forced = on_a_line(points, init=start, min_size=1, var_threshold=10.0, max_iter=2, backend=backend)
    assert partition(forced.labels) == {frozenset({0, 1, 2, 3}), frozenset({4, 5, 6})}
    free = on_a_line(points, init=start, min_size=0, var_threshold=1.0, max_iter=2, backend=backend)
    assert free.n_clusters == 3


def test_the_lone_member_goes_to_the_nearest_centroid(backend: Any) -> None:
    points = column(0, 0.1, 4, 10, 10.1)
    found = on_a_line(points, init=column(0.05, 4, 10.05), min_size=1, var_threshold=5.0, max_iter=1, backend=backend)
    assert partition(found.labels) == {frozenset({0, 1, 2}), frozenset({3, 4})}
    assert found.history.steps.tolist() == [[0, 1, 0, 2]]


def test_large_clusters_lose_their_farthest_members(backend: Any) -> None:
    points = column(0, 1, 2, 30, 31)
    found = on_a_line(points, init=column(8), max_size=4, backend=backend)
    # 5 >= 4: 31 leaves; 4 >= 4: 30 leaves; {0, 1, 2} stays. Then {30} and {31} fit together and are merged
    assert found.history.steps.tolist() == [[2, 1, 0, 2], [0, 0, 0, 2], [0, 0, 0, 2]]
    assert partition(found.labels) == {frozenset({0, 1, 2}), frozenset({3, 4})}


def test_clusters_never_reach_max_size_when_it_can_be_kept(backend: Any) -> None:
    points = np.random.default_rng(0).standard_normal((30, 5))
    found = isodata(points, variant="str", max_size=4, var_threshold=1.0, max_iter=1, backend=backend)
    assert found.history.steps[0, 0] > 0
    singles = isodata(points, variant="str", max_size=1, var_threshold=1.0, max_iter=1, backend=backend)
    assert singles.n_clusters == 30


def test_no_union_reaches_max_size(backend: Any) -> None:
    points = column(0, 0.1, 0.2, 0.3)
    found = on_a_line(points, init=points, max_size=3, backend=backend)
    assert np.bincount(found.labels).tolist() == [2, 2]


def test_a_pair_that_does_not_fit_does_not_keep_others_apart(backend: Any) -> None:
    # {0 .. 0.3} and {0.4 .. 0.7} are the nearest centroids but too many together; {5} and {5.9} still merge
    points = column(0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 5, 5.9)
    found = on_a_line(points, init=column(0.15, 0.55, 5, 5.9), max_size=8, var_threshold=0.5, backend=backend)
    assert partition(found.labels) == {frozenset({0, 1, 2, 3}), frozenset({4, 5, 6, 7}), frozenset({8, 9})}


# ---- ping-pong -------------------------------------------------------------------------------------------------


def test_a_merged_member_is_not_split_off_in_the_same_pass(backend: Any) -> None:
    # 5 alone must merge (size <= 1) into {0, 0.1}, whose variance is then too large: without the guard it would be
    # split off again at once
    points = column(0, 0.1, 5, 20, 20.1)
    found = on_a_line(points, init=column(0.05, 5, 20.05), min_size=1, var_threshold=1.0, max_iter=1, backend=backend)
    splits, merges, _, _ = found.history.steps[0]
    assert merges >= 1
    assert splits == 2  # 0 and 0.1 were there before and may leave, 5 may not
    assert found.labels[3] == found.labels[4]


@pytest.mark.parametrize("max_iter", [50, 500])
def test_bounds_that_contradict_each_other_end_in_a_cycle(backend: Any, max_iter: int) -> None:
    points = np.random.default_rng(0).standard_normal((12, 6))
    found = isodata(
        points, variant="str", min_size=2, max_size=2, var_threshold=0.01, max_iter=max_iter, backend=backend
    )
    assert found.stop_reason in ("cycle", "stable")
    assert found.n_iter < 50


def test_identical_rows_over_max_size_stay_one_cluster(backend: Any) -> None:
    found = isodata(np.ones((5, 3)), variant="str", max_size=3, backend=backend)
    assert [found.labels.tolist(), found.stop_reason] == [[0] * 5, "cycle"]


def test_settled_input_is_stable_after_two_passes(backend: Any) -> None:
    points = at_angles(0, 1, 90, 91)
    found = isodata(points, variant="str", init=at_angles(0.5, 90.5), backend=backend)
    assert found.history.steps.tolist() == [[0, 0, 0, 2], [0, 0, 0, 2]]
    assert found.stop_reason == "stable"


# ---- what comes out --------------------------------------------------------------------------------------------


def test_the_medoid_is_the_member_nearest_the_centroid_then_the_best_scored(backend: Any) -> None:
    points = at_angles(0, 2, 4, 90, 92)
    found = isodata(points, variant="str", backend=backend)
    assert partition(found.labels) == {frozenset({0, 1, 2}), frozenset({3, 4})}
    assert sorted(found.medoids) == [1, 3]
    scored = isodata(points, variant="str", scores=np.array([9.0, 0, 9, 0.1, 0.2]), backend=backend)
    assert sorted(scored.medoids) == [1, 4]


def test_centres_are_plain_means_of_unit_rows(backend: Any) -> None:
    points = at_angles(0, 10) * 5
    found = isodata(points, variant="str", n_clusters=1, backend=backend)
    np.testing.assert_allclose(found.centers, at_angles(0, 10).mean(0, keepdims=True), atol=1e-12)
    assert np.linalg.norm(found.centers) < 1
