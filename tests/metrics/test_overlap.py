"""Overlap metrics: the values of the libraries, the corner cases value by value, Japanese, empty texts."""

from __future__ import annotations

import itertools
import random
import warnings

import pytest

from rlsft.errors import ConfigError
from rlsft.metrics import (
    corpus_bleu,
    corpus_chrf,
    exact_match,
    overlap,
    rouge_l,
    sentence_bleu,
    sentence_chrf,
    sentence_gleu,
    sentence_sacrebleu,
    token_f1,
)
from rlsft.metrics.overlap import SACREBLEU_TOKENIZER

WORDS = tuple("the cat sat on a red mat while two dogs ran off to find some food in town".split())  # noqa: SIM905
JAPANESE = ("今日はとても良い天気ですね。", "今日はとてもいい天気ですね。")


def noisy_pairs(count: int = 60) -> list[tuple[str, str]]:
    """Seeded sentences and damaged copies of them: words dropped and replaced."""
    rng = random.Random(0)
    pairs = []
    for _ in range(count):
        reference = [rng.choice(WORDS) for _ in range(rng.randint(6, 30))]
        kept = [rng.choice(WORDS) if rng.random() < 0.15 else word for word in reference if rng.random() > 0.1]
        pairs.append((" ".join(reference), " ".join(kept or reference[:1])))
    return pairs


# reference, hypothesis, nltk none / method1 / method3 / method4, sacrebleu effective / plain, GLEU, ROUGE-L: what the
# libraries themselves give. Short answers are where they disagree, and unsmoothed nltk is tiny, not 0.
CORNERS = [
    ("a b c", "a b c", 1.2e-77, 0.562, 0.841, 0.576, 1.0, 0.0, 1.0, 1.0),
    ("a b c d", "a b c d", 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    ("cat", "cat", 1.8e-231, 0.178, 0.354, 1.0, 1.0, 0.0, 1.0, 1.0),
    ("the cat sat down", "the dog ran off", 1.3e-231, 0.0803, 0.16, 0.061, 0.16, 0.16, 0.1, 0.25),
    ("", "a b c d", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    ("a b c d", "", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    ("", "", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize("case", CORNERS, ids=lambda case: f"{case[0] or 'empty'}|{case[1] or 'empty'}")
def test_short_answers_score_what_the_libraries_give_them(case: tuple) -> None:
    reference, hypothesis, *bleus, effective, plain, gleu, rouge = case
    for smoothing, expected in zip(("none", "method1", "method3", "method4"), bleus, strict=True):
        value = sentence_bleu(reference, hypothesis, smoothing=smoothing)
        assert value == pytest.approx(expected, rel=0.06, abs=0.0), smoothing
        assert value == pytest.approx(expected, abs=6e-4), smoothing
    assert sentence_sacrebleu(reference, hypothesis) == pytest.approx(effective, abs=6e-4)
    assert sentence_sacrebleu(reference, hypothesis, effective_order=False) == pytest.approx(plain, abs=6e-4)
    assert sentence_gleu(reference, hypothesis) == pytest.approx(gleu, abs=1e-12)
    assert rouge_l(reference, hypothesis) == pytest.approx(rouge, abs=1e-12)


@pytest.mark.parametrize("smoothing", ["none", "method1", "method3", "method4"])
def test_bleu_equals_nltk(smoothing: str) -> None:
    from nltk.translate.bleu_score import SmoothingFunction
    from nltk.translate.bleu_score import sentence_bleu as nltk_bleu

    method = getattr(SmoothingFunction(), "method0" if smoothing == "none" else smoothing)
    for reference, hypothesis in noisy_pairs():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # method0 warns about every missing n-gram
            expected = nltk_bleu([reference.split()], hypothesis.split(), smoothing_function=method)
        assert sentence_bleu(reference, hypothesis, smoothing=smoothing) == pytest.approx(expected, abs=1e-12)  # type: ignore[arg-type]


def test_method3_equals_sacrebleu_exponential_smoothing_on_plain_tokens() -> None:
    from sacrebleu.metrics import BLEU

    metric = BLEU(smooth_method="exp", tokenize="none", effective_order=True)
    for reference, hypothesis in noisy_pairs():
        expected = metric.sentence_score(hypothesis, [reference]).score / 100
        assert sentence_bleu(reference, hypothesis) == pytest.approx(expected, abs=1e-12)
        assert sentence_sacrebleu(reference, hypothesis, tokenize="none") == pytest.approx(expected, abs=1e-12)


def test_method1_equals_sacrebleu_floor_smoothing_on_plain_tokens() -> None:
    from sacrebleu.metrics import BLEU

    metric = BLEU(smooth_method="floor", smooth_value=0.1, tokenize="none")
    for reference, hypothesis in noisy_pairs():
        expected = metric.sentence_score(hypothesis, [reference]).score / 100
        assert sentence_bleu(reference, hypothesis, smoothing="method1") == pytest.approx(expected, abs=1e-12)


def test_corpus_bleu_on_plain_tokens_equals_nltk() -> None:
    from nltk.translate.bleu_score import corpus_bleu as nltk_corpus_bleu

    pairs = noisy_pairs()
    references = [[reference, other] for (reference, _), (other, _) in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    hypotheses = [hypothesis for _, hypothesis in pairs]
    split = [[text.split() for text in row] for row in references]
    expected = nltk_corpus_bleu(split, [hypothesis.split() for hypothesis in hypotheses])
    ours = corpus_bleu(references, hypotheses, tokenize="none")
    assert ours.score / 100 == pytest.approx(expected, abs=1e-12)
    assert "tok:none" in ours.signature


def test_tokenisation_moves_bleu() -> None:
    """13a cuts marks off words, splitting at spaces does not: a number without its tokenizer says little."""
    reference, hypothesis = "the cat sat on the mat, didn't it?", "the cat sat on the mat , didn't it ?"
    assert sentence_sacrebleu(reference, hypothesis) == pytest.approx(1.0)
    assert sentence_sacrebleu(reference, hypothesis, tokenize="none") < 0.7


def test_gleu_equals_nltk_with_several_references() -> None:
    from nltk.translate.gleu_score import sentence_gleu as nltk_gleu

    pairs = noisy_pairs()
    for (reference, hypothesis), (other, _) in itertools.pairwise(pairs):
        expected = nltk_gleu([reference.split(), other.split()], hypothesis.split())
        assert sentence_gleu([reference, other], hypothesis) == pytest.approx(expected, abs=1e-12)


def test_own_rouge_l_equals_rouge_score(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    extra = [("Don't stop, Mr. O'Neil!", "dont STOP mister oneil"), ("café au lait 42", "cafe au lait 42!")]
    pairs = noisy_pairs() + extra
    with_library = [rouge_l(reference, hypothesis) for reference, hypothesis in pairs]
    monkeypatch.setattr(overlap, "_rouge_scorer", lambda: None)
    for (reference, hypothesis), first in zip(pairs, with_library, strict=True):
        expected = scorer.score(reference, hypothesis)["rougeL"].fmeasure
        assert first == pytest.approx(expected, abs=1e-12)
        assert rouge_l(reference, hypothesis) == pytest.approx(expected, abs=1e-12)


def test_best_reference_counts() -> None:
    references = ["something else entirely", "the cat sat on the mat"]
    hypothesis = "the cat sat on the mat"
    for metric in (sentence_bleu, sentence_gleu, rouge_l, exact_match, token_f1, sentence_chrf, sentence_sacrebleu):
        assert metric(references, hypothesis) == pytest.approx(1.0), metric.__name__
        assert metric(references[:1], hypothesis) < 0.5, metric.__name__


@pytest.mark.parametrize(
    "metric", [sentence_bleu, sentence_sacrebleu, sentence_gleu, rouge_l, exact_match, token_f1, sentence_chrf]
)
def test_an_empty_side_scores_zero(metric) -> None:
    for references in ("", [], [""], ["", "  "]):
        assert metric(references, "a b c d e") == 0.0
    assert metric("a b c d e", "") == 0.0
    assert metric("a b c d e", " \n") == 0.0
    assert metric(["", "a b c d e"], "a b c d e") == pytest.approx(1.0)


def test_a_near_identical_japanese_pair_does_not_score_zero() -> None:
    from nltk.translate.bleu_score import sentence_bleu as nltk_bleu

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split_at_spaces = nltk_bleu([JAPANESE[0].split()], JAPANESE[1].split())
    assert split_at_spaces < 1e-100  # what the character tokens are for
    assert 0.6 < sentence_bleu(*JAPANESE, language="ja", smoothing="none") < 0.95
    assert 0.6 < sentence_gleu(*JAPANESE, language="ja") < 0.95
    assert rouge_l(*JAPANESE, language="ja") == pytest.approx(2 * 13 / 28)  # 13 of 14 characters in order
    assert token_f1(*JAPANESE, language="ja") == pytest.approx(2 * 12 / 26)  # without the full stops
    assert exact_match("はい。", "はい", language="ja") == 1.0
    assert 50 < corpus_bleu([JAPANESE[0]], [JAPANESE[1]], language="ja").score < 95
    assert 0.4 < sentence_bleu("今天天气很好。", "今天天气真好。", language="zh") < 0.95


def test_f1_is_never_below_exact_match() -> None:
    rng = random.Random(1)
    pieces = ["the", "a", "an", "Cat", "cat", "!", "?", "dog", "", "  ", "it's", "its"]
    for _ in range(400):
        first, second = (" ".join(rng.choice(pieces) for _ in range(rng.randint(0, 4))) for _ in range(2))
        for language in ("en", "ja"):
            assert token_f1(first, second, language=language) >= exact_match(first, second, language=language)


def test_squad_normalisation_by_hand() -> None:
    assert exact_match("The Cat!", "cat") == 1.0
    assert exact_match("the", "a") == 0.0  # articles alone stay, or these two would be equal
    assert exact_match("the", "The") == 1.0
    # {red, cat, sat} against {cat, sat, down, now}: 2 common, P = 2/4, R = 2/3
    assert token_f1("a red cat sat", "the cat sat down now") == pytest.approx(2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3))


def test_corpus_scores_are_sacrebleu_with_signature() -> None:
    import sacrebleu

    pairs = noisy_pairs()
    references, hypotheses = [r for r, _ in pairs], [h for _, h in pairs]
    bleu, chrf = corpus_bleu(references, hypotheses), corpus_chrf(references, hypotheses)
    assert bleu.score == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references]).score)
    assert chrf.score == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references]).score)
    assert "tok:13a" in bleu.signature
    assert f"version:{sacrebleu.__version__}" in bleu.signature
    assert f"tok:{SACREBLEU_TOKENIZER['ja']}" in corpus_bleu([JAPANESE[0]], [JAPANESE[1]], language="ja").signature


def test_corpus_scores_take_rows_with_different_numbers_of_references() -> None:
    score = corpus_bleu(
        [["the cat sat on the mat", "a cat sat on a mat"], "hello my old friend"],
        ["a cat sat on a mat", "hello my old friend"],
    )
    assert score.score == pytest.approx(100.0)
    assert "nrefs:var" in score.signature


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ConfigError, match="smoothing must be one of none, method1, method3, method4, got 'method9'"):
        sentence_bleu("a", "a", smoothing="method9")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="got 1 and 2"):
        corpus_bleu(["a"], ["a", "b"])
    with pytest.raises(ConfigError, match="language must be one of en, ja, zh, got 'jp'"):
        rouge_l("a", "a", language="jp")
