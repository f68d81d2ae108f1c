"""Random inputs for the tests of isodata: blobs, grids, duplicates, ragged groups, every setting."""

from __future__ import annotations

from typing import Any

import numpy as np


def ragged_points(seed: int, *, max_rows: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """(points [N, d], offsets): up to four groups of blobs, integer grids or repeated rows; some are empty."""
    g = np.random.default_rng(seed)
    d = int(g.choice([1, 2, 3, 7, 8, 9, 16, 64]))
    offsets = np.concatenate([[0], np.cumsum(g.integers(0, max_rows, g.integers(1, 5)))]).astype(np.int64)
    centers = 3 * g.standard_normal((4, d))
    noise = g.choice([0.05, 0.5, 1.5]) * g.standard_normal((offsets[-1], d))
    points = centers[g.integers(0, 4, offsets[-1])] + noise
    kind = g.choice(["blobs", "grid", "repeated"])
    if kind == "grid":
        points = np.round(points)
    elif kind == "repeated" and len(points):
        points = points[g.integers(0, max(1, len(points) // 3), len(points))]
    return points.astype(g.choice([np.float32, np.float64])), offsets


def random_settings(seed: int) -> dict[str, Any]:
    """Arguments of isodata, drawn from every corner."""
    g = np.random.default_rng(seed)

    def one_of(*values: Any) -> Any:
        return values[g.integers(len(values))]

    common = {
        "n_clusters": one_of(None, 1, 2, 4, 9),
        "n_init_clusters": one_of(None, 1, 3, 12),
        "init": one_of("k-means++", "random"),
        "geometry": one_of(None, "euclidean", "cosine"),
        "max_iter": one_of(1, 2, 5, 20, 21),
        "seed": int(g.integers(1000)),
    }
    if one_of(True, False):
        return common | {
            "variant": "str",
            "min_size": one_of(0, 0, 1, 2),
            "max_size": one_of(None, 1, 3, 5),
            "var_threshold": one_of(0.0, 0.05, 0.2, 1.0),
            "variance_kind": one_of("trace", "max_component_variance", "max_component_std"),
        }
    return common | {
        "min_samples": one_of(1, 2, 3, 6),
        "max_std": one_of("auto", 0.0, 0.5, 1.0),
        "split_criterion": one_of(None, "rms", "max"),
        "min_distance": one_of("auto", 0.5, 2.0),
        "max_merges": one_of(0, 1, 2, 3),
        "split_factor": one_of(0.5, 1.0),
        "dispersion": one_of("distance", "squared"),
        "discard_as_noise": one_of(True, False),
        "stop_early": one_of(True, False),
    }


def assert_same_clusters(actual: Any, expected: Any) -> None:
    """Labels, medoids, history and stop reasons are equal; centres up to rounding."""
    np.testing.assert_array_equal(actual.labels, expected.labels)
    np.testing.assert_array_equal(actual.medoids, expected.medoids)
    np.testing.assert_array_equal(actual.history.steps, expected.history.steps)
    np.testing.assert_array_equal(actual.n_iter, expected.n_iter)
    np.testing.assert_array_equal(actual.center_offsets, expected.center_offsets)
    assert actual.history.stop_reasons == expected.history.stop_reasons
    np.testing.assert_allclose(actual.centers, expected.centers, rtol=1e-6, atol=1e-9)


def grouped_blobs(groups: int, size: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Four far centres a group, unit noise: (points [groups, size, d] float32, labels [groups, size])."""
    g = np.random.default_rng(0)
    centers = 2 * g.standard_normal((groups, 4, d))
    labels = g.integers(0, 4, (groups, size))
    noise = g.standard_normal((groups, size, d))
    return (np.take_along_axis(centers, labels[:, :, None], 1) + noise).astype(np.float32), labels
