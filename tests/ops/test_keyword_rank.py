"""keyword_rank: by hand, against networkx and summa, and the rules of windows, filters and batches."""

from __future__ import annotations

import warnings
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from rlsft_kernels import ConvergenceError, keyword_rank
from rlsft_kernels.keyword_rank.reference import cooccurrences

pytestmark = pytest.mark.usefixtures("nan_in_fresh_memory")


@pytest.fixture(params=("native", "reference"))
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def zipf_text(length: int, vocabulary: int, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, vocabulary + 1)
    return rng.choice(vocabulary, size=length, p=share / share.sum()).tolist()


def test_a_path_of_three_words_by_hand(backend: Any) -> None:
    # 7 - 8 - 9: x_8 = .05 + .85 (x_7 + x_9), x_7 = x_9 = .05 + .425 x_8, so x_8 = .135 / .2775
    result = keyword_rank([7, 8, 9], backend=backend)
    np.testing.assert_array_equal(result.token_ids, [7, 8, 9])
    np.testing.assert_allclose(result.scores, [0.256756757, 0.486486486, 0.256756757], atol=1e-9)
    np.testing.assert_array_equal(result.counts, [1, 1, 1])
    assert result.n_iter.shape == ()


def test_words_come_in_the_order_of_first_appearance(backend: Any) -> None:
    result = keyword_rank([5, -3, 5, 2**40, 5], backend=backend)
    np.testing.assert_array_equal(result.token_ids, [5, -3, 2**40])
    np.testing.assert_array_equal(result.counts, [3, 1, 1])
    assert result.scores[0] > result.scores[1] == result.scores[2]


def test_weights_and_direction_by_hand(backend: Any) -> None:
    # 1 2 1 2 3: pairs 12 21 12 23
    assert cooccurrences([1, 2, 1, 2, 3], [True] * 5, 2, directed=True) == {(1, 2): 2, (2, 1): 1, (2, 3): 1}
    directed = keyword_rank([1, 2, 1, 2, 3], directed=True, backend=backend)
    # x_1 = c + .425 x_2, x_2 = c + .85 x_1, x_3 = c + .425 x_2, c = .05 + .85 x_3 / 3: solved by hand for c = 1
    x_2 = 1.85 / (1 - 0.85 * 0.425)
    x = np.array([1 + 0.425 * x_2, x_2, 1 + 0.425 * x_2])
    np.testing.assert_allclose(directed.scores, x / x.sum(), atol=1e-9)
    weighted = keyword_rank([1, 2, 1, 2, 3], weighted=True, backend=backend)
    # undirected: w_12 = 3, w_23 = 1; x_1 = c + .85 * 3/4 x_2, x_3 = c + .85 / 4 x_2, x_2 = c + .85 (x_1 + x_3)
    x_2 = 2.7 / (1 - 0.85 * 0.85)
    x = np.array([1 + 0.6375 * x_2, x_2, 1 + 0.2125 * x_2])
    np.testing.assert_allclose(weighted.scores, x / x.sum(), atol=1e-9)


def test_a_window_is_counted_over_dropped_words_too(backend: Any) -> None:
    text = [1, 0, 2, 3]
    inside = keyword_rank(text, keep=[1, 2, 3], backend=backend)  # 1 has no neighbour: 0 stands between
    np.testing.assert_array_equal(inside.token_ids, [1, 2, 3])
    assert inside.scores[0] < inside.scores[1] == inside.scores[2]
    wider = keyword_rank(text, keep=[1, 2, 3], window=3, backend=backend)  # 1 - 2 and 2 - 3
    np.testing.assert_allclose(wider.scores, keyword_rank([1, 2, 3], backend=backend).scores, atol=1e-12)
    before = keyword_rank([token for token in text if token], backend=backend)
    np.testing.assert_allclose(before.scores, wider.scores, atol=1e-12)


def test_keep_takes_ids_or_a_mask(backend: Any) -> None:
    text = zipf_text(200, 30, 0)
    ids = {1, 2, 5, 7, 11, 29}
    mask = np.array([token in ids for token in text])
    results = [
        keyword_rank(text, keep=keep, window=4, backend=backend)
        for keep in (ids, sorted(ids), np.array(sorted(ids)), torch.tensor(sorted(ids)), mask, torch.from_numpy(mask))
    ]
    assert set(results[0].token_ids.tolist()) <= ids
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(got, expected)
    half = mask & (np.arange(200) < 100)
    assert keyword_rank(text, keep=half, backend=backend).counts.sum() == half.sum()
    assert len(keyword_rank(text, keep=[], backend=backend).token_ids) == 0


@pytest.mark.parametrize("window", [2, 3, 10, 1000])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("directed", [False, True])
def test_native_equals_the_reference(window: int, weighted: bool, directed: bool) -> None:
    for length, vocabulary in ((1, 1), (7, 4), (300, 60), (150, 150)):
        text = zipf_text(length, vocabulary, length)
        keep = np.random.default_rng(window).random(length) < 0.6
        for kept in (None, keep):
            options: dict[str, Any] = {"window": window, "weighted": weighted, "directed": directed, "keep": kept}
            native = keyword_rank(text, backend="native", **options)
            reference = keyword_rank(text, backend="reference", **options)
            np.testing.assert_array_equal(native.token_ids, reference.token_ids)
            np.testing.assert_array_equal(native.counts, reference.counts)
            np.testing.assert_allclose(native.scores, reference.scores, rtol=0, atol=1e-12)
            assert abs(int(native.n_iter) - int(reference.n_iter)) <= 1
            if len(native.scores):
                assert native.scores.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("directed", [False, True])
def test_networkx_agrees(weighted: bool, directed: bool, backend: Any) -> None:
    text = zipf_text(400, 80, 2)
    graph: Any = nx.DiGraph() if directed else nx.Graph()
    graph.add_nodes_from(text)
    for at, later in enumerate(text):
        for earlier in text[max(0, at - 2) : at]:
            if earlier != later:
                seen = graph.get_edge_data(earlier, later, {"weight": 0})["weight"]
                graph.add_edge(earlier, later, weight=seen + 1 if weighted else 1)
    expected = nx.pagerank(graph, tol=1e-12 / len(graph), max_iter=1000)
    result = keyword_rank(text, window=3, weighted=weighted, directed=directed, tol=1e-12, backend=backend)
    got = dict(zip(result.token_ids.tolist(), result.scores.tolist(), strict=True))
    assert got == pytest.approx(expected, abs=1e-10)


SENTENCE = (
    "compatibility of systems of linear constraints over the set of natural numbers criteria of compatibility of a "
    "system of linear diophantine equations strict inequations and nonstrict inequations are considered upper bounds "
    "for components of a minimal set of solutions and algorithms of construction of minimal generating sets of "
    "solutions for all types of systems are given"
)


def test_summa_scores_are_proportional(monkeypatch: pytest.MonkeyPatch) -> None:
    """summa's graph: neighbours, unweighted, over the original positions; isolated words are left out.

    Its own iteration, not its eigenvectors: on a graph of several pieces, like this one, the first is another's.
    """
    keywords = pytest.importorskip("summa.keywords")
    module = pytest.importorskip("summa.pagerank_weighted")
    monkeypatch.setattr(module, "CONVERGENCE_THRESHOLD", 1e-13)
    units = keywords._clean_text_by_word(SENTENCE, "english")
    graph = keywords._build_graph(keywords._get_words_for_graph(units))
    words = list(keywords._tokenize_by_word(SENTENCE))
    keywords._set_graph_edges(graph, units, words)
    keywords._remove_unreachable_nodes(graph)
    expected = module.pagerank_weighted(graph)
    stems = [units[word].token if word in units else word for word in words]
    number = {stem: i for i, stem in enumerate(dict.fromkeys(stems))}
    kept = np.array([word in units for word in words])
    result = keyword_rank([number[stem] for stem in stems], keep=kept, backend="native")
    ours = {stem: float(result.scores[result.token_ids.tolist().index(number[stem])]) for stem in expected}
    total, total_expected = sum(ours.values()), sum(expected.values())
    assert len(expected) > 15
    for stem, score in expected.items():
        assert ours[stem] / total == pytest.approx(score / total_expected, abs=1e-6), stem


def test_a_batch_equals_its_texts_bit_for_bit(backend: Any) -> None:
    texts = [zipf_text(120, 40, 1), [], [3], zipf_text(60, 9, 2), [4, 4, 4]]
    keep = np.arange(10)
    batch = keyword_rank(texts, keep=keep, window=3, backend=backend)
    flat = np.array([token for text in texts for token in text])
    cut = np.concatenate([[0], np.cumsum([len(text) for text in texts])])
    as_flat = keyword_rank(flat, offsets=cut, keep=keep, window=3, threads=3, backend=backend)
    for got, expected in zip(as_flat, batch, strict=True):
        np.testing.assert_array_equal(got, expected)
    for t, text in enumerate(texts):
        alone = keyword_rank(text, keep=keep, window=3, backend=backend)
        part = slice(int(batch.offsets[t]), int(batch.offsets[t + 1]))
        np.testing.assert_array_equal(batch.token_ids[part], alone.token_ids)
        np.testing.assert_array_equal(batch.scores[part], alone.scores)
        np.testing.assert_array_equal(batch.counts[part], alone.counts)
        assert batch.n_iter[t] == alone.n_iter
        assert batch.residual[t] == alone.residual


def test_threads_change_no_bit() -> None:
    texts = [zipf_text(400, 90, seed) for seed in range(60)]
    one, three = (keyword_rank(texts, window=5, threads=threads, backend="native") for threads in (1, 3))
    for got, expected in zip(three, one, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_texts_without_edges_are_uniform(backend: Any) -> None:
    assert keyword_rank([], backend=backend).scores.shape == (0,)
    assert keyword_rank([[], []], backend=backend).offsets.tolist() == [0, 0, 0]
    np.testing.assert_allclose(keyword_rank([4, 4, 4], backend=backend).scores, [1.0])
    np.testing.assert_allclose(keyword_rank([1, 0, 2], keep=[1, 2], backend=backend).scores, [0.5, 0.5])


def test_relabelling_the_words_changes_nothing(backend: Any) -> None:
    text = zipf_text(300, 50, 4)
    names = np.random.default_rng(0).integers(-(2**62), 2**62, size=50)
    plain, renamed = keyword_rank(text, backend=backend), keyword_rank(names[text], backend=backend)
    np.testing.assert_array_equal(renamed.token_ids, names[plain.token_ids])
    np.testing.assert_array_equal(renamed.scores, plain.scores)


def test_torch_in_torch_out(backend: Any) -> None:
    tokens = torch.tensor([1, 2, 3, 1], dtype=torch.int32)
    result = keyword_rank(tokens, backend=backend)
    assert all(isinstance(field, torch.Tensor) for field in result)
    assert result.scores.dtype == torch.float64
    assert result.token_ids.dtype == torch.int64
    np.testing.assert_array_equal(result.scores, keyword_rank([1, 2, 3, 1], backend=backend).scores)


def test_a_text_that_does_not_converge_is_reported(backend: Any) -> None:
    texts = [[1], zipf_text(100, 30, 0)]
    with pytest.raises(
        ConvergenceError, match=r"text 1 \(and 0 more of 2\) did not converge: residual = .* n_iter = 3"
    ):
        keyword_rank(texts, max_iter=3, backend=backend)
    with pytest.raises(ConvergenceError) as caught:
        keyword_rank(texts, max_iter=3, backend=backend)
    assert (caught.value.group, caught.value.n_iter) == (1, 3)
    assert caught.value.residual > 1e-10
    with pytest.warns(RuntimeWarning, match="keyword_rank: text 1"):
        keyword_rank(texts, max_iter=3, on_nonconvergence="warn", backend=backend)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert keyword_rank(texts, max_iter=3, on_nonconvergence="ignore", backend=backend).n_iter.tolist() == [1, 3]


def test_the_error_is_within_the_stated_bound(backend: Any) -> None:
    text = zipf_text(500, 120, 7)
    truth = keyword_rank(text, tol=1e-14, backend="reference").scores
    for tol in (1e-2, 1e-4, 1e-8):
        loose = keyword_rank(text, tol=tol, backend=backend)
        assert loose.residual < tol
        assert np.abs(loose.scores - truth).sum() <= 0.85 / 0.15 * tol


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"tokens": "text"}, TypeError, "tokens must be token ids, got str; encode the text first"),
        ({"tokens": ["a", "b"]}, TypeError, "must be a list of token ids"),
        ({"tokens": [1.5, 2]}, TypeError, "must be a list of token ids"),
        ({"tokens": np.ones(3)}, TypeError, "tokens must be int64 or int32, got float64"),
        ({"tokens": np.ones((2, 2), np.int64)}, ValueError, "got 2 axes"),
        ({"tokens": [1, 2], "offsets": np.array([0, 2])}, ValueError, "offsets goes with flat tokens"),
        ({"tokens": np.array([1, 2]), "offsets": np.array([0, 3])}, ValueError, "the 2 tokens"),
        ({"tokens": [1], "window": 1}, ValueError, "window must be >= 2"),
        ({"tokens": [1], "window": 2.0}, TypeError, "window must be an int"),
        ({"tokens": [1], "damping": 1.0}, ValueError, "damping must be below 1"),
        ({"tokens": [1], "damping": float("nan")}, ValueError, "damping must be finite"),
        ({"tokens": [1], "tol": 0.0}, ValueError, "tol must be finite and > 0"),
        ({"tokens": [1], "max_iter": 0}, ValueError, "max_iter must be >= 1"),
        ({"tokens": [1], "threads": 0}, ValueError, "threads must be >= 1"),
        ({"tokens": [1], "keep": np.array([True, False])}, ValueError, r"keep as a mask must be \[1\]"),
        ({"tokens": [1], "keep": np.array([0.5])}, TypeError, "keep must be token ids or a bool mask, got float64"),
        ({"tokens": [1], "on_nonconvergence": "shrug"}, ValueError, "on_nonconvergence must be one of"),
        ({"tokens": [1], "backend": "triton"}, ValueError, "backend='triton' takes nothing"),
    ],
)
def test_bad_input_is_named(kwargs: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        keyword_rank(**kwargs)
