"""isodata on sets large enough for the float32 filter of the nearest centre: labels must be those of float64."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from rlsft_kernels import isodata
from tests.support.clusters import assert_same_clusters, ragged_points, random_settings
from tests.support.nearest_cases import NearestCase, assign, cases, check

ROOT = Path(__file__).parents[2]
FLAGS = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""


@pytest.mark.parametrize("block", range(4))
def test_labels_and_sums_are_those_of_float64(block: int) -> None:
    for case in cases(block * 60, 60):
        check(case)


@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_every_instruction_set_decides_alike(isa: str) -> None:
    if isa != "scalar" and f" {isa} " not in FLAGS:
        pytest.skip(f"this CPU has no {isa}")
    code = "from tests.support.nearest_cases import check_many; print(check_many(1000, 120))"
    environment = os.environ | {"RLSFT_ISA": isa}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == isa


@pytest.mark.parametrize(("offset", "scale"), [(0.0, 1.0), (7.0, 1000.0), (1e5, 1.0), (0.0, 1e-25), (0.0, 1e25)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_filter_decides_nearly_all_rows(offset: float, scale: float, dtype: Any) -> None:
    points, _ = make_blobs(3000, 24, centers=6, cluster_std=2.0, random_state=0)
    points = (points * scale + offset).astype(dtype)
    case = NearestCase("blobs", points, points[:6].astype(np.float64))
    assert check(case) < 30


def test_equal_centres_are_decided_by_their_number() -> None:
    points = np.random.default_rng(0).standard_normal((200, 5)).astype(np.float32)
    labels, _, undecided = assign(NearestCase("copies", points, np.repeat(points[:2].astype(np.float64), 2, axis=0)))
    assert set(labels.tolist()) == {0, 2}
    assert undecided == 200


@pytest.mark.parametrize("block", range(4))
def test_native_equals_the_reference_on_larger_groups(block: int) -> None:
    for seed in range(block * 20 + 5000, block * 20 + 5020):
        points, groups = ragged_points(seed, max_rows=300)
        settings = {
            name: value
            for name, value in random_settings(2 * seed + 1).items()
            if name not in ("variant", "n_clusters")
        }
        if "var_threshold" in settings:  # STR's reference takes O(n^3)
            continue
        settings["n_clusters"] = 2 + seed % 19
        native, reference = (
            isodata(points, groups=groups, backend=name, **settings) for name in ("native", "reference")
        )
        assert_same_clusters(native, reference)


@pytest.mark.parametrize("geometry", ["euclidean", "cosine"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("d", "clusters"), [(1, 4), (3, 40), (65, 7), (384, 20), (1000, 3)])
def test_native_equals_the_reference_on_one_set(d: int, clusters: int, dtype: Any, geometry: Any) -> None:
    g = np.random.default_rng(d)
    points = (3 * g.standard_normal((clusters, d)))[g.integers(0, clusters, 1500)] + g.standard_normal((1500, d))
    points = (points + 20).astype(dtype)
    settings: dict[str, Any] = {"n_clusters": clusters, "geometry": geometry, "max_iter": 8}
    native, reference = (isodata(points, backend=name, **settings) for name in ("native", "reference"))  # type: ignore[arg-type]
    assert_same_clusters(native, reference)
    shared = isodata(points, threads=3, backend="native", **settings)
    np.testing.assert_array_equal(shared.labels, native.labels)
    np.testing.assert_array_equal(shared.centers, native.centers)


def test_an_even_pass_that_splits_after_a_drop_needs_deviations_too() -> None:
    # sums of squares are not made in even passes, unless there are few clusters: here a drop leaves few
    found = 0
    for seed in range(40):
        g = np.random.default_rng(seed)
        points = np.concatenate([g.standard_normal((150, 2)), 1.5 + 4 * g.standard_normal((60, 2))])
        settings: dict[str, Any] = {"n_clusters": 4, "n_init_clusters": 3, "min_samples": 22, "max_std": 1.5}
        settings |= {"min_distance": 0.0, "seed": seed, "max_iter": 12}
        native, reference = (isodata(points, backend=name, **settings) for name in ("native", "reference"))  # type: ignore[arg-type]
        assert_same_clusters(native, reference)
        even = native.history.steps[1::2]
        found += int(((even[:, 0] > 0) & (even[:, 2] > 0)).sum())
    assert found >= 2


def test_clusters_of_equal_rows_have_exactly_that_centre() -> None:
    g = np.random.default_rng(0)
    rows = g.standard_normal((5, 40)).astype(np.float32)
    which = g.integers(0, 5, 2000)
    found = isodata(
        rows[which], init=rows.astype(np.float64) + np.pi / 100, n_clusters=5, max_std=0.0, min_distance=0.0
    )
    assert found.n_clusters == 5
    assert found.n_splits == 0
    np.testing.assert_array_equal(found.centers[found.labels], rows[which])


def test_the_centres_do_not_depend_on_when_the_run_stopped() -> None:
    points, _ = make_blobs(2000, 7, centers=5, cluster_std=1.5, random_state=1)
    settings: dict[str, Any] = {"n_clusters": 5, "max_std": 2.0, "min_distance": 3.0}
    early, full = (isodata(points, stop_early=stop, max_iter=60, **settings) for stop in (True, False))
    assert early.n_iter < full.n_iter == 60
    np.testing.assert_array_equal(early.centers, full.centers)


def test_a_tolerance_stops_before_the_partition_stands_still() -> None:
    points = np.random.default_rng(0).standard_normal((4000, 4))
    settings: dict[str, Any] = {"n_clusters": 12, "max_std": 9.0, "min_distance": 0.0, "max_iter": 200}
    for backend in ("native", "reference"):
        full, loose = (isodata(points, tol=tol, backend=backend, **settings) for tol in (0.0, 0.05))  # type: ignore[arg-type]
        assert full.stop_reason == "stable"
        assert loose.stop_reason == "tol"
        assert 2 < loose.n_iter < full.n_iter - 4
        never = isodata(points, tol=0.05, backend=backend, **settings | {"max_iter": 2})  # type: ignore[arg-type]
        assert never.stop_reason == "max_iter"
    both = [isodata(points, tol=0.05, backend=name, **settings) for name in ("native", "reference")]  # type: ignore[arg-type]
    assert_same_clusters(*both)
