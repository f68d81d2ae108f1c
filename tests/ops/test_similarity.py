"""similarity_matrix: edge weights by hand, against plain formulas, in every layout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from rlsft_kernels import similarity_matrix
from tests.support.graphs import response_groups

pytestmark = pytest.mark.usefixtures("nan_in_fresh_memory")
BACKENDS = ("native", "reference")


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


# two orthogonal rows, one at 60 degrees to the first, one opposite, one zero
HAND = np.array([[1, 0], [0, 2], [0.5, math.sqrt(0.75)], [-3, 0], [0, 0]])
HAND_COSINE = np.array(
    [
        [0, 0, 0.5, -1, 0],
        [0, 0, math.sqrt(0.75), 0, 0],
        [0.5, math.sqrt(0.75), 0, -0.5, 0],
        [-1, 0, -0.5, 0, 0],
        [0, 0, 0, 0, 0],
    ]
)


@pytest.mark.parametrize(
    ("edge", "mapped"),
    [
        ("cosine", HAND_COSINE),
        ("shifted_cosine", (0.5 + 0.5 * HAND_COSINE) * (1 - np.eye(5))),
        ("relu_cosine", HAND_COSINE.clip(min=0)),
    ],
)
def test_edges_by_hand(edge: str, mapped: np.ndarray, backend: Any) -> None:
    np.testing.assert_allclose(similarity_matrix(HAND, edge=edge, backend=backend), mapped, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("m", [1, 2, 4, 5, 15, 16, 17, 65, 131])
@pytest.mark.parametrize("d", [1, 15, 16, 17, 384])
def test_cosines_of_every_padding(m: int, d: int, dtype: Any, backend: Any) -> None:
    rows = response_groups(1, m, d, seed=m * d, dtype=dtype)[0]
    got = similarity_matrix(rows, edge="cosine", backend=backend)
    exact = rows.astype(np.float64)
    unit = exact / np.linalg.norm(exact, axis=1, keepdims=True)
    truth = unit @ unit.T * (1 - np.eye(m))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, truth, atol=5e-7 if dtype == np.float32 else 1e-14, rtol=0)
    np.testing.assert_array_equal(got, got.T)
    assert np.abs(got).max() <= 1


def test_a_pair_has_the_same_bits_wherever_it_stands() -> None:
    a, b = response_groups(1, 2, 100)[0]
    alone = similarity_matrix(np.stack([a, b]), edge="cosine", backend="native")[0, 1]
    for i, j in ((0, 20), (3, 4), (7, 21), (19, 22), (21, 22)):
        rows = response_groups(1, 23, 100, seed=1)[0]
        rows[i], rows[j] = a, b
        assert similarity_matrix(rows, edge="cosine", backend="native")[i, j] == alone


def test_layouts_hold_the_same_blocks(backend: Any) -> None:
    groups = response_groups(4, 6, 10)
    batch = similarity_matrix(groups, backend=backend)
    flat = similarity_matrix(groups.reshape(24, 10), groups=np.arange(5) * 6, backend=backend)
    assert batch.shape == (4, 6, 6)
    np.testing.assert_array_equal(batch.reshape(-1), flat)
    np.testing.assert_array_equal(batch[2], similarity_matrix(groups[2], backend=backend))


def test_torch_in_torch_out(backend: Any) -> None:
    rows = torch.from_numpy(response_groups(1, 5, 8)[0])
    edges = similarity_matrix(rows, backend=backend)
    assert isinstance(edges, torch.Tensor)
    assert edges.dtype == torch.float32
    ids, offsets = torch.tensor([1, 2, 2, 3]), torch.tensor([0, 2, 4])
    words = similarity_matrix(tokens=ids, token_offsets=offsets, edge="word_overlap", backend=backend)
    assert isinstance(words, torch.Tensor)
    np.testing.assert_allclose(words, [[0, 1 / (2 * math.log(2))], [1 / (2 * math.log(2)), 0]], rtol=1e-15)


# {1,2,2}, {3,2,2}, {}, {3}, {9}: one word twice on both sides
TOKENS = [[1, 2, 2], [3, 2, 2], [], [3], [9]]


def test_word_overlap_by_hand(backend: Any) -> None:
    edges = similarity_matrix(tokens=TOKENS, edge="word_overlap", backend=backend)
    expected = np.zeros((5, 5))
    expected[0, 1] = expected[1, 0] = 1 / (2 * math.log(3))  # shares {2}
    expected[1, 3] = expected[3, 1] = 1 / math.log(3)  # shares {3}; log 1 = 0 on one side
    np.testing.assert_allclose(edges, expected, rtol=1e-15)
    multiset = similarity_matrix(tokens=TOKENS, edge="word_overlap", overlap="multiset", backend=backend)
    np.testing.assert_allclose(multiset[0, 1], 2 / (2 * math.log(3)), rtol=1e-15)


def test_bm25_by_hand(backend: Any) -> None:
    # N = 4; word 1 in one response, word 2 in three: idf_1 = log(3.5/1.5), idf_2 negative -> max(0, .25 * mean)
    tokens = [[1, 2], [2, 2], [2], [1, 1, 5]]
    idf = {1: math.log(2.5 / 2.5), 2: math.log(1.5 / 3.5), 5: math.log(3.5 / 1.5)}
    floor = max(0.0, 0.25 * sum(idf.values()) / 3)
    assert floor == 0.0
    edges = similarity_matrix(tokens=tokens, edge="bm25", backend=backend)
    np.testing.assert_allclose(edges, np.zeros((4, 4)), atol=1e-15)  # shared words weigh nothing here
    tokens = [[1, 2], [1, 1], [3], [4], [5, 6]]
    idf_1 = math.log(3.5 / 2.5)
    mean_length = 8 / 5
    length_norm = 1.2 * (1 - 0.75 + 0.75 * 2 / mean_length)
    edges = similarity_matrix(tokens=tokens, edge="bm25", backend=backend)
    np.testing.assert_allclose(edges[0, 1], idf_1 * 2 * 2.2 / (2 + length_norm), rtol=1e-14)
    np.testing.assert_allclose(edges[1, 0], 2 * idf_1 * 1 * 2.2 / (1 + length_norm), rtol=1e-14)
    assert edges[0, 1] != edges[1, 0]
    assert (edges[2:] == 0).all()


def test_a_frequent_word_gets_a_quarter_of_the_mean_idf(backend: Any) -> None:
    tokens = [[1, 2], [1, 3], [1, 4], [5, 6, 7, 8]]
    rare, frequent = math.log(3.5 / 1.5), math.log(1.5 / 3.5)
    floor = 0.25 * (7 * rare + frequent) / 8
    edges = similarity_matrix(tokens=tokens, edge="bm25", backend=backend)
    norm = 1.2 * (0.25 + 0.75 * 2 / 2.5)
    np.testing.assert_allclose(edges[0, 1], floor * 2.2 / (1 + norm), rtol=1e-14)


def test_token_forms_and_groups(backend: Any) -> None:
    nested = similarity_matrix(tokens=TOKENS, edge="bm25", groups=np.array([0, 2, 5]), backend=backend)
    ids = np.array([1, 2, 2, 3, 2, 2, 3, 9])
    offsets = np.array([0, 3, 6, 6, 7, 8])
    flat = similarity_matrix(
        tokens=ids, token_offsets=offsets, edge="bm25", groups=np.array([0, 2, 5]), backend=backend
    )
    assert nested.shape == (4 + 9,)
    np.testing.assert_array_equal(nested, flat)
    first = similarity_matrix(tokens=TOKENS[:2], edge="bm25", backend=backend)
    np.testing.assert_array_equal(nested[:4].reshape(2, 2), first)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({}, ValueError, "give either embeddings or tokens"),
        ({"embeddings": HAND, "tokens": TOKENS}, ValueError, "give either embeddings or tokens"),
        ({"embeddings": HAND, "edge": "bm25"}, ValueError, "edge must be one of 'cosine'"),
        ({"tokens": TOKENS}, ValueError, "edge must be one of 'word_overlap'"),
        ({"tokens": [[1.5]], "edge": "bm25"}, TypeError, r"tokens\[0\] must be a list of token ids"),
        ({"tokens": np.ones(3), "token_offsets": np.array([0, 3]), "edge": "bm25"}, TypeError, "must be int64"),
        ({"tokens": np.array([1, 2]), "token_offsets": np.array([0, 3]), "edge": "bm25"}, ValueError, "the 2 tokens"),
        ({"embeddings": np.array([[1, np.inf]])}, ValueError, r"embeddings\[0\] contains inf"),
    ],
)
def test_bad_input_is_named(kwargs: Any, error: Any, message: str, backend: Any) -> None:
    with pytest.raises(error, match=message):
        similarity_matrix(**kwargs, backend=backend)
