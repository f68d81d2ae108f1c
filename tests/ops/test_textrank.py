"""textrank: values against the published figures, closed forms, a dense solve and networkx; edges; errors."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from rlsft_kernels import ConvergenceError, textrank
from tests.support.graphs import dense_solution, random_graph, response_groups, shifted

pytestmark = pytest.mark.usefixtures("nan_in_fresh_memory")
GOLDEN = json.loads(Path(__file__).with_name("str_golden.json").read_text())
BACKENDS = ("native", "reference")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def rank(weights: Any, **kwargs: Any) -> np.ndarray:
    return np.asarray(textrank(np.asarray(weights, dtype=np.float64), **kwargs).scores)


# ---- published and derived figures ----------------------------------------------------------------------------


def test_released_scores_of_the_str_example(backend: Any) -> None:
    scores = rank(shifted(np.array(GOLDEN["cosine"])), form="eigenvector", backend=backend)
    assert scores.max() == 1.0
    np.testing.assert_allclose(scores, GOLDEN["eigenvector_shifted_cosine_released"], atol=1e-6, rtol=0)
    assert np.argsort(-scores).tolist() == [0, 1, 2, 7, 4, 3, 8, 9, 5, 6]


def test_stochastic_scores_of_the_str_example(backend: Any) -> None:
    scores = rank(shifted(np.array(GOLDEN["cosine"])), backend=backend)
    np.testing.assert_allclose(scores / scores.max(), GOLDEN["stochastic_shifted_cosine_derived"], atol=1e-6, rtol=0)


def test_relu_cosine_swaps_the_first_two_of_the_str_example(backend: Any) -> None:
    edges = np.array(GOLDEN["cosine"]).clip(min=0)
    np.fill_diagonal(edges, 0)
    scores = rank(edges, backend=backend)
    expected = [0.991316, 1, 0.918917, 0.639508, 0.660944, 0.354076, 0.196052, 0.709725, 0.516571, 0.452791]
    np.testing.assert_allclose(scores / scores.max(), expected, atol=1e-6, rtol=0)


def test_golden_scores_from_embeddings(backend: Any) -> None:
    # any rows with these cosines will do: a square root of the (positive definite) cosine matrix
    values, vectors = np.linalg.eigh(np.array(GOLDEN["cosine"]))
    rows = vectors * np.sqrt(values)
    scores = textrank(embeddings=rows, form="eigenvector", backend=backend).scores
    np.testing.assert_allclose(scores, GOLDEN["eigenvector_shifted_cosine_released"], atol=1e-6, rtol=0)


# the cases in which well-known PageRank packages differ or fail
CLOSED_FORMS = {
    "dangling-node": ([[0, 1, 1], [1, 0, 1], [0, 0, 0]], [0.2919708, 0.2919708, 0.4160584]),
    "isolated-node": ([[0, 1, 0], [1, 0, 0], [0, 0, 0]], [0.4651163, 0.4651163, 0.0697674]),
    "no-edges": (np.zeros((3, 3)), [1 / 3] * 3),
    "one-node": ([[0]], [1.0]),
    "one-node-self-loop": ([[2]], [1.0]),
    "symmetric-pair": ([[0, 0.3], [0.3, 0]], [0.5, 0.5]),
}


@pytest.mark.parametrize(("weights", "expected"), CLOSED_FORMS.values(), ids=CLOSED_FORMS)
def test_closed_forms(weights: Any, expected: Any, backend: Any) -> None:
    np.testing.assert_allclose(rank(weights, backend=backend), expected, atol=1e-7, rtol=0)


def test_no_nodes(backend: Any) -> None:
    result = textrank(np.zeros((0, 0)), backend=backend)
    assert result.scores.shape == (0,)
    assert textrank(embeddings=np.zeros((0, 3)), backend=backend).scores.shape == (0,)
    assert textrank(embeddings=np.zeros((0, 4, 3)), backend=backend).scores.shape == (0, 4)
    assert textrank(tokens=[], edge="bm25", backend=backend).scores.shape == (0,)


@pytest.mark.parametrize("n", [1, 2, 3, 17, 64, 130])
@pytest.mark.parametrize("damping", [0.0, 0.5, 0.85, 0.99])
def test_scores_solve_the_linear_system(n: int, damping: float, backend: Any) -> None:
    weights = random_graph(n, seed=n)
    teleport = np.random.default_rng(n).random(n)
    result = textrank(weights, damping=damping, teleport=teleport, tol=1e-13, max_iter=10_000, backend=backend)
    np.testing.assert_allclose(result.scores, dense_solution(weights, damping, teleport), atol=1e-11, rtol=0)
    assert abs(result.scores.sum() - 1) < 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("edge", ["shifted_cosine", "relu_cosine"])
def test_embedding_scores_solve_the_linear_system(dtype: Any, edge: Any, backend: Any) -> None:
    groups = response_groups(6, 11, 37, dtype=dtype)
    scores = textrank(embeddings=groups, edge=edge, backend=backend).scores
    assert scores.dtype == dtype
    for rows, got in zip(groups.astype(np.float64), scores, strict=True):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cosine = unit @ unit.T
        edges = shifted(cosine) if edge == "shifted_cosine" else cosine.clip(min=0)
        np.fill_diagonal(edges, 0)
        tolerance = 1e-9 if dtype == np.float64 else 2e-7
        np.testing.assert_allclose(got, dense_solution(edges), atol=tolerance, rtol=0)


def test_agrees_with_networkx_at_its_scaled_tolerance(backend: Any) -> None:
    weights = random_graph(60, seed=1, dangling=3)
    graph = nx.from_numpy_array(weights, create_using=nx.DiGraph)
    theirs = nx.pagerank(graph, tol=1e-12 / 60, max_iter=1000)
    ours = rank(weights, tol=1e-12, backend=backend)
    np.testing.assert_allclose(ours, [theirs[i] for i in range(60)], atol=1e-10, rtol=0)


@pytest.mark.parametrize("n", [30, 300, 1500])
def test_error_at_fixed_tol_does_not_grow_with_n(n: int) -> None:
    weights = random_graph(n, seed=2, dangling=n // 10, density=min(1.0, 8 / n))
    error = np.abs(rank(weights, tol=1e-6, backend="native") - dense_solution(weights)).sum()
    assert error <= 0.85 / 0.15 * 1e-6


# ---- edge cases -----------------------------------------------------------------------------------------------


def test_all_weights_zero_gives_the_teleport(backend: Any) -> None:
    scores = rank(np.zeros((3, 3)), teleport=np.array([1.0, 3.0, 0.0]), backend=backend)
    np.testing.assert_allclose(scores, [0.25, 0.75, 0.0], atol=1e-12)


def test_a_zero_row_is_isolated_under_relu_and_half_tied_under_shift(backend: Any) -> None:
    rows = response_groups(1, 5, 8, dtype=np.float64)[0]
    rows[2] = 0
    relu = textrank(embeddings=rows, edge="relu_cosine", backend=backend).scores
    assert relu.argmin() == 2
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    shift = textrank(embeddings=rows, backend=backend).scores
    np.testing.assert_allclose(shift, dense_solution(shifted(unit @ unit.T)), atol=1e-9)


@pytest.mark.parametrize("form", ["stochastic", "eigenvector"])
@pytest.mark.parametrize("pair", [(0, 1), (3, 16), (2, 12), (15, 16)])
def test_equal_rows_tie_exactly_wherever_they_stand(pair: tuple[int, int], form: Any, backend: Any) -> None:
    for dtype in (np.float32, np.float64):
        rows = response_groups(1, 17, 50, seed=4, dtype=dtype)[0]
        rows[pair[1]] = rows[pair[0]]
        for edge in ("shifted_cosine", "relu_cosine"):
            scores = textrank(embeddings=rows, edge=edge, form=form, backend=backend).scores
            assert scores[pair[0]] == scores[pair[1]]


def test_all_rows_equal(backend: Any) -> None:
    rows = np.tile(np.random.default_rng(0).standard_normal(7).astype(np.float32), (5, 1))
    scores = textrank(embeddings=rows, backend=backend).scores
    assert len(set(scores.tolist())) == 1
    np.testing.assert_allclose(scores, 0.2, rtol=1e-6)


def test_equal_responses_tie_exactly_from_tokens(backend: Any) -> None:
    tokens = [[1, 2, 3, 4], [7, 8, 2], [1, 2, 3, 4], [3, 9], [], [1, 2, 3, 4]]
    for edge in ("word_overlap", "bm25"):
        scores = textrank(tokens=tokens, edge=edge, backend=backend).scores
        assert scores[0] == scores[2] == scores[5]


def test_an_empty_response_gets_its_teleport_share(backend: Any) -> None:
    # x_i = (1-a)/n + a D/n for a node without edges in, and D is the mass of those nodes themselves
    tokens = [[1, 2, 3], [1, 2, 4], []]
    scores = textrank(tokens=tokens, edge="word_overlap", backend=backend).scores
    np.testing.assert_allclose(scores[2], 0.15 / 3 / (1 - 0.85 / 3), atol=1e-10)


def test_no_shared_words_gives_the_teleport(backend: Any) -> None:
    teleport = np.array([0.5, 0.25, 0.25])
    result = textrank(tokens=[[1, 2], [3, 4], [5, 6]], edge="bm25", teleport=teleport, backend=backend)
    np.testing.assert_allclose(result.scores, teleport, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-308, 1e-290, 1e290, 1e308])
def test_weights_at_the_ends_of_double(scale: float, backend: Any) -> None:
    weights = random_graph(9, seed=3)
    np.testing.assert_allclose(rank(weights * scale, backend=backend), rank(weights, backend=backend), atol=1e-9)


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e30, 1e37])
def test_embeddings_at_the_ends_of_float(scale: float, backend: Any) -> None:
    rows = response_groups(1, 6, 40)[0]
    plain = textrank(embeddings=rows, backend=backend).scores
    scaled = textrank(embeddings=(rows.astype(np.float64) * scale).astype(np.float32), backend=backend).scores
    np.testing.assert_allclose(scaled, plain, atol=1e-6)


def test_near_duplicates_stay_finite_and_ordered(backend: Any) -> None:
    g = np.random.default_rng(1)
    rows = g.standard_normal((1, 384)) + 1e-4 * g.standard_normal((12, 384))
    scores = textrank(embeddings=rows.astype(np.float32), edge="relu_cosine", backend=backend).scores
    np.testing.assert_allclose(scores, 1 / 12, atol=1e-6)


# ---- eigenvector form -----------------------------------------------------------------------------------------


def test_eigenvector_form_is_the_principal_eigenvector(backend: Any) -> None:
    weights = shifted(np.asarray(np.corrcoef(np.random.default_rng(0).standard_normal((10, 30)))))
    vector = np.abs(np.linalg.eigh(weights)[1][:, -1])
    np.testing.assert_allclose(rank(weights, form="eigenvector", backend=backend), vector / vector.max(), atol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 300])
def test_katz_where_damping_times_rho_is_at_most_one(n: int, backend: Any) -> None:
    weights = random_graph(n, seed=5, dangling=0, density=1.0)
    weights *= 1.1 / np.abs(np.linalg.eigvals(weights)).max()  # a * rho = .935
    katz = np.linalg.solve(np.eye(n) - 0.85 * weights.T, np.ones(n))
    scores = rank(weights, form="eigenvector", backend=backend)
    np.testing.assert_allclose(scores, katz / katz.max(), atol=2e-9)


def test_raw_repeated_multiplication_agrees_where_it_does_not_overflow(backend: Any) -> None:
    # the released code: s <- d A s + (1 - d), 100 sweeps, divided by the maximum
    weights = shifted(np.array(GOLDEN["cosine"]))
    s = np.ones(10)
    for _ in range(100):
        s = 0.85 * weights @ s + 0.15
    np.testing.assert_allclose(rank(weights, form="eigenvector", backend=backend), s / s.max(), atol=1e-9)


def test_a_bipartite_graph_does_not_oscillate(backend: Any) -> None:
    star = np.zeros((4, 4))
    star[0, 1:] = star[1:, 0] = 5
    scores = rank(star, form="eigenvector", backend=backend)
    np.testing.assert_allclose(scores, [1, *[3**-0.5] * 3], atol=1e-9)


def test_a_graph_without_cycles_has_katz_scores(backend: Any) -> None:
    chain = np.diag(np.full(4, 3.0), k=1)  # 0 -> 1 -> 2 -> 3 -> 4, rho = 0
    katz = np.cumsum((0.85 * 3) ** np.arange(5))
    scores = rank(chain, form="eigenvector", backend=backend)
    np.testing.assert_allclose(scores, katz / katz.max(), atol=1e-12)


def test_one_and_no_edge_in_eigenvector_form(backend: Any) -> None:
    assert rank([[0]], form="eigenvector", backend=backend).tolist() == [1.0]
    assert rank(np.zeros((3, 3)), form="eigenvector", backend=backend).tolist() == [1.0, 1.0, 1.0]


# ---- convergence ----------------------------------------------------------------------------------------------


def test_reaching_the_cap_raises_with_the_facts(backend: Any) -> None:
    graphs = np.stack([np.zeros((6, 6)), random_graph(6, seed=1)])
    with pytest.raises(ConvergenceError, match=r"group 1 .* residual = .* >= tol = 1e-10 .*max_iter = 3") as caught:
        textrank(graphs, max_iter=3, backend=backend)
    assert caught.value.n_iter == 3
    assert caught.value.group == 1
    assert caught.value.residual > 1e-10


def test_reaching_the_cap_can_warn_or_be_ignored(backend: Any) -> None:
    weights = random_graph(6, seed=1)
    with pytest.warns(RuntimeWarning, match="did not converge"):
        textrank(weights, max_iter=3, on_nonconvergence="warn", backend=backend)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = textrank(weights, max_iter=3, on_nonconvergence="ignore", backend=backend)
    assert result.n_iter == 3
    assert result.residual >= 1e-10


def test_residual_and_sweeps_are_those_of_the_last_sweep(backend: Any) -> None:
    weights = random_graph(12, seed=8)
    result = textrank(weights, backend=backend)
    before = textrank(weights, max_iter=int(result.n_iter) - 1, on_nonconvergence="ignore", backend=backend).scores
    np.testing.assert_allclose(result.residual, np.abs(result.scores - before).sum(), rtol=1e-4)
    assert result.residual < 1e-10


def test_a_warm_start_saves_sweeps_and_changes_no_score(backend: Any) -> None:
    weights = random_graph(20, seed=9)
    cold = textrank(weights, backend=backend)
    warm = textrank(weights, start=cold.scores, backend=backend)
    assert warm.n_iter == 1 < cold.n_iter
    np.testing.assert_allclose(warm.scores, cold.scores, atol=1e-9)


# ---- what comes back ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_kind_and_dtype_of_the_input_come_back(dtype: str, backend: Any) -> None:
    array = response_groups(3, 4, 5).astype(dtype)
    for result in (textrank(embeddings=array, backend=backend), textrank(np.abs(array @ array.mT), backend=backend)):
        assert isinstance(result.scores, np.ndarray)
        assert (result.scores.dtype, result.n_iter.dtype, result.residual.dtype) == (dtype, "int64", "float64")
        assert (result.scores.shape, result.n_iter.shape, result.residual.shape) == ((3, 4), (3,), (3,))
    tensor = torch.from_numpy(array).requires_grad_()
    result = textrank(embeddings=tensor, backend=backend)
    assert isinstance(result.scores, torch.Tensor)
    assert not result.scores.requires_grad
    np.testing.assert_array_equal(result.scores.numpy(), textrank(embeddings=array, backend=backend).scores)


def test_a_single_graph_has_scalar_facts(backend: Any) -> None:
    result = textrank(embeddings=response_groups(1, 4, 5)[0], backend=backend)
    assert result.scores.shape == (4,)
    assert result.n_iter.shape == result.residual.shape == ()
    assert int(result.n_iter) >= 1


# ---- errors ---------------------------------------------------------------------------------------------------

W3 = random_graph(3, seed=0)
X3 = response_groups(2, 3, 4)


def _with(array: np.ndarray, index: Any, value: float) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed


BAD_INPUTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nothing": ({}, ValueError, "exactly one of similarity, embeddings and tokens"),
    "two": ({"similarity": W3, "embeddings": X3}, ValueError, "exactly one of"),
    "list": ({"similarity": [[0.0]]}, TypeError, "similarity must be a torch tensor or a NumPy array, got list"),
    "integers": ({"similarity": np.ones((2, 2), int)}, TypeError, "must be float32 or float64, got int64"),
    "half": ({"embeddings": torch.ones(2, 3, dtype=torch.float16)}, TypeError, "got float16; convert"),
    "bfloat16": ({"embeddings": torch.ones(2, 3, dtype=torch.bfloat16)}, TypeError, "got bfloat16"),
    "not-square": ({"similarity": np.ones((2, 3))}, ValueError, r"square: \[n, n\] .* got shape \[2, 3\]"),
    "one-axis": ({"embeddings": np.ones(3)}, ValueError, r"embeddings must be \[n, d\].* got shape \[3\]"),
    "no-columns": ({"embeddings": np.ones((3, 0))}, ValueError, "at least one column"),
    "nan-row": (
        {"embeddings": _with(X3, (1, 2, 0), np.nan)},
        ValueError,
        r"embeddings\[1, 2\] contains nan \(group 1, row 2\)",
    ),
    "inf-row": ({"embeddings": _with(X3[0], (2, 3), -np.inf)}, ValueError, r"embeddings\[2\] contains -inf \(row 2\)"),
    "nan-weight": ({"similarity": _with(W3, (1, 2), np.nan)}, ValueError, r"similarity\[1, 2\] is nan \(edge 1 -> 2\)"),
    "inf-weight": ({"similarity": _with(W3, (0, 2), np.inf)}, ValueError, r"similarity\[0, 2\] is inf"),
    "negative-weight": (
        {"similarity": np.stack([W3, _with(W3, (1, 0), -0.5)])},
        ValueError,
        r"similarity\[1, 1, 0\] is -0.5 \(group 1, edge 1 -> 0\); weights must be finite and not negative",
    ),
    "negative-cosine": (
        {"embeddings": np.array([[1.0, 0.0], [-1.0, 0.1]]), "edge": "cosine"},
        ValueError,
        r"edge='cosine' gives the negative weight -0\.99.* use edge='shifted_cosine'",
    ),
    "unknown-edge": ({"embeddings": X3, "edge": "euclid"}, ValueError, "edge with embeddings must be one of"),
    "text-edge": ({"embeddings": X3, "edge": "bm25"}, ValueError, "edge with embeddings must be one of"),
    "edge-of-similarity": ({"similarity": W3, "edge": "relu_cosine"}, ValueError, "edge='precomputed'"),
    "edge-of-tokens": ({"tokens": [[1]]}, ValueError, "edge with tokens must be one of 'word_overlap', 'bm25'"),
    "text-not-ids": (
        {"tokens": ["a b"], "edge": "bm25"},
        TypeError,
        r"tokens\[0\] must be a list of token ids, got str",
    ),
    "overlap": ({"tokens": [[1]], "edge": "word_overlap", "overlap": "bag"}, ValueError, "overlap must be one of"),
    "flat-tokens": ({"tokens": np.array([1, 2]), "edge": "bm25"}, ValueError, "token_offsets is needed"),
    "list-offsets": (
        {"tokens": [[1]], "token_offsets": np.array([0, 1]), "edge": "bm25"},
        ValueError,
        "goes with flat",
    ),
    "damping": ({"similarity": W3, "damping": 1.0}, ValueError, r"damping must be in \[0, 1\), got 1.0"),
    "damping-nan": ({"similarity": W3, "damping": float("nan")}, ValueError, "damping must be"),
    "tol": ({"similarity": W3, "tol": 0.0}, ValueError, "tol must be a positive number"),
    "max-iter": ({"similarity": W3, "max_iter": 0}, ValueError, "max_iter must be >= 1, got 0"),
    "max-iter-type": ({"similarity": W3, "max_iter": 1.5}, TypeError, "max_iter must be an int"),
    "form": ({"similarity": W3, "form": "katz"}, ValueError, "form must be one of 'stochastic', 'eigenvector'"),
    "action": ({"similarity": W3, "on_nonconvergence": "print"}, ValueError, "on_nonconvergence must be one of"),
    "threads": ({"similarity": W3, "threads": 0}, ValueError, "threads must be >= 1"),
    "backend": ({"similarity": W3, "backend": "gpu"}, ValueError, "backend must be one of"),
    "triton": ({"similarity": W3, "backend": "triton"}, ValueError, "backend='triton' takes nothing"),
    "teleport-length": (
        {"similarity": W3, "teleport": np.ones(2)},
        ValueError,
        r"one entry a node, shape \[3\], got \[2\]",
    ),
    "teleport-sign": (
        {"similarity": W3, "teleport": np.array([1, -1, 1.0])},
        ValueError,
        r"teleport\[1\] is -1.0 \(row 1\)",
    ),
    "teleport-nan": ({"similarity": W3, "teleport": np.array([1, np.nan, 1])}, ValueError, r"teleport\[1\] is nan"),
    "teleport-zero": (
        {"embeddings": X3, "teleport": np.array([[1.0, 1, 1], [0, 0, 0]])},
        ValueError,
        "teleport of group 1 sums to 0",
    ),
    "teleport-text": ({"similarity": W3, "teleport": np.array(["a", "b", "c"])}, TypeError, "teleport must be numbers"),
    "start-zero": ({"similarity": W3, "start": np.zeros(3)}, ValueError, "start sums to 0"),
    "groups-int32": (
        {"embeddings": X3[0], "groups": np.array([0, 3], np.int32)},
        TypeError,
        "groups must be int64 offsets",
    ),
    "groups-list": ({"embeddings": X3[0], "groups": [0, 3]}, TypeError, "groups must be a torch tensor or"),
    "groups-end": (
        {"embeddings": X3[0], "groups": np.array([0, 2])},
        ValueError,
        "end at the 3 rows of embeddings, got 0 .. 2",
    ),
    "groups-fall": (
        {"embeddings": X3[0], "groups": np.array([0, 2, 1, 3])},
        ValueError,
        r"never decrease: groups\[2\] = 1",
    ),
    "groups-empty": ({"embeddings": X3[0], "groups": np.zeros(0, np.int64)}, ValueError, "one-dimensional offsets"),
    "groups-batch": ({"embeddings": X3, "groups": np.array([0, 6])}, ValueError, "groups cuts flat rows"),
    "groups-blocks": ({"similarity": np.ones(5), "groups": np.array([0, 2])}, ValueError, "must hold 4 weights"),
}


@pytest.mark.parametrize(("kwargs", "error", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_bad_input_is_named(kwargs: dict[str, Any], error: type[Exception], message: str, backend: Any) -> None:
    with pytest.raises(error, match=message):
        textrank(**{"backend": backend, **kwargs})


def test_flat_rows_are_named_by_their_own_index_and_by_group(backend: Any) -> None:
    rows = _with(X3.reshape(6, 4), (4, 1), np.nan)
    with pytest.raises(ValueError, match=r"embeddings\[4\] contains nan \(group 1, row 2\)"):
        textrank(embeddings=rows, groups=np.array([0, 2, 6]), backend=backend)


def test_weights_whose_sums_overflow_are_refused_in_eigenvector_form() -> None:
    with pytest.raises(ValueError, match="sums overflow; divide them by their maximum"):
        textrank(np.full((3, 3), 1e308), form="eigenvector", backend="native")


def test_raw_cosine_is_allowed_for_study_in_eigenvector_form(backend: Any) -> None:
    rows = response_groups(1, 8, 30, dtype=np.float64)[0]
    scores = textrank(embeddings=rows, edge="cosine", form="eigenvector", max_iter=5000, backend=backend).scores
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    vector = np.linalg.eigh(unit @ unit.T - np.eye(8))[1][:, -1]
    vector = vector / vector[np.abs(vector).argmax()]
    np.testing.assert_allclose(scores, vector, atol=1e-7)


def test_raw_cosine_with_a_small_rho_has_katz_scores(backend: Any) -> None:
    rows = np.array([[1, 0.2, 0.1], [0.1, 1, 0.5], [0.3, 0.2, 1]])
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    edges = unit @ unit.T - np.eye(3)
    assert 0.5 < 0.85 * np.linalg.eigvalsh(edges)[-1] < 1
    katz = np.linalg.solve(np.eye(3) - 0.85 * edges, np.ones(3))
    scores = textrank(embeddings=rows, edge="cosine", form="eigenvector", backend=backend).scores
    np.testing.assert_allclose(scores, katz / katz.max(), atol=1e-12)
