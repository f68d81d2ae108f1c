"""Text edges from token ids: the compiled core against the plain definition, corner case by corner case."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlsft_kernels import similarity_matrix, textrank
from rlsft_kernels.similarity import tokens as tokens_module

pytestmark = pytest.mark.usefixtures("nan_in_fresh_memory")
ROOT = Path(__file__).parents[2]
EDGES = (("word_overlap", "set"), ("word_overlap", "multiset"), ("bm25", "set"))


@pytest.fixture(params=("native", "reference"))
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def zipf_responses(m: int, longest: int, *, vocabulary: int = 300, seed: int = 0) -> list[list[int]]:
    """m seeded responses of 0 to `longest` words, some frequent and most rare, as in real text."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, vocabulary + 1)
    return [
        rng.choice(vocabulary, size=int(rng.integers(0, longest + 1)), p=share / share.sum()).tolist() for _ in range(m)
    ]


def both(responses: list[list[int]], edge: str, overlap: str, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
    native, reference = (
        np.asarray(similarity_matrix(tokens=responses, edge=edge, overlap=overlap, backend=backend, **kwargs))
        for backend in ("native", "reference")
    )
    return native, reference


# 32 is the last group that keeps every word in bits; beyond it rare words go through postings
@pytest.mark.parametrize("m", [1, 2, 7, 8, 9, 31, 32, 33, 65, 150])
@pytest.mark.parametrize(("edge", "overlap"), EDGES)
def test_native_equals_the_reference(m: int, edge: str, overlap: str) -> None:
    for longest, vocabulary in ((3, 5), (40, 300), (90, 64), (60, 5000)):
        responses = zipf_responses(m, longest, vocabulary=vocabulary, seed=m + longest)
        native, reference = both(responses, edge, overlap)
        if edge == "word_overlap":
            np.testing.assert_array_equal(native, reference)
        else:
            np.testing.assert_allclose(native, reference, rtol=1e-13, atol=0)


@pytest.mark.parametrize("shift", [0, 2**12 - 5, 2**18 - 100, 2**31, 2**62, -(2**62), -3])
@pytest.mark.parametrize(("edge", "overlap"), EDGES)
def test_ids_of_any_range_mean_the_same(shift: int, edge: str, overlap: str) -> None:
    responses = zipf_responses(40, 30)
    moved = [[word + shift for word in response] for response in responses]
    expected = similarity_matrix(tokens=responses, edge=edge, overlap=overlap, backend="native")
    np.testing.assert_array_equal(both(moved, edge, overlap)[0], expected)
    spread = [[word * 2**40 for word in response] for response in responses]  # equal low bits
    np.testing.assert_array_equal(both(spread, edge, overlap)[0], expected)
    # words of one hash chain differ in their high bits alone
    far = (np.random.default_rng(0).integers(-(2**55), 2**55, size=300) << 8).tolist()
    scattered = [[far[word] for word in response] for response in responses]
    np.testing.assert_array_equal(both(scattered, edge, overlap)[0], expected)


@pytest.mark.parametrize(("edge", "overlap"), EDGES)
def test_groups_and_threads_change_no_bit(edge: str, overlap: str) -> None:
    responses = zipf_responses(700, 40)
    groups = np.array([0, 0, 1, 17, 50, 600, 600, 700])
    options: dict[str, Any] = {"edge": edge, "overlap": overlap, "backend": "native"}
    flat = similarity_matrix(tokens=responses, groups=groups, threads=1, **options)
    blocks = [
        np.asarray(similarity_matrix(tokens=responses[a:b], threads=1, **options)).reshape(-1)
        for a, b in pairwise(groups)
    ]
    np.testing.assert_array_equal(flat, np.concatenate(blocks))
    np.testing.assert_array_equal(flat, similarity_matrix(tokens=responses, groups=groups, threads=3, **options))
    whole = similarity_matrix(tokens=responses, threads=1, **options)  # threads share the rows of one group
    np.testing.assert_array_equal(whole, similarity_matrix(tokens=responses, threads=3, **options))


@pytest.mark.parametrize(("edge", "overlap"), EDGES)
def test_responses_with_the_same_words_tie_exactly(edge: str, overlap: str) -> None:
    rng = np.random.default_rng(1)
    responses = zipf_responses(60, 40, seed=3)
    for twin in (5, 20, 59):
        responses[twin] = rng.permutation(responses[4]).tolist()
    edges, _ = both(responses, edge, overlap)
    others = np.setdiff1d(np.arange(60), [4, 5, 20, 59])
    for twin in (5, 20, 59):
        np.testing.assert_array_equal(edges[twin, others], edges[4, others])
        np.testing.assert_array_equal(edges[others, twin], edges[others, 4])
    scores = np.asarray(textrank(tokens=responses, edge=edge, overlap=overlap, backend="native").scores)
    assert len({scores[i] for i in (4, 5, 20, 59)}) == 1


@pytest.mark.parametrize(("edge", "overlap"), EDGES)
def test_one_word_on_both_sides_has_no_edge(edge: str, overlap: str, backend: Any) -> None:
    """log 1 + log 1 = 0: the division by zero that peers answer with nan, or with the overlap itself."""
    edges = np.asarray(similarity_matrix(tokens=[[7], [7], [7, 8]], edge=edge, overlap=overlap, backend=backend))
    assert np.isfinite(edges).all()
    if edge == "word_overlap":
        assert edges[0, 1] == 0
        assert edges[0, 2] == 1 / math.log(2)


@pytest.mark.parametrize(("edge", "overlap"), EDGES)
def test_an_empty_response_is_a_dangling_row(edge: str, overlap: str, backend: Any) -> None:
    tokens = [[1, 2, 3], [], [1, 2, 4], [9, 9], [5, 6]]
    edges = np.asarray(similarity_matrix(tokens=tokens, edge=edge, overlap=overlap, backend=backend))
    assert (edges[1] == 0).all()
    assert (edges[:, 1] == 0).all()
    scores = np.asarray(textrank(tokens=tokens, edge=edge, overlap=overlap, backend=backend).scores)
    # nothing points at it: (1-a)/n and its share of the mass D of all rows without edges, here 1, 3 and 4
    dangling = scores[[1, 3, 4]].sum()
    assert scores[1] == pytest.approx(0.15 / 5 + 0.85 * dangling / 5, abs=1e-9)
    assert scores[0] > scores[1]


@pytest.mark.parametrize(("edge", "overlap"), EDGES)
def test_no_shared_word_gives_the_teleport(edge: str, overlap: str, backend: Any) -> None:
    teleport = np.array([0.5, 0.25, 0.125, 0.125])
    for tokens in ([[1, 2], [3, 4], [5], []], [[], [], [], []]):
        result = textrank(tokens=tokens, edge=edge, overlap=overlap, teleport=teleport, backend=backend)
        np.testing.assert_allclose(result.scores, teleport, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("edge", "overlap"), EDGES)
def test_identical_responses_are_all_kept_with_equal_scores(edge: str, overlap: str, backend: Any) -> None:
    for n in (2, 3, 40):
        scores = textrank(tokens=[[4, 5, 6]] * n, edge=edge, overlap=overlap, backend=backend).scores
        np.testing.assert_array_equal(scores, np.full(n, np.asarray(scores)[0]))
        np.testing.assert_allclose(scores, np.full(n, 1 / n), atol=1e-12)


def test_set_and_multiset_by_hand_beyond_the_bit_rows(backend: Any) -> None:
    # 70 responses; words 1 and 2 are shared by the first two alone, so they are rare and counted through postings
    tokens = [[1, 1, 1, 2], [1, 1, 2, 2, 3], *([[10 + i, 9] for i in range(68)])]
    denominator = math.log(4) + math.log(5)
    kwargs: dict[str, Any] = {"tokens": tokens, "edge": "word_overlap", "backend": backend}
    assert np.asarray(similarity_matrix(**kwargs))[0, 1] == 2 / denominator
    assert np.asarray(similarity_matrix(**kwargs, overlap="multiset"))[0, 1] == 3 / denominator
    assert np.asarray(similarity_matrix(**kwargs))[2, 69] == 1 / (2 * math.log(2))


def test_every_kind_of_tokens_is_read_alike() -> None:
    responses = zipf_responses(20, 20)
    options: dict[str, Any] = {"edge": "word_overlap", "backend": "native"}
    expected = similarity_matrix(tokens=responses, **options)
    ids = np.array([word for response in responses for word in response])
    offsets = np.concatenate([[0], np.cumsum([len(response) for response in responses])])
    for dtype in (np.int64, np.int32):
        flat = ids.astype(dtype)
        np.testing.assert_array_equal(similarity_matrix(tokens=flat, token_offsets=offsets, **options), expected)
        tensor = similarity_matrix(tokens=torch.from_numpy(flat), token_offsets=torch.from_numpy(offsets), **options)
        np.testing.assert_array_equal(tensor, expected)
    strided = np.repeat(ids, 2)[::2]
    np.testing.assert_array_equal(similarity_matrix(tokens=strided, token_offsets=offsets, **options), expected)
    for rows in (
        [tuple(response) for response in responses],
        tuple(responses),
        [np.array(response, dtype=np.int64) for response in responses],
        [[np.int64(word) for word in response] for response in responses],
    ):
        np.testing.assert_array_equal(similarity_matrix(tokens=rows, **options), expected)


@pytest.mark.parametrize(
    "rows", [[[1.5]], [["a"]], ["ab"], [[True]], [[1], None], [[2**63]], [[[1, 2]]], [[1, None]]], ids=str
)
def test_what_is_no_list_of_ids_is_named(rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"tokens\[\d\] must be a list of token ids"):
        tokens_module.flatten(rows)
    monkeypatch.setattr(tokens_module, "native_status", lambda: (False, "switched off"))
    with pytest.raises(TypeError, match=r"tokens\[\d\] must be a list of token ids"):
        tokens_module.flatten(rows)


def test_lists_are_read_alike_without_the_compiled_core(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[1, 2, 3], [], (4, -(2**63), 2**63 - 1), [2**40]]
    with_core = tokens_module.flatten(rows)
    monkeypatch.setattr(tokens_module, "native_status", lambda: (False, "switched off"))
    for got, expected in zip(tokens_module.flatten(rows), with_core, strict=True):
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, expected)
    assert [len(part) for part in tokens_module.flatten([])] == [0, 1]


PRINT_HASHES = """
import hashlib, numpy as np
from rlsft_kernels import _C, similarity_matrix
from tests.ops.test_text_textrank_edges import EDGES, zipf_responses
print(_C.cpu_isa())
for m in (5, 16, 33, 120):
    for edge, overlap in EDGES:
        edges = similarity_matrix(tokens=zipf_responses(m, 60), edge=edge, overlap=overlap, backend="native")
        print(hashlib.sha256(np.asarray(edges).tobytes()).hexdigest())
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    found = {}
    for isa in ("scalar", "avx2", "avx512"):
        done = subprocess.run(
            [sys.executable, "-c", PRINT_HASHES],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "RLSFT_ISA": isa, "PYTHONPATH": os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])},
            check=False,
        )
        if done.returncode != 0:
            assert "is not supported by this CPU" in done.stderr, done.stderr
            continue
        used, *hashes = done.stdout.split()
        assert used == isa
        found[isa] = hashes
    assert len(found["scalar"]) == 12
    assert all(hashes == found["scalar"] for hashes in found.values())
