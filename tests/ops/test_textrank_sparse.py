"""textrank of one sparse graph: what the dense form gives, for every kind of sparse array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from rlsft_kernels import ConvergenceError, textrank
from rlsft_kernels.textrank.sparse import textrank_sparse
from tests.support.sparse_graphs import random_sparse

FORMS = ("stochastic", "eigenvector")
BACKENDS = ("native", "reference")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [20, 255, 256, 257, 400])  # 256: above it Katz and the eigenvector are iterated sparsely
@pytest.mark.parametrize("scale", [1.0, 0.02], ids=["eigenvector", "katz"])
def test_sparse_equals_dense(n: int, scale: float, form: str, backend: Any) -> None:
    graph = random_sparse(n, 8 * n, seed=n) * scale
    g = np.random.default_rng(0)
    options: dict[str, Any] = {"form": form, "tol": 1e-12, "max_iter": 20_000, "backend": backend}
    for extra in ({}, {"teleport": g.random(n)}, {"start": g.random(n), "damping": 0.6}):
        dense = textrank(graph.toarray(), **options, **extra)
        for given in (graph, graph.tocsc(), graph.tocoo()):
            found = textrank(given, **options, **extra)
            assert isinstance(found.scores, np.ndarray)
            assert found.n_iter.shape == found.residual.shape == ()
            np.testing.assert_allclose(found.scores, dense.scores, atol=1e-9 if form == "eigenvector" else 1e-12)


def test_torch_sparse_gives_torch() -> None:
    graph = random_sparse(50, 300, seed=1, dtype=np.float32)
    found = textrank(torch.from_numpy(graph.toarray()).to_sparse())
    assert isinstance(found.scores, torch.Tensor)
    assert found.scores.dtype == torch.float32
    assert found.n_iter.dtype == torch.int64
    np.testing.assert_allclose(found.scores, textrank(graph.toarray()).scores, atol=1e-7)


def test_methods_agree_and_are_named() -> None:
    graph = random_sparse(300, 2000, seed=2)
    plain = textrank_sparse(graph, method="jacobi")
    quick = textrank_sparse(graph, method="gauss_seidel")
    np.testing.assert_allclose(quick.scores, plain.scores, atol=1e-9)
    assert quick.n_iter < plain.n_iter
    np.testing.assert_array_equal(textrank_sparse(graph).scores, quick.scores)
    with pytest.raises(ValueError, match="method must be one of 'auto', 'gauss_seidel', 'jacobi', got 'power'"):
        textrank_sparse(graph, method="power")


@pytest.mark.parametrize("form", FORMS)
def test_empty_graphs(form: str) -> None:
    assert textrank(sp.csr_array((0, 0)), form=form).scores.shape == (0,)
    for n in (3, 300):
        scores = textrank(sp.csr_array((n, n)), form=form).scores
        np.testing.assert_allclose(scores, 1 / n if form == "stochastic" else 1.0, atol=1e-14)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n", [50, 300])
def test_errors(n: int, form: str) -> None:
    graph = random_sparse(n, 6 * n, seed=3)
    with pytest.raises(ValueError, match="a sparse similarity is one graph"):
        textrank(graph, groups=np.array([0, n]), form=form)
    with pytest.raises(ConvergenceError, match="n_iter = 2 sweeps"):
        textrank(graph, max_iter=2, form=form)
    with pytest.raises(ValueError, match=r"teleport must have one entry a node"):
        textrank(graph, teleport=np.ones(n - 1), form=form)
    with pytest.raises(ValueError, match="cannot be made from similarity"):
        textrank(graph, edge="relu_cosine", form=form)
    graph.data[5] = np.nan
    with pytest.raises(ValueError, match=r"\(entry 5\) is nan"):
        textrank(graph, form=form)


def test_overflow_is_refused() -> None:
    graph = random_sparse(300, 5000, seed=4)
    graph.data[:] = 1e308
    with pytest.raises(ValueError, match="their sums overflow"):
        textrank(graph, form="eigenvector")
