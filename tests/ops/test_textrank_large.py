"""Groups of more than 256 rows: threads inside the group, cosines without a matrix, and the methods of the sweeps."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from rlsft_kernels import ConvergenceError, _backend, similarity_matrix, textrank

pytestmark = pytest.mark.skipif(not _backend.native_status()[0], reason="needs the native core")

SIZES = [257, 300, 1100]


def awkward_rows(n: int, d: int, dtype: Any, seed: int = 0) -> np.ndarray:
    """Unrelated rows around a few centres, with zero rows, exact duplicates, and long and short ones."""
    g = np.random.default_rng(seed)
    rows = g.standard_normal((5, d))[g.integers(0, 5, n)] + g.standard_normal((n, d))
    rows[[3, n - 1]] = 0
    rows[[7, n // 2, n - 2]] = rows[11]
    rows[20] *= 1e20
    rows[21] *= 1e-20
    return rows.astype(dtype)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("edge", ["shifted_cosine", "relu_cosine"])
@pytest.mark.parametrize("form", ["stochastic", "eigenvector"])
def test_agrees_with_the_reference(n: int, dtype: Any, edge: str, form: str) -> None:
    rows = awkward_rows(n, 24, dtype)
    teleport = None
    if n == 300 and form == "stochastic":
        teleport = 0.1 + np.random.default_rng(1).random(n)
        teleport[[7, n // 2, n - 2]] = teleport[11]  # equal rows tie when the walk restarts at them equally often
    common = {"edge": edge, "form": form, "tol": 1e-12, "teleport": teleport, "max_iter": 5000}
    native = textrank(embeddings=rows, backend="native", **common)  # type: ignore[arg-type]
    reference = textrank(embeddings=rows.astype(np.float64), backend="reference", **common)  # type: ignore[arg-type]
    error = np.abs(np.asarray(native.scores, np.float64) - reference.scores).max() / np.max(reference.scores)
    assert error < (3e-6 if dtype == np.float32 else 1e-9)
    assert native.residual < 1e-12
    assert native.scores[7] == native.scores[n // 2] == native.scores[n - 2] == native.scores[11]


@pytest.mark.parametrize("form", ["stochastic", "eigenvector"])
def test_the_implicit_graph_is_the_matrix(form: str) -> None:
    rows = awkward_rows(700, 40, np.float64, seed=2)
    matrix = similarity_matrix(rows, edge="shifted_cosine")
    implicit = textrank(embeddings=rows, form=form, tol=1e-13)
    explicit = textrank(matrix, form=form, tol=1e-13)
    np.testing.assert_allclose(implicit.scores, explicit.scores, rtol=1e-9)


def test_raw_cosines_rank_in_the_eigenvector_form_and_are_refused_as_a_walk() -> None:
    rows = np.abs(awkward_rows(300, 16, np.float64))
    rows[0] *= -1
    implicit = textrank(embeddings=rows, edge="cosine", form="eigenvector", tol=1e-12, max_iter=5000)
    reference = textrank(
        embeddings=rows, edge="cosine", form="eigenvector", tol=1e-12, max_iter=5000, backend="reference"
    )
    np.testing.assert_allclose(implicit.scores, reference.scores, rtol=1e-8)
    with pytest.raises(ValueError, match="negative"):
        textrank(embeddings=rows, edge="cosine")


@pytest.mark.parametrize("edge", ["shifted_cosine", "relu_cosine"])
def test_threads_and_neighbours_change_no_bit(edge: str) -> None:
    rows = awkward_rows(1500, 24, np.float32, seed=3)
    alone = textrank(embeddings=rows, edge=edge, threads=1)
    for threads in (2, 3, 8):
        assert np.array_equal(textrank(embeddings=rows, edge=edge, threads=threads).scores, alone.scores)
    sizes = [1, 2, 3, 15, 16, 17, 64, 65, 300, 1500, 5]
    many = np.concatenate([awkward_rows(max(s, 60), 24, np.float32, seed=s)[:s] for s in sizes])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    batch = textrank(embeddings=many, groups=offsets, edge=edge, threads=2)
    for g, (begin, end) in enumerate(pairwise(offsets)):
        single = textrank(embeddings=many[begin:end], edge=edge, threads=1)
        assert np.array_equal(batch.scores[begin:end], single.scores)
        assert batch.n_iter[g] == single.n_iter


@pytest.mark.parametrize("method", ["auto", "gauss_seidel", "jacobi"])
@pytest.mark.parametrize("n", [1, 2, 17, 64, 400])
def test_methods_agree_within_tol_and_report_a_jacobi_step(method: str, n: int) -> None:
    g = np.random.default_rng(n)
    weights = g.random((n, n)) ** 4
    weights[g.random(n) < 0.1] = 0  # dangling rows
    found = textrank(weights, method=method, tol=1e-12)
    exact = textrank(weights, method="jacobi", tol=1e-15, max_iter=100_000, on_nonconvergence="ignore")
    assert np.abs(found.scores - exact.scores).sum() < 6e-12
    assert found.scores.sum() == pytest.approx(1, abs=1e-12)
    strength = weights.sum(1, keepdims=True)
    walk = np.where(strength > 0, weights / np.where(strength > 0, strength, 1), 1 / n)
    step = np.abs(0.85 * np.asarray(found.scores) @ walk + 0.15 / n - found.scores).sum()
    assert step <= 1e-12


def test_gauss_seidel_needs_fewer_sweeps_on_a_slow_graph() -> None:
    n = 60
    ring = np.roll(np.eye(n), 1, axis=1)
    ring[0, n // 2] = 0.3
    jacobi, gauss_seidel = (textrank(ring, method=m, tol=1e-12) for m in ("jacobi", "gauss_seidel"))
    assert gauss_seidel.n_iter < jacobi.n_iter / 2


@pytest.mark.parametrize("edge", ["shifted_cosine", "relu_cosine"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bad_values_are_named(edge: str, value: float, dtype: Any) -> None:
    rows = awkward_rows(2 * 300, 24, dtype).reshape(2, 300, 24)
    rows[1, 299, 23] = value
    with pytest.raises(ValueError, match=r"embeddings\[1, 299\]"):
        textrank(embeddings=rows, edge=edge)


def test_equal_rows_tie_from_an_uneven_start_too() -> None:
    rows = awkward_rows(700, 24, np.float64)
    start = np.random.default_rng(5).random(700)
    for form in ("stochastic", "eigenvector"):
        scores = textrank(embeddings=rows, start=start, form=form, tol=1e-4).scores  # far from settled
        assert scores[7] == scores[350] == scores[698] == scores[11]
        np.testing.assert_allclose(scores, textrank(embeddings=rows, form=form).scores, rtol=1e-2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [257, 511, 1030])
@pytest.mark.parametrize("form", ["stochastic", "eigenvector"])
def test_half_of_a_symmetric_matrix_is_all_of_it(n: int, dtype: Any, form: str) -> None:
    g = np.random.default_rng(n)
    weights = g.random((n, n)) ** 3
    weights = np.triu(weights) + np.triu(weights, 1).T  # self loops stay
    weights[5] = weights[:, 5] = 0
    weights[9] = weights[8]
    weights[:, 9] = weights[:, 8]
    weights[9, 9] = weights[8, 8]
    weights[8, 9] = weights[9, 8] = 0.5
    weights = weights.astype(dtype)
    reference = textrank(weights.astype(np.float64), form=form, tol=1e-12, backend="reference")
    bits = [textrank(weights, form=form, tol=1e-12, threads=threads).scores for threads in (1, 2, 3, 8)]
    assert all(np.array_equal(bits[0], other) for other in bits)
    assert np.abs(bits[0] - reference.scores).max() <= (2e-7 if dtype == np.float32 else 1e-10) * reference.scores.max()
    assert bits[0][8] == bits[0][9]


@pytest.mark.parametrize("place", [(1, 0), (400, 255), (599, 598), (599, 0)])
def test_one_entry_makes_a_matrix_unsymmetric(place: tuple[int, int]) -> None:
    weights = np.random.default_rng(1).random((600, 600))
    weights = weights + weights.T
    weights[place] += 500.0
    found = textrank(weights, tol=1e-12)
    reference = textrank(weights, tol=1e-12, backend="reference")
    np.testing.assert_allclose(found.scores, reference.scores, rtol=1e-9)


def test_a_relabelled_large_graph_has_permuted_scores() -> None:
    rows = awkward_rows(900, 24, np.float64, seed=6)
    order = np.random.default_rng(7).permutation(900)
    for edge in ("shifted_cosine", "relu_cosine"):
        scores = textrank(embeddings=rows, edge=edge).scores
        np.testing.assert_allclose(textrank(embeddings=rows[order], edge=edge).scores, scores[order], rtol=1e-10)


def test_scaling_rows_or_weights_by_powers_of_two_changes_no_bit() -> None:
    rows = awkward_rows(600, 24, np.float32, seed=8)
    factors = 2.0 ** np.random.default_rng(9).integers(-20, 20, 600)
    scaled = (rows * factors[:, None]).astype(np.float32)
    assert np.array_equal(textrank(embeddings=rows).scores, textrank(embeddings=scaled).scores)
    weights = np.random.default_rng(10).random((600, 600))
    for graph in (weights, weights + weights.T):
        assert np.array_equal(textrank(graph).scores, textrank(graph * 2.0**40).scores)


def test_huge_and_tiny_rows_without_a_matrix() -> None:
    rows = awkward_rows(400, 24, np.float32, seed=11)
    rows[[50, 51]] *= np.float32(1e30) / np.abs(rows[[50, 51]]).max()
    rows[[60, 61]] *= np.float32(1e-37) / np.abs(rows[[60, 61]]).max()
    found = textrank(embeddings=rows, tol=1e-12).scores
    reference = textrank(embeddings=rows.astype(np.float64), tol=1e-12, backend="reference").scores
    np.testing.assert_allclose(found, reference, rtol=1e-6)


def test_a_matrix_that_does_not_fit_says_so() -> None:
    rows = np.broadcast_to(np.ones((1, 1), np.float32), (2_000_000, 1))
    with pytest.raises(MemoryError, match=r"2000000 x 2000000 matrix of edge='relu_cosine', 14901\.2 GiB"):
        textrank(embeddings=rows, edge="relu_cosine")


def test_not_converged_and_wrong_method() -> None:
    rows = awkward_rows(300, 24, np.float32)
    with pytest.raises(ConvergenceError, match="max_iter = 1"):
        textrank(embeddings=rows, max_iter=1, tol=1e-15)
    with pytest.raises(ValueError, match="method must be one of"):
        textrank(embeddings=rows, method="newton")
