"""isodata's CUDA kernels, emulated: the clusters, medoids and passes of the C++ core, without races."""

from __future__ import annotations

import contextlib
import importlib
import re
from typing import Any

import numpy as np
import pytest
import torch

from rlsft_kernels import IsodataResult, isodata, rank_and_cluster
from tests.support.closeness import assert_as_accurate_as_eager
from tests.support.cuda_emulation import emulate
from tests.support.ptx_runner import PtxError

SIZES = (0, 1, 2, 3, 8, 16, 17)
THREE = (16, 20, 12)


def blobs(sizes: tuple[int, ...], d: int, dtype: torch.dtype, *, noise: float = 0.3, seed: int = 0) -> torch.Tensor:
    """Rows around up to four centres a group; two of the rows are equal, one is zero."""
    draw = np.random.default_rng(seed)
    rows = np.concatenate([(2 * draw.standard_normal((4, d)))[draw.integers(0, 4, m)] for m in sizes])
    rows += noise * draw.standard_normal(rows.shape)
    rows[5], rows[7 % len(rows)] = rows[4], 0
    return torch.tensor(rows, dtype=dtype)


def offsets(sizes: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([0, *np.cumsum(sizes)])


def _cases() -> dict[str, dict[str, Any]]:
    draw = np.random.default_rng(5)
    small = {"points": blobs(SIZES, 12, torch.float32), "groups": offsets(SIZES)}
    double = {"points": blobs(SIZES, 9, torch.float64, noise=0.6, seed=1), "groups": offsets(SIZES)}
    loose = {"points": blobs(THREE, 9, torch.float32, noise=1.0), "groups": offsets(THREE)}
    counts = torch.tensor(draw.integers(0, 3, 48) + (np.arange(48) % 12 == 1), dtype=torch.float64)
    return {
        "default": small,
        "float64": double,
        "random, cosine": {**small, "init": "random", "geometry": "cosine", "seed": 3},
        "cosine, float64": {**double, "geometry": "cosine", "seed": 11, "n_clusters": 3},
        "the largest deviation": {
            **small,
            "n_clusters": 2,
            "max_std": 0.2,
            "min_distance": 1.0,
            "split_criterion": "max",
            "max_iter": 6,
        },
        "loose clusters": {
            **loose,
            "n_clusters": 4,
            "n_init_clusters": 2,
            "min_samples": 2,
            "max_std": 0.8,
            "min_distance": 2.0,
            "dispersion": "squared",
        },
        "mean distance": {**loose, "n_clusters": 3, "n_init_clusters": 3, "max_std": 0.5, "min_distance": 0.1},
        "many merges": {**loose, "n_clusters": 8, "min_distance": 6.0, "max_merges": 3},
        "few passes": {**loose, "n_clusters": 6, "max_iter": 2},
        "noise": {**loose, "n_clusters": 5, "min_samples": 3, "discard_as_noise": True},
        "tol": {**loose, "tol": 1e-2, "stop_early": False, "max_iter": 8},
        "weights": {**loose, "sample_weight": counts},
        "weights, random": {
            **loose,
            "init": "random",
            "geometry": "cosine",
            "sample_weight": torch.tensor(draw.random(48)),
        },
        "given start": {**loose, "init": torch.tensor(draw.standard_normal((3, 5, 9)))},
        "equal rows, scores": {"points": torch.ones(3, 5, 7), "scores": torch.tensor(draw.random((3, 5)))},
        "one set": {"points": blobs((20,), 6, torch.float32)},
        "64 rows": {"points": blobs((64,), 5, torch.float32, seed=2)},
    }


def _str_cases() -> dict[str, dict[str, Any]]:
    draw = np.random.default_rng(9)
    loose = {"points": blobs(THREE, 9, torch.float32, noise=1.0), "groups": offsets(THREE), "variant": "str"}
    small = {"points": blobs(SIZES, 12, torch.float32), "groups": offsets(SIZES), "variant": "str"}
    grid = torch.tensor(draw.integers(0, 3, (18, 2)), dtype=torch.float64)  # ties everywhere
    plain = {"geometry": "euclidean", "n_clusters": 4}
    # the last two join first, and their mean is nearer to the first row than the second row is
    nearer = torch.tensor([[0.0, 0.0], [-3.1, 0.0], [3.0, 1.1], [3.0, -1.1]])
    return {
        "default": small,
        "float64": {**small, "points": blobs(SIZES, 9, torch.float64, noise=0.6, seed=1), "var_threshold": 0.3},
        "random, euclidean": {**small, **plain, "init": "random", "var_threshold": 6.0, "seed": 3},
        "unions": {**loose, **plain, "n_clusters": 9, "var_threshold": 14.0},
        "the largest variance": {**loose, **plain, "var_threshold": 1.5, "variance_kind": "max_component_variance"},
        "the largest deviation": {**loose, "var_threshold": 0.3, "variance_kind": "max_component_std"},
        "size bounds": {**loose, **plain, "min_size": 2, "max_size": 5, "var_threshold": 9.0},
        "bounds that contradict": {**loose, **plain, "min_size": 2, "max_size": 3, "var_threshold": 4.0, "max_iter": 9},
        "few passes": {**loose, **plain, "var_threshold": 3.0, "max_iter": 1},
        "ties": {"points": grid, "variant": "str", **plain, "var_threshold": 0.6, "min_size": 1},
        "a union comes nearer": {
            "points": nearer,
            "init": nearer,
            "variant": "str",
            "geometry": "euclidean",
            "var_threshold": 3.0,
            "max_iter": 1,
        },
        "given start": {**small, "init": torch.tensor(draw.standard_normal((7, 5, 12))), "var_threshold": 0.4},
        "more centres than rows": {**loose, "init": torch.tensor(draw.standard_normal((3, 24, 9)))},
        "equal rows, scores": {
            "points": torch.ones(3, 5, 7),
            "scores": torch.tensor(draw.random((3, 5))),
            "variant": "str",
        },
        "one set": {"points": blobs((20,), 6, torch.float32), "variant": "str"},
        "64 rows": {"points": blobs((64,), 5, torch.float32, seed=2), "variant": "str", "n_clusters": 12},
    }


CASES = _cases()
STR_CASES = _str_cases()


def _assert_same(found: IsodataResult, wanted: IsodataResult) -> None:
    for field in ("labels", "medoids", "n_iter"):
        assert torch.equal(getattr(found, field), getattr(wanted, field)), field
    np.testing.assert_array_equal(found.center_offsets, wanted.center_offsets)
    np.testing.assert_array_equal(found.history.steps, wanted.history.steps)
    assert found.history.stop_reasons == wanted.history.stop_reasons
    if wanted.centers.abs().max() > 0:
        assert_as_accurate_as_eager(found.centers, wanted.centers, wanted.centers.double(), name="centers")


@pytest.mark.parametrize("name", CASES)
def test_the_clusters_of_the_core(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = isodata(backend="native", **CASES[name])
    core = emulate(monkeypatch, 80)
    _assert_same(isodata(backend="native", **CASES[name]), wanted)
    assert len(core.launches) == 1
    assert not core.races


@pytest.mark.parametrize("name", STR_CASES)
def test_the_clusters_of_the_core_by_strs_rules(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = isodata(backend="native", **STR_CASES[name])
    core = emulate(monkeypatch, 90)
    _assert_same(isodata(backend="native", **STR_CASES[name]), wanted)
    assert [launch[: len("rlsft_isodata_str")] for launch in core.launches] == ["rlsft_isodata_str"]
    assert not core.races


@pytest.mark.parametrize("arch", [80, 120])
@pytest.mark.parametrize("name", ["size bounds", "unions"])
def test_strs_ptx_of_other_architectures(name: str, arch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = isodata(backend="native", **STR_CASES[name])
    core = emulate(monkeypatch, arch)
    _assert_same(isodata(**STR_CASES[name]), wanted)
    assert core.launches
    assert not core.races


def test_strs_cases_split_merge_drop_and_stop_in_every_way() -> None:
    results = {name: isodata(backend="native", **arguments) for name, arguments in STR_CASES.items()}
    splits, merges, drops = np.concatenate([r.history.steps for r in results.values()])[:, :3].max(axis=0)
    assert splits > 2
    assert merges > 2
    assert drops > 2
    both = results["size bounds"].history.steps
    assert ((both[:, 0] > 0) & (both[:, 1] > 0)).any(), "no pass splits and merges"
    reasons = {reason for r in results.values() for reason in r.history.stop_reasons}
    assert reasons == {"stable", "cycle", "max_iter"}


@pytest.mark.parametrize("name", ["default", "weights, random"])
def test_the_ptx_of_a_newer_architecture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = isodata(backend="native", **CASES[name])
    core = emulate(monkeypatch, 120)
    _assert_same(isodata(**CASES[name]), wanted)
    assert core.launches
    assert not core.races


def test_the_cases_split_merge_drop_and_stop_in_every_way() -> None:
    """Otherwise the comparison above would prove little."""
    results = [isodata(backend="native", **arguments) for arguments in CASES.values()]
    splits, merges, drops = np.concatenate([r.history.steps for r in results])[:, :3].max(axis=0)
    assert splits > 1
    assert merges > 1
    assert drops > 0
    reasons = {reason for r in results for reason in r.history.stop_reasons}
    assert reasons == {"stable", "cycle", "max_iter", "tol"}
    assert any((r.labels == -1).any() for r in results), "no case has noise"


def test_blocks_take_several_groups_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = isodata(**CASES["default"])
    emulate(monkeypatch, 80)
    monkeypatch.setattr(importlib.import_module("rlsft_kernels.isodata.cuda_path"), "MOST_BLOCKS", 2)
    _assert_same(isodata(**CASES["default"]), wanted)


def test_ranking_then_clustering_stays_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = blobs((8, 9), 6, torch.float32)
    groups = offsets((8, 9))
    wanted = rank_and_cluster(rows, groups=groups)
    core = emulate(monkeypatch, 80)
    found = rank_and_cluster(rows, groups=groups)
    _assert_same(found.clusters, wanted.clusters)
    scores = wanted.ranking.scores
    assert_as_accurate_as_eager(found.ranking.scores, scores, scores.double(), name="scores")
    assert core.launches == ["rlsft_textrank_small_f32", "rlsft_isodata_f32"]


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_value_that_is_no_number_is_named(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    points = blobs((3, 5), 4, torch.float32)
    points[6, 2] = value
    emulate(monkeypatch, 80)
    with pytest.raises(ValueError, match=r"points\[6\] contains (nan|-inf) \(group 1, row 3\)"):
        isodata(points, groups=offsets((3, 5)))


def test_a_value_whose_square_overflows_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    points = blobs((6,), 4, torch.float64)
    points[3, 1] = 1e151
    emulate(monkeypatch, 80)
    with pytest.raises(ValueError, match=r"points\[3\] has a value beyond 1e150"):
        isodata(points)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"points": blobs((257,), 3, torch.float32), "groups": None}, id="a group too large for a block"),
        pytest.param(
            {"points": blobs((257,), 3, torch.float32), "groups": None, "variant": "str"}, id="and for STR's block"
        ),
        pytest.param({"init": torch.randn(513, 12)}, id="more starting centres than a block holds"),
    ],
)
def test_what_the_kernel_does_not_take_runs_on_the_cpu(
    arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**CASES["default"], **arguments}
    wanted = isodata(**given)
    core = emulate(monkeypatch, 80)
    _assert_same(isodata(**given), wanted)
    assert not core.launches


def _label_of_the_last(ptx: str) -> str:
    """Every comparison "less than" of distances also takes equal ones, or the other way round."""
    return re.sub(r"setp\.lt\.f64", "setp.gt.f64", ptx)


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param(_label_of_the_last, id="the farthest instead of the nearest"),
        pytest.param(lambda ptx: re.sub(r"sqrt\.rn\.f64", "neg.f64", ptx), id="no roots"),
        pytest.param(lambda ptx: re.sub(r"sub\.rn\.f64", "add.rn.f64", ptx), id="sums for differences"),
    ],
)
@pytest.mark.parametrize(
    "arguments",
    [pytest.param(CASES["loose clusters"], id="ball_hall"), pytest.param(STR_CASES["the largest deviation"], id="str")],
)
def test_planted_errors_change_the_clusters(
    arguments: dict[str, Any], patch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = isodata(backend="native", **arguments)
    emulate(monkeypatch, 80, patch=patch)
    try:
        found = isodata(backend="native", **arguments)
    except (ValueError, AssertionError):
        return
    with pytest.raises(AssertionError):
        _assert_same(found, wanted)


@pytest.mark.parametrize("variant", ["ball_hall", "str"])
def test_dropped_barriers_are_races(variant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    core = emulate(monkeypatch, 80, patch=lambda ptx: re.sub(r"bar\.sync\s+0;", "", ptx))
    with contextlib.suppress(PtxError):  # a row number that is read too early may lie outside
        isodata(blobs((9,), 6, torch.float32), max_iter=2, variant=variant)
    assert core.races
