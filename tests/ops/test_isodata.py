"""isodata: published oracle results, native against the NumPy reference, kinds of input, corner cases, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from rlsft_kernels import isodata
from tests.support.clusters import assert_same_clusters, grouped_blobs, ragged_points, random_settings

BACKENDS = ("native", "reference")
TWO_BLOBS = np.array([[-11.5], [-10.5], [-9.5], [-8.5], [8.5], [9.5], [10.5], [11.5]])


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


# ---- known results --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split_factor", "inertia"), [(1.0, 29330.05), (0.5, 29330.03)])
@pytest.mark.parametrize(("starts", "counts"), [(3, [12, 7, 0]), (8, [10, 10, 0]), (16, [8, 16, 0])])
def test_eight_blobs_from_any_number_of_starts(
    backend: Any, starts: int, counts: list[int], split_factor: float, inertia: float
) -> None:
    points, truth = make_blobs(10000, 3, centers=8, cluster_std=1.0, random_state=0)
    rows = np.random.default_rng(0).choice(10000, starts, replace=False)
    settings: dict[str, Any] = {
        "n_clusters": 8,
        "init": points[rows],
        "min_samples": 10,
        "max_std": 1.5,
        "min_distance": 4.0,
        "split_factor": split_factor,
        "backend": backend,
    }
    full = isodata(points, stop_early=False, **settings)
    assert full.n_clusters == 8
    assert [full.n_splits, full.n_merges, full.n_discarded] == counts
    assert adjusted_rand_score(truth, full.labels) == pytest.approx(0.983, abs=5e-4)
    assert np.square(points - full.centers[full.labels]).sum() == pytest.approx(inertia, abs=0.006)
    assert sorted(np.bincount(full.labels)) == [1235, 1250, 1250, 1250, 1250, 1250, 1251, 1264]

    early = isodata(points, **settings)
    assert early.stop_reason == "cycle"
    assert early.n_iter < full.n_iter == 20
    np.testing.assert_array_equal(early.labels, full.labels)


def test_sixteen_blobs_in_64_dimensions() -> None:
    points, truth = make_blobs(100000, 64, centers=16, cluster_std=6.0, random_state=0)
    points = points.astype(np.float32)
    start = points[np.random.default_rng(1).choice(100000, 16, replace=False)]
    settings = {"n_clusters": 16, "init": start, "min_samples": 10, "max_std": 7.5, "min_distance": 20.0}
    found = isodata(points, threads=2, **settings)
    assert [found.n_clusters, found.n_splits, found.n_merges, found.n_discarded] == [16, 6, 6, 0]
    assert adjusted_rand_score(truth, found.labels) > 0.9999
    assert found.stop_reason == "stable"
    alone = isodata(points, threads=1, **settings)
    np.testing.assert_array_equal(found.labels, alone.labels)
    np.testing.assert_array_equal(found.centers, alone.centers)


def test_as_tight_as_kmeans_that_was_told_the_number_of_clusters() -> None:
    points, _ = make_blobs(600, 5, centers=6, cluster_std=0.7, random_state=3)
    found = isodata(points, n_clusters=6, n_init_clusters=2, max_std=1.2, min_distance=3.0)
    peer = KMeans(6, n_init=10, random_state=0).fit(points)
    assert found.n_clusters == 6
    assert np.square(points - found.centers[found.labels]).sum() <= peer.inertia_ * 1.01


def test_automatic_thresholds_find_the_clusters_of_unit_embeddings(backend: Any) -> None:
    points, truth = grouped_blobs(24, 16, 384)
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    found = isodata(points, backend=backend)
    scores = [adjusted_rand_score(t, labels) for t, labels in zip(truth, found.labels, strict=True)]
    assert np.mean(scores) > 0.98


# ---- native is the reference -----------------------------------------------------------------------------------


@pytest.mark.parametrize("block", range(6))
def test_native_equals_the_reference_on_random_input_and_settings(block: int) -> None:
    for seed in range(block * 40, block * 40 + 40):
        points, groups = ragged_points(seed)
        settings = random_settings(seed)
        g = np.random.default_rng(seed)
        scores = g.integers(0, 3, len(points)).astype(np.float32) if g.integers(2) else None
        native, reference = (
            isodata(points, groups=groups, scores=scores, backend=name, **settings)  # type: ignore[arg-type]
            for name in BACKENDS
        )
        assert_same_clusters(native, reference)


@pytest.mark.parametrize("variant", ["ball_hall", "str"])
@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_the_seed_decides(variant: Any, init: Any) -> None:
    points = np.random.default_rng(0).standard_normal((60, 8))

    def run(seed: int, backend: Any) -> np.ndarray:
        settings: dict[str, Any] = {"variant": variant, "init": init, "n_clusters": 6, "max_iter": 1}
        return isodata(points, seed=seed, backend=backend, **settings).labels

    np.testing.assert_array_equal(run(5, "native"), run(5, "native"))
    np.testing.assert_array_equal(run(5, "native"), run(5, "reference"))
    np.testing.assert_array_equal(run(2**64 - 1, "native"), run(2**64 - 1, "reference"))
    if variant == "ball_hall":  # STR's bounds are there to make the outcome independent of the start
        assert any((run(5, "native") != run(seed, "native")).any() for seed in (6, 7, 8))


# ---- kinds and shapes of input ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kind_and_dtype_in_are_kind_and_dtype_out(backend: Any, dtype: Any) -> None:
    points = np.random.default_rng(0).standard_normal((3, 10, 4)).astype(dtype)
    array = isodata(points, backend=backend)
    tensor = isodata(torch.from_numpy(points).requires_grad_(), backend=backend)
    assert array.labels.dtype == np.int32
    assert array.centers.dtype == points.dtype
    assert array.medoids.dtype == array.n_iter.dtype == np.int64
    for ours, theirs in zip(array[:4], tensor[:4], strict=True):
        assert isinstance(ours, np.ndarray)
        assert isinstance(theirs, torch.Tensor)
        assert not theirs.requires_grad
        np.testing.assert_array_equal(ours, theirs.numpy())
        assert str(theirs.dtype).removeprefix("torch.") == ours.dtype.name
    assert array.labels.shape == (3, 10)
    assert array.n_iter.shape == array.n_clusters.shape == (3,)


def test_regular_batch_ragged_groups_and_single_sets_agree_bit_for_bit() -> None:
    points, _ = grouped_blobs(5, 12, 7)
    batch = isodata(points, seed=3)
    flat = isodata(points.reshape(60, 7), groups=np.arange(0, 61, 12), seed=3)
    np.testing.assert_array_equal(batch.labels.reshape(-1), flat.labels)
    np.testing.assert_array_equal(batch.centers, flat.centers)
    np.testing.assert_array_equal(batch.medoids, flat.medoids)
    for g in range(5):
        alone = isodata(points[g], n_clusters=4, seed=3)  # ceil(sqrt(12)), the default of a group
        begin, end = batch.center_offsets[g : g + 2]
        np.testing.assert_array_equal(batch.labels[g], alone.labels)
        np.testing.assert_array_equal(batch.centers[begin:end], alone.centers)
        np.testing.assert_array_equal(batch.medoids[begin:end], alone.medoids + 12 * g)
        np.testing.assert_array_equal(batch.history.of_group(g), alone.history.steps)
        assert batch.stop_reason[g] == alone.stop_reason
        assert batch.n_splits[g] == alone.n_splits


def test_default_number_of_clusters_is_eight_or_the_root_of_the_group(backend: Any) -> None:
    points = np.arange(40.0)[:, None] * 100
    still = {"max_std": 1e9, "min_distance": 0.0, "max_iter": 1, "backend": backend}
    assert isodata(points, **still).n_clusters == 8
    for size, wanted in ((1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (10, 4), (16, 4), (17, 5)):
        assert isodata(points[None, :size], **still).n_clusters.tolist() == [wanted]


def test_non_contiguous_read_only_and_fortran_ordered_points() -> None:
    points = np.random.default_rng(0).standard_normal((30, 6))
    expected = isodata(points)
    strided = np.random.default_rng(1).standard_normal((60, 12))
    strided[::2, ::2] = points
    read_only = points.copy()
    read_only.flags.writeable = False
    for same in (strided[::2, ::2], np.asfortranarray(points), read_only, points[::-1][::-1]):
        assert_same_clusters(isodata(same), expected)
    tensor = torch.from_numpy(strided)[::2, ::2]
    np.testing.assert_array_equal(isodata(tensor).labels.numpy(), expected.labels)


def test_starting_centers_of_each_group(backend: Any) -> None:
    points = np.stack([TWO_BLOBS, TWO_BLOBS + 100])
    start = np.array([[[-10.0], [10.0]], [[110.0], [90.0]]])
    found = isodata(points, init=start, n_clusters=2, max_std=5.0, min_distance=3.0, backend=backend)
    np.testing.assert_array_equal(found.centers[:, 0], [-10, 10, 110, 90])
    np.testing.assert_array_equal(found.labels, [[0] * 4 + [1] * 4, [1] * 4 + [0] * 4])


# ---- corner cases ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["ball_hall", "str"])
def test_empty_single_and_pair(backend: Any, variant: Any) -> None:
    empty = isodata(np.zeros((0, 3)), variant=variant, backend=backend)
    assert empty.labels.shape == (0,)
    assert empty.centers.shape == (0, 3)
    assert [empty.n_clusters, int(empty.n_iter), empty.stop_reason] == [0, 0, "stable"]

    one = isodata(np.array([[3.0, 4.0]]), variant=variant, geometry="euclidean", backend=backend)
    assert [one.labels.tolist(), one.centers.tolist(), one.medoids.tolist()] == [[0], [[3.0, 4.0]], [0]]

    far = isodata(np.array([[1.0, 0.0], [0.0, 1.0]]), variant=variant, backend=backend)
    assert sorted(far.labels) == [0, 1]
    equal = isodata(np.array([[1.0, 2.0], [1.0, 2.0]]), variant=variant, backend=backend)
    assert [equal.labels.tolist(), equal.medoids.tolist()] == [[0, 0], [0]]


def test_no_groups_and_empty_groups(backend: Any) -> None:
    none = isodata(np.zeros((0, 2)), groups=np.array([0]), backend=backend)
    assert none.n_iter.shape == none.n_clusters.shape == (0,)
    points = np.array([[0.0], [1.0], [5.0]])
    found = isodata(points, groups=np.array([0, 0, 2, 2, 3, 3]), backend=backend)
    assert found.n_clusters.tolist()[::2] == [0, 0, 0]
    assert found.labels[2] == 0
    assert found.medoids[-1] == 2
    batch = isodata(np.zeros((0, 4, 2)), backend=backend)
    assert batch.labels.shape == (0, 4)


@pytest.mark.parametrize("variant", ["ball_hall", "str"])
@pytest.mark.parametrize("geometry", ["euclidean", "cosine"])
def test_identical_rows_are_one_cluster(backend: Any, variant: Any, geometry: Any) -> None:
    for row in ([0.1, 0.7, -0.3], [0.0, 0.0, 0.0], [1e-3, 1e6, 3.0]):
        points = np.tile(np.array(row), (7, 1))
        found = isodata(points, variant=variant, geometry=geometry, n_clusters=4, backend=backend)
        assert found.labels.tolist() == [0] * 7
        assert found.medoids.tolist() == [0]
        assert [found.n_splits, found.stop_reason] == [0, "stable"]


def test_rows_of_one_direction_are_one_cluster_in_cosine_geometry(backend: Any) -> None:
    row = np.random.default_rng(0).standard_normal(50)
    points = row * np.linspace(0.1, 7.3, 9)[:, None]
    found = isodata(points, geometry="cosine", n_clusters=4, backend=backend)
    assert [found.n_clusters, found.n_splits] == [1, 0]
    assert np.linalg.norm(found.centers[0]) == pytest.approx(1)


def test_more_clusters_and_larger_minimum_than_rows(backend: Any) -> None:
    points = np.array([[0.0], [10.0], [20.0]])
    assert isodata(points, n_clusters=50, backend=backend).n_clusters <= 3
    crowd = isodata(points, n_clusters=3, min_samples=10, backend=backend)
    assert crowd.labels.tolist() == [0, 0, 0]
    assert crowd.centers.tolist() == [[10.0]]


def test_noise_is_minus_one_and_takes_no_part(backend: Any) -> None:
    points = np.concatenate([TWO_BLOBS, [[1000.0]]])
    start = np.array([[-10.0], [10.0], [1000.0]])
    settings: dict[str, Any] = {"init": start, "n_clusters": 2, "min_samples": 2, "max_std": 5, "min_distance": 3}
    found = isodata(points, discard_as_noise=True, backend=backend, **settings)
    assert found.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, -1]
    assert found.centers[:, 0].tolist() == [-10, 10]
    assert found.n_discarded == 1
    kept = isodata(points, backend=backend, **settings)
    assert kept.labels.min() == 0


def test_two_blobs_from_one_and_from_eight_starts(backend: Any) -> None:
    points, truth = make_blobs([40, 25], 4, cluster_std=0.5, random_state=1)
    for starts in (1, 8):
        found = isodata(points, n_clusters=2, n_init_clusters=starts, max_std=1.0, min_distance=3.0, backend=backend)
        assert adjusted_rand_score(truth, found.labels) == 1
        assert found.n_clusters == 2


def test_ping_pong_of_splits_and_merges_is_stopped(backend: Any) -> None:
    # one wide cloud: every odd pass splits it (deviation), every even pass merges the halves again (distance)
    points = np.random.default_rng(0).standard_normal((100, 2))
    settings: dict[str, Any] = {"n_clusters": 2, "max_std": 0.1, "min_distance": 50.0, "backend": backend}
    stopped = isodata(points, max_iter=1000, **settings)
    assert stopped.stop_reason == "cycle"
    assert stopped.n_iter < 30
    assert stopped.n_splits > 0 < stopped.n_merges
    for max_iter in (6, 7, 20, 21):  # the phase in which the passes run out is kept, so stopping changes nothing
        early, full = (isodata(points, max_iter=max_iter, stop_early=stop, **settings) for stop in (True, False))
        np.testing.assert_array_equal(early.labels, full.labels)
        np.testing.assert_array_equal(early.centers, full.centers)


def test_medoids_prefer_the_higher_score_then_the_lower_row(backend: Any) -> None:
    points = np.array([[0.1, 0.3], [0.3, 0.1], [0.1, 0.3], [9.0, 9.0]])  # members 0, 1, 2: all equally near or not
    pair = points[[0, 1, 3]]
    settings: dict[str, Any] = {"init": np.array([[0.2, 0.2], [9.0, 9.0]]), "max_std": 9.0, "backend": backend}
    assert isodata(pair, **settings).medoids.tolist() == [0, 2]
    assert isodata(pair, scores=np.array([0.1, 0.2, 0.0]), **settings).medoids.tolist() == [1, 2]
    assert isodata(pair, scores=np.array([0.2, 0.2, 0.0]), **settings).medoids.tolist() == [0, 2]
    nearer = isodata(points, scores=np.array([0.1, 0.9, 0.2, 0.0]), **settings)  # row 1 is farther: score is no help
    assert nearer.medoids.tolist() == [2, 3]


@pytest.mark.parametrize("geometry", ["euclidean", "cosine"])
def test_pairs_are_tied_although_rounding_says_otherwise(backend: Any, geometry: Any) -> None:
    g = np.random.default_rng(0)
    points = g.standard_normal((200, 2, 33))
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    settings: dict[str, Any] = {"n_clusters": 1, "geometry": geometry, "backend": backend}
    assert (isodata(points, **settings).medoids % 2 == 0).all()
    scores = np.tile([0.0, 1.0], (200, 1))
    assert (isodata(points, scores=scores, **settings).medoids % 2 == 1).all()


# ---- errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused_with_group_and_row(backend: Any, value: float) -> None:
    points = np.zeros((4, 18, 2), dtype=np.float32)
    points[3, 17, 1] = value
    with pytest.raises(ValueError, match=rf"points\[3, 17\] contains {value} \(group 3, row 17\); remove the row"):
        isodata(points, backend=backend)
    with pytest.raises(ValueError, match=r"points\[71\] .*group 1, row 1\)"):
        isodata(points.reshape(72, 2), groups=np.array([0, 70, 72]), backend=backend)


@pytest.mark.parametrize(
    ("points", "error", "message"),
    [
        (np.zeros((3, 2), dtype=np.int64), TypeError, "points must be float32 or float64, got int64"),
        (np.zeros((3, 2), dtype=np.float16), TypeError, "points must be float32 or float64, got float16"),
        (torch.zeros(3, 2, dtype=torch.bfloat16), TypeError, "float32 or float64, got bfloat16; convert it"),
        ([[0.0], [1.0]], TypeError, "points must be a torch tensor or a NumPy array, got list"),
        (np.zeros(3), ValueError, r"points must be \[n, d\] or \[B, n, d\] with d >= 1, got \[3\]"),
        (np.zeros((3, 0)), ValueError, r"with d >= 1, got \[3, 0\]"),
        (np.array([[0.0], [1e200]]), ValueError, r"points\[1\] has a value beyond 1e150 \(row 1\).*scale"),
    ],
)
def test_points_that_cannot_be_clustered(points: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        isodata(points)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"n_clusters": 0}, ValueError, "n_clusters must be >= 1, got 0"),
        ({"n_clusters": 2.5}, TypeError, "n_clusters must be an integer >= 1, got 2.5"),
        ({"n_init_clusters": 0}, ValueError, "n_init_clusters must be >= 1"),
        ({"min_samples": 0}, ValueError, "min_samples must be >= 1"),
        ({"max_iter": 0}, ValueError, "max_iter must be >= 1"),
        ({"max_merges": -1}, ValueError, "max_merges must be >= 0"),
        ({"max_std": -1.0}, ValueError, 'max_std must be finite and >= 0 or "auto", got -1.0'),
        ({"max_std": "wide"}, TypeError, 'max_std must be a number or "auto"'),
        ({"min_distance": float("nan")}, ValueError, "min_distance must be finite"),
        ({"split_factor": 0.0}, ValueError, r"split_factor must be in \(0, 1\], got 0.0"),
        ({"split_factor": 1.5}, ValueError, r"split_factor must be in \(0, 1\]"),
        ({"split_criterion": "min"}, ValueError, "split_criterion must be one of 'rms', 'max', got 'min'"),
        ({"dispersion": "cubed"}, ValueError, "dispersion must be one of 'distance', 'squared'"),
        ({"geometry": "taxicab"}, ValueError, "geometry must be one of 'euclidean', 'cosine'"),
        ({"variant": "isodata"}, ValueError, "variant must be one of 'ball_hall', 'str', got 'isodata'"),
        ({"init": "first"}, ValueError, r"init must be one of 'k-means\+\+', 'random', got 'first'"),
        ({"init": np.zeros((2, 3))}, ValueError, r"init must be starting centres \[k, 2\] or \[1, k, 2\]"),
        ({"init": np.full((1, 2), np.nan)}, ValueError, "init contains nan"),
        ({"init": np.zeros((1, 2)), "n_init_clusters": 1}, ValueError, "n_init_clusters is the length of init"),
        ({"scores": np.zeros(3)}, ValueError, r"scores must have one entry a point, \[4\], got \[3\]"),
        ({"scores": np.full(4, np.nan)}, ValueError, r"scores\[0\] contains nan"),
        ({"seed": -1}, ValueError, "seed must be >= 0"),
        ({"seed": 2**64}, ValueError, r"seed must be below 2\*\*64"),
        ({"threads": 0}, ValueError, "threads must be >= 1"),
        ({"backend": "cuda"}, ValueError, "backend must be one of"),
        ({"groups": np.array([0, 3])}, ValueError, "groups must start at 0 and end at the 4 rows of points"),
        ({"groups": np.array([0, 3, 2, 4])}, ValueError, r"groups must never decrease: groups\[2\] = 2"),
        ({"min_size": 1}, ValueError, "min_size belongs to variant='str' and has no effect on variant='ball_hall'"),
        ({"variant": "str", "max_std": 1.0}, ValueError, "max_std belongs to variant='ball_hall'"),
        ({"variant": "str", "max_size": 0}, ValueError, "max_size must be >= 1"),
        ({"variant": "str", "var_threshold": -0.1}, ValueError, "var_threshold must be finite and >= 0"),
        ({"variant": "str", "variance_kind": "sum"}, ValueError, "variance_kind must be one of 'trace'"),
    ],
)
def test_settings_out_of_range(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        isodata(np.zeros((4, 2)), **given)


def test_groups_with_a_regular_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="groups cuts flat rows"):
        isodata(np.zeros((2, 3, 1)), groups=np.array([0, 3, 6]))
