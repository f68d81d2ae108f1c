"""Properties of isodata that need no oracle, on random input."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlsft_kernels import isodata
from tests.support.clusters import assert_same_clusters, ragged_points, random_settings

SEEDS = st.integers(0, 2**20)
BACKENDS = st.sampled_from(["native", "reference"])
quick = settings(max_examples=25, deadline=None, derandomize=True)


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == k).tolist()) for k in set(labels.tolist())}


def one_set(seed: int, *, rows: int = 24, d: int = 5) -> np.ndarray:
    g = np.random.default_rng(seed)
    centers = 4 * g.standard_normal((3, d))
    return centers[g.integers(0, 3, rows)] + g.standard_normal((rows, d))


@quick
@given(seed=SEEDS, backend=BACKENDS)
def test_labels_are_contiguous_medoids_are_members_and_history_adds_up(seed: int, backend: Any) -> None:
    points, groups = ragged_points(seed, max_rows=20)
    found = isodata(points, groups=groups, backend=backend, **random_settings(seed))
    assert found.labels.dtype == np.int32
    for g, (begin, end) in enumerate(pairwise(groups)):
        labels = found.labels[begin:end]
        first, last = found.center_offsets[g : g + 2]
        assert sorted(set(labels[labels >= 0])) == list(range(last - first))
        medoids = found.medoids[first:last]
        assert ((medoids >= begin) & (medoids < end)).all()
        assert found.labels[medoids].tolist() == list(range(last - first))
        steps = found.history.of_group(g)
        assert len(steps) == found.n_iter[g]
        if end > begin:
            changes = steps[1:, 0] - steps[1:, 1] - steps[1:, 2]
            np.testing.assert_array_equal(np.diff(steps[:, 3]), changes)
            assert last - first <= steps[-1, 3]
    assert np.isfinite(found.centers).all()


@quick
@given(seed=SEEDS, threads=st.integers(2, 5))
def test_batch_equals_loop_bit_for_bit_with_any_number_of_threads(seed: int, threads: int) -> None:
    points, groups = ragged_points(seed)
    given_settings = random_settings(seed)
    given_settings["n_clusters"] = given_settings["n_clusters"] or 3  # the default differs between set and group
    batch = isodata(points, groups=groups, threads=threads, backend="native", **given_settings)
    for g, (begin, end) in enumerate(pairwise(groups)):
        alone = isodata(points[begin:end], threads=1, backend="native", **given_settings)
        first, last = batch.center_offsets[g : g + 2]
        np.testing.assert_array_equal(batch.labels[begin:end], alone.labels)
        np.testing.assert_array_equal(batch.centers[first:last], alone.centers)
        np.testing.assert_array_equal(batch.medoids[first:last], alone.medoids + begin)
        np.testing.assert_array_equal(batch.history.of_group(g), alone.history.steps)


@pytest.mark.parametrize("variant", ["ball_hall", "str"])
def test_threads_change_no_bit_of_a_large_set(variant: Any) -> None:
    rows = 30000 if variant == "ball_hall" else 3000
    g = np.random.default_rng(0)
    points = (6 * g.standard_normal((5, 33)))[g.integers(0, 5, rows)] + g.standard_normal((rows, 33))
    bounds: dict[str, Any] = {} if variant == "ball_hall" else {"geometry": "euclidean", "var_threshold": 60.0}
    alone, shared = (isodata(points, variant=variant, threads=threads, **bounds) for threads in (1, 4))
    np.testing.assert_array_equal(alone.labels, shared.labels)
    np.testing.assert_array_equal(alone.centers, shared.centers)


@quick
@given(seed=SEEDS, backend=BACKENDS, variant=st.sampled_from(["ball_hall", "str"]))
def test_relabelling_the_rows_relabels_the_clusters(seed: int, backend: Any, variant: Any) -> None:
    points = one_set(seed)
    order = np.random.default_rng(seed + 1).permutation(len(points))
    bounds: dict[str, Any] = {"var_threshold": 0.1} if variant == "str" else {"n_clusters": 4}
    start = points[:3]
    plain = isodata(points, variant=variant, init=start, backend=backend, **bounds)
    shuffled = isodata(points[order], variant=variant, init=start, backend=backend, **bounds)
    np.testing.assert_array_equal(shuffled.labels, plain.labels[order])


@quick
@given(seed=SEEDS, backend=BACKENDS, variant=st.sampled_from(["ball_hall", "str"]))
def test_order_of_the_starting_centres_only_renumbers(seed: int, backend: Any, variant: Any) -> None:
    points = one_set(seed)
    start = points[:4]
    plain = isodata(points, variant=variant, init=start, n_clusters=4, backend=backend)
    turned = isodata(points, variant=variant, init=start[::-1], n_clusters=4, backend=backend)
    assert partition(plain.labels) == partition(turned.labels)


@quick
@given(seed=SEEDS, backend=BACKENDS, variant=st.sampled_from(["ball_hall", "str"]))
def test_equal_rows_share_a_label(seed: int, backend: Any, variant: Any) -> None:
    g = np.random.default_rng(seed)
    which = g.integers(0, 6, 20)
    points = g.standard_normal((6, 9))[which]
    found = isodata(points, variant=variant, n_clusters=5, seed=seed, backend=backend)
    for k in range(6):
        assert len(set(found.labels[which == k])) <= 1


@quick
@given(seed=SEEDS, backend=BACKENDS, power=st.integers(-20, 20))
def test_automatic_thresholds_follow_the_scale_exactly(seed: int, backend: Any, power: int) -> None:
    points = one_set(seed)
    plain = isodata(points, backend=backend)
    scaled = isodata(points * 2.0**power, backend=backend)
    np.testing.assert_array_equal(scaled.labels, plain.labels)
    np.testing.assert_array_equal(scaled.centers, plain.centers * 2.0**power)


@quick
@given(seed=SEEDS, backend=BACKENDS, variant=st.sampled_from(["ball_hall", "str"]))
def test_cosine_geometry_ignores_lengths(seed: int, backend: Any, variant: Any) -> None:
    points = one_set(seed)
    lengths = 2.0 ** np.random.default_rng(seed).integers(-8, 8, (len(points), 1))
    plain = isodata(points, variant=variant, geometry="cosine", backend=backend)
    stretched = isodata(points * lengths, variant=variant, geometry="cosine", backend=backend)
    assert_same_clusters(stretched, plain)
    if variant == "ball_hall":
        np.testing.assert_allclose(np.linalg.norm(plain.centers, axis=1), 1, rtol=1e-12)


@quick
@given(seed=SEEDS, backend=BACKENDS)
def test_float32_is_float64_of_the_same_values(seed: int, backend: Any) -> None:
    points = one_set(seed).astype(np.float32)
    narrow = isodata(points, backend=backend)
    wide = isodata(points.astype(np.float64), backend=backend)
    np.testing.assert_array_equal(narrow.labels, wide.labels)
    np.testing.assert_array_equal(narrow.centers, wide.centers.astype(np.float32))
    tensor = isodata(torch.from_numpy(points), backend=backend)
    np.testing.assert_array_equal(tensor.labels.numpy(), narrow.labels)


@quick
@given(seed=SEEDS, backend=BACKENDS)
def test_two_calls_agree_and_leave_the_points_alone(seed: int, backend: Any) -> None:
    points, groups = ragged_points(seed, max_rows=15)
    before = points.copy()
    chosen = random_settings(seed)
    first, second = (isodata(points, groups=groups, backend=backend, **chosen) for _ in range(2))
    assert_same_clusters(first, second)
    np.testing.assert_array_equal(first.centers, second.centers)
    np.testing.assert_array_equal(points, before)
