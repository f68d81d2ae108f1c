"""rank_and_cluster equals textrank and isodata called one after the other, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rlsft_kernels import ConvergenceError, _backend, isodata, rank_and_cluster, textrank
from tests.support.clusters import grouped_blobs, ragged_points, random_settings

BACKENDS = ["reference"] + (["native"] if _backend.native_status()[0] else [])


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def assert_same(actual: Any, expected: Any) -> None:
    ranking, clusters = expected
    for name in ("scores", "n_iter", "residual"):
        assert np.array_equal(getattr(actual.ranking, name), getattr(ranking, name)), name
    for name in ("labels", "centers", "medoids", "n_iter"):
        assert np.array_equal(getattr(actual.clusters, name), getattr(clusters, name)), name
    assert np.array_equal(actual.clusters.history.steps, clusters.history.steps)
    assert actual.clusters.history.stop_reasons == clusters.history.stop_reasons
    assert np.array_equal(actual.clusters.center_offsets, clusters.center_offsets)


def one_after_the_other(points: Any, groups: Any, rank: dict[str, Any], cluster: dict[str, Any], **common: Any) -> Any:
    ranking = textrank(embeddings=points, groups=groups, **rank, **common)
    return ranking, isodata(points, groups=groups, scores=ranking.scores, **cluster, **common)


@pytest.mark.parametrize("block", range(3))
def test_equals_the_two_ops_bit_for_bit(backend: Any, block: int) -> None:
    for seed in range(block * 12, block * 12 + 12):
        points, groups = ragged_points(seed, max_rows=90)  # beyond 64 rows the dot products are not shared
        g = np.random.default_rng(seed)
        rank = {
            "edge": str(g.choice(["shifted_cosine", "relu_cosine"])),
            "teleport": 0.1 + g.random(len(points)) if g.integers(2) else None,
        }
        cluster = random_settings(seed)
        actual = rank_and_cluster(points, groups=groups, **rank, cluster=cluster, backend=backend)
        assert_same(actual, one_after_the_other(points, groups, rank, cluster, backend=backend))


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_batch_ragged_and_single_with_any_number_of_threads(backend: Any, kind: str, dtype: str) -> None:
    points, _ = grouped_blobs(6, 16, 24)
    points = points.astype(dtype)
    batch: Any = torch.from_numpy(points) if kind == "torch" else points
    flat = batch.reshape(-1, 24)
    offsets = np.arange(7, dtype=np.int64) * 16
    groups: Any = torch.from_numpy(offsets) if kind == "torch" else offsets
    ranking, clusters = rank_and_cluster(batch, backend=backend, threads=1)
    assert type(ranking.scores) is type(batch) is type(clusters.centers)
    assert ranking.scores.dtype == batch.dtype == clusters.centers.dtype
    assert tuple(ranking.scores.shape) == tuple(clusters.labels.shape) == (6, 16)
    ragged = rank_and_cluster(flat, groups=groups, backend=backend, threads=3)
    assert np.array_equal(ragged.ranking.scores.reshape(6, 16), ranking.scores)
    assert np.array_equal(ragged.clusters.centers, clusters.centers)
    alone = rank_and_cluster(batch[2], cluster={"n_clusters": 4}, backend=backend)
    assert alone.ranking.n_iter.ndim == 0
    assert np.array_equal(alone.ranking.scores, ranking.scores[2])
    assert np.array_equal(alone.clusters.labels, clusters.labels[2])


def test_medoids_prefer_the_higher_score(backend: Any) -> None:
    points = np.array([[0.0, 1.0], [0.2, 1.0], [5.0, 1.0], [5.2, 1.0]])
    found = rank_and_cluster(
        points, cluster={"n_clusters": 2}, teleport=np.array([1.0, 4.0, 4.0, 1.0]), backend=backend
    )
    assert sorted(np.asarray(found.clusters.medoids)) == [1, 2]


def test_given_starting_centres_take_the_two_calls(backend: Any) -> None:
    points, _ = grouped_blobs(3, 16, 8)
    cluster = {"init": points[0, :4].copy(), "n_clusters": 4}
    actual = rank_and_cluster(points, cluster=cluster, backend=backend)
    assert_same(actual, one_after_the_other(points, None, {}, cluster, backend=backend))


def test_no_groups_and_empty_groups(backend: Any) -> None:
    nothing = rank_and_cluster(np.zeros((0, 5, 3), np.float32), backend=backend)
    assert nothing.ranking.scores.shape == nothing.clusters.labels.shape == (0, 5)
    points = np.eye(3, dtype=np.float32)
    some = rank_and_cluster(points, groups=np.array([0, 0, 3, 3]), backend=backend)
    assert some.clusters.center_offsets[1] == 0
    assert some.ranking.scores.sum() == pytest.approx(1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("rows", [5, 80])
def test_bad_values_are_named(backend: Any, value: float, rows: int) -> None:
    points = np.random.default_rng(0).standard_normal((2, rows, 90)).astype(np.float32)
    points[1, rows - 1, 3] = value
    with pytest.raises(ValueError, match=rf"group 1, row {rows - 1}|\[1, {rows - 1}\]"):
        rank_and_cluster(points, backend=backend)


def test_negative_cosines_are_refused_by_the_stochastic_form(backend: Any) -> None:
    points = np.array([[[1.0, 0.0], [-1.0, 0.1], [0.0, 1.0]]])
    with pytest.raises(ValueError, match="negative"):
        rank_and_cluster(points, edge="cosine", backend=backend)


def test_not_converged_is_an_error(backend: Any) -> None:
    points, _ = grouped_blobs(2, 16, 8)
    with pytest.raises(ConvergenceError, match="max_iter = 1"):
        rank_and_cluster(points, max_iter=1, backend=backend)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"cluster": {"n_cluster": 3}}, TypeError, "unknown key 'n_cluster'; did you mean 'n_clusters'"),
        ({"cluster": [3]}, TypeError, "cluster must be a mapping"),
        ({"cluster": {"scores": None}}, TypeError, "unknown key 'scores'"),
        ({"cluster": {"n_clusters": 0}}, ValueError, "n_clusters must be >= 1"),
        ({"edge": "bm25"}, ValueError, "edge must be one of"),
        ({"damping": 1.0}, ValueError, "damping"),
        ({"teleport": np.zeros((2, 16))}, ValueError, "teleport of group 0 sums to 0"),
    ],
)
def test_wrong_arguments(backend: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    points, _ = grouped_blobs(2, 16, 8)
    with pytest.raises(error, match=message):
        rank_and_cluster(points, backend=backend, **arguments)
