"""bleu_scores, gleu_scores, rouge_l_scores, self_bleu_groups: the values of nltk and rouge_score on token ids."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from rlsft_kernels import bleu_scores, gleu_scores, rouge_l_scores, self_bleu_groups

pytestmark = pytest.mark.usefixtures("nan_in_fresh_memory")
SMOOTHINGS = ("none", "method1", "method3", "method4")
Text = list[int]


@pytest.fixture(params=("native", "reference"))
def backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def random_text(rng: np.random.Generator, longest: int) -> Text:
    return rng.integers(0, 12, size=int(rng.integers(0, longest + 1))).tolist()


def noisy_copy(rng: np.random.Generator, text: Text) -> Text:
    return [int(rng.integers(0, 12)) if rng.random() < 0.2 else word for word in text if rng.random() > 0.1]


def cases(count: int = 120, longest: int = 35, references: int = 3) -> tuple[list[Text], list[list[Text]]]:
    """Hypotheses with 1 to 3 references: damaged copies, unrelated texts, short and empty ones."""
    rng = np.random.default_rng(0)
    hypotheses, all_references = [], []
    for i in range(count):
        first = random_text(rng, 4 if i % 4 == 0 else longest)
        others = [random_text(rng, longest) for _ in range(int(rng.integers(0, references)))]
        hypotheses.append(noisy_copy(rng, first) if i % 3 else random_text(rng, 5))
        all_references.append([first, *others])
    hypotheses[1], all_references[2][0] = [], []
    return hypotheses, all_references


def words(text: Text) -> list[str]:
    return [str(word) for word in text]


def nltk_bleu(hypothesis: Text, references: list[Text], smoothing: str, max_order: int = 4) -> float:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    method = getattr(SmoothingFunction(), "method0" if smoothing == "none" else smoothing)
    weights = (1 / max_order,) * max_order
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # method0 warns about every order without a match
        return float(
            sentence_bleu([words(r) for r in references], words(hypothesis), weights, smoothing_function=method)
        )


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_bleu_equals_nltk(smoothing: str, backend: Any) -> None:
    hypotheses, references = cases()
    scores = bleu_scores(hypotheses, references, smoothing=smoothing, backend=backend)
    expected = [nltk_bleu(h, r, smoothing) for h, r in zip(hypotheses, references, strict=True)]
    assert len(set(expected)) > 60
    np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("max_order", [1, 2, 3, 6])
def test_other_orders_equal_nltk(max_order: int, backend: Any) -> None:
    hypotheses, references = cases(60)
    scores = bleu_scores(hypotheses, references, max_order=max_order, backend=backend)
    expected = [nltk_bleu(h, r, "method3", max_order) for h, r in zip(hypotheses, references, strict=True)]
    np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("orders", [(1, 4), (2, 3), (1, 1), (3, 6)])
def test_gleu_equals_nltk(orders: tuple[int, int], backend: Any) -> None:
    from nltk.translate.gleu_score import sentence_gleu

    hypotheses, references = cases()
    scores = gleu_scores(hypotheses, references, min_order=orders[0], max_order=orders[1], backend=backend)
    expected = [sentence_gleu(r, h, *orders) for h, r in zip(hypotheses, references, strict=True)]
    np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=0)


class SplitAtSpaces:
    def tokenize(self, text: str) -> list[str]:
        return text.split()


# 63 to 130: around the 64 words that one machine word of the bit-parallel algorithm holds
@pytest.mark.parametrize("longest", [5, 35, 63, 64, 65, 130, 300])
def test_rouge_l_equals_rouge_score(longest: int, backend: Any) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], tokenizer=SplitAtSpaces())
    hypotheses, references = cases(24 if longest > 100 else 60, longest)
    got = rouge_l_scores(hypotheses, references, backend=backend)
    for i, (hypothesis, refs) in enumerate(zip(hypotheses, references, strict=True)):
        each = [scorer.score(" ".join(words(r)), " ".join(words(hypothesis)))["rougeL"] for r in refs]
        best = max(each, key=lambda score: score.fmeasure)
        expected = (best.precision, best.recall, best.fmeasure)
        assert (got.precision[i], got.recall[i], got.f1[i]) == pytest.approx(expected, abs=1e-12)


def test_rouge_l_of_full_machine_words(backend: Any) -> None:
    for length in (63, 64, 65, 127, 128, 129, 200):
        text = list(range(length))
        got = rouge_l_scores([text, text, text], [text, text[1:], text[::-1]], backend=backend)
        np.testing.assert_allclose(got.precision, [1, (length - 1) / length, 1 / length], rtol=1e-15)


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_self_bleu_equals_nltk_on_all_others(smoothing: str, backend: Any) -> None:
    rng = np.random.default_rng(1)
    base = [*random_text(rng, 40), 1, 2, 3, 4, 5]
    sizes = (6, 1, 0, 2, 12)
    groups = np.cumsum([0, *sizes])
    texts = [noisy_copy(rng, base) if i % 3 else random_text(rng, 9) for i in range(groups[-1])]
    texts[2] = []
    texts[15] = list(texts[14])
    scores = self_bleu_groups(texts, groups=groups, smoothing=smoothing, backend=backend)
    for begin, end in pairwise(groups):
        group = texts[begin:end]
        for i, text in enumerate(group):
            others = group[:i] + group[i + 1 :]
            if not others:
                assert math.isnan(scores[begin + i])
                continue
            expected = nltk_bleu(text, others, smoothing)
            assert scores[begin + i] == pytest.approx(expected, rel=1e-12, abs=0), (begin, i)


def test_self_bleu_of_repeated_words_takes_the_largest_other_count(backend: Any) -> None:
    # 1 occurs 3, 2 and 2 times: the first text matches 2 of its 3, the others all of theirs
    scores = self_bleu_groups([[1, 1, 1, 9], [1, 1, 8, 8], [1, 1, 7, 7]], max_order=1, backend=backend)
    np.testing.assert_allclose(scores, [2 / 4, 2 / 4, 2 / 4])
    scores = self_bleu_groups([[1, 1, 1, 9], [1, 1, 1, 1]], max_order=1, backend=backend)
    np.testing.assert_allclose(scores, [3 / 4, 3 / 4])


def test_native_equals_the_reference_on_ids_of_any_range() -> None:
    hypotheses, references = cases(80)
    names = np.random.default_rng(0).integers(-(2**62), 2**62, size=12).tolist()
    renamed = [[names[word] for word in text] for text in hypotheses]
    renamed_references = [[[names[word] for word in text] for text in group] for group in references]
    for op in (bleu_scores, gleu_scores, rouge_l_scores):
        native = np.asarray(op(hypotheses, references, backend="native"))
        np.testing.assert_allclose(native, np.asarray(op(hypotheses, references, backend="reference")), rtol=1e-14)
        np.testing.assert_array_equal(native, np.asarray(op(renamed, renamed_references, backend="native")))


def test_every_layout_and_any_threads_give_the_same_bits() -> None:
    rng = np.random.default_rng(5)
    hypotheses = [random_text(rng, 60) for _ in range(2000)]
    references = [noisy_copy(rng, text) for text in hypotheses]
    ids = np.array([word for text in hypotheses for word in text])
    offsets = np.cumsum([0, *map(len, hypotheses)])
    reference_ids = torch.tensor([word for text in references for word in text], dtype=torch.int32)
    reference_offsets = torch.tensor(np.cumsum([0, *map(len, references)]))
    for op in (bleu_scores, gleu_scores, rouge_l_scores):
        expected = np.asarray(op(hypotheses, references, threads=1, backend="native"))
        flat = op(
            ids,
            reference_ids,
            hypothesis_offsets=offsets,
            reference_offsets=reference_offsets,
            threads=3,
            backend="native",
        )
        np.testing.assert_array_equal(np.asarray(flat), expected)
        nested = op(hypotheses, [[text] for text in references], backend="native")
        np.testing.assert_array_equal(np.asarray(nested), expected)
        grouped = op(hypotheses, references, reference_groups=np.arange(2001), backend="native")
        np.testing.assert_array_equal(np.asarray(grouped), expected)
    groups = np.arange(0, 2001, 20)
    one = self_bleu_groups(ids, token_offsets=offsets, groups=groups, threads=1, backend="native")
    np.testing.assert_array_equal(self_bleu_groups(hypotheses, groups=groups, threads=3, backend="native"), one)


def test_torch_in_torch_out(backend: Any) -> None:
    ids, offsets = torch.tensor([1, 2, 3, 1, 2]), torch.tensor([0, 3, 5])
    kwargs: dict[str, Any] = {"hypothesis_offsets": offsets, "backend": backend}
    for op in (bleu_scores, gleu_scores):
        scores = op(ids, [[1, 2, 3], [2, 1]], **kwargs)
        assert isinstance(scores, torch.Tensor)
        assert scores.dtype == torch.float64
        assert scores.shape == (2,)
    assert all(isinstance(part, torch.Tensor) for part in rouge_l_scores(ids, [[1], [2]], **kwargs))
    assert isinstance(self_bleu_groups(ids, token_offsets=offsets, backend=backend), torch.Tensor)


def test_nothing_to_compare_scores_zero(backend: Any) -> None:
    empty: list[Text] = []
    assert bleu_scores(empty, empty, backend=backend).shape == (0,)
    assert rouge_l_scores(empty, empty, backend=backend).f1.shape == (0,)
    assert self_bleu_groups(empty, backend=backend).shape == (0,)
    hypotheses, references = [[1, 2], [], [], [1, 2]], [[], [1, 2], [], [3, 4]]
    for op in (bleu_scores, gleu_scores, rouge_l_scores):
        assert (np.asarray(op(hypotheses, references, backend=backend)) == 0).all()
        # one hypothesis without any reference
        none = op([[1, 2], [1, 2]], [[1, 2]], reference_groups=np.array([0, 0, 1]), backend=backend)
        np.testing.assert_allclose(np.asarray(none)[..., 0], 0)
        assert (np.asarray(none)[..., 1] > 0.5).all()


def test_a_permutation_of_the_vocabulary_or_of_the_references_changes_nothing(backend: Any) -> None:
    hypotheses, references = cases(40)
    order = np.random.default_rng(0).permutation(12).tolist()
    moved = [[order[word] for word in text] for text in hypotheses]
    moved_references = [[[order[word] for word in text] for text in group][::-1] for group in references]
    for op in (bleu_scores, gleu_scores):
        np.testing.assert_allclose(
            op(moved, moved_references, backend=backend), op(hypotheses, references, backend=backend), rtol=1e-15
        )


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"hypotheses": [[1]], "references": [[1], [2]]}, ValueError, "one for each of the 1 hypotheses, got 2"),
        ({"hypotheses": ["a b"], "references": [[1]]}, TypeError, r"hypotheses\[0\] must be a list of token ids"),
        ({"hypotheses": [[1]], "references": [[1.5]]}, TypeError, r"references\[0\] must be a list of token ids"),
        ({"hypotheses": np.array([1])}, ValueError, "hypothesis_offsets is needed to cut flat hypotheses"),
        ({"references": np.array([1])}, ValueError, "reference_offsets is needed to cut flat references"),
        ({"reference_offsets": np.array([0, 1])}, ValueError, "reference_offsets goes with flat references"),
        (
            {"hypotheses": np.array([1.0]), "hypothesis_offsets": np.array([0, 1])},
            TypeError,
            "hypotheses must be int64 or int32, got float64",
        ),
        (
            {"hypotheses": np.array([1]), "hypothesis_offsets": np.array([0, 2])},
            ValueError,
            "hypothesis_offsets must start at 0 and end at the 1 tokens of hypotheses",
        ),
        ({"reference_groups": np.array([0, 2])}, ValueError, "reference_groups must start at 0 and end at the 1"),
        ({"reference_groups": np.array([0, 0, 1])}, ValueError, "a group for each of the 1 hypotheses, got 2 groups"),
        (
            {"references": [[[1]]], "reference_groups": np.array([0, 1])},
            ValueError,
            "reference_groups goes with a flat list",
        ),
        ({"max_order": 0}, ValueError, "max_order must be >= 1"),
        ({"smoothing": "method2"}, ValueError, "smoothing must be one of 'none', 'method1', 'method3', 'method4'"),
        ({"threads": 0}, ValueError, "threads must be >= 1"),
        ({"backend": "triton"}, ValueError, "backend='triton' takes nothing"),
    ],
)
def test_bad_input_is_named(kwargs: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        bleu_scores(**{"hypotheses": [[1]], "references": [[1]]} | kwargs)


def test_orders_of_gleu_must_rise() -> None:
    with pytest.raises(ValueError, match="max_order must be at least min_order = 3, got 2"):
        gleu_scores([[1]], [[1]], min_order=3, max_order=2)
