"""Overlap of an answer with its references: BLEU, GLEU, chrF, ROUGE-L, exact match and token F1.

Every function takes one reference or several. An empty text on either side scores 0. Words come from
`rlsft.text.split_words`, so Japanese and Chinese are compared by characters, where splitting at spaces would
see one word a sentence and score a near-identical pair 0.
"""

from __future__ import annotations

import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any, Literal

from rlsft.errors import ConfigError
from rlsft.text import check_language, split_words

References = str | Sequence[str]
Smoothing = Literal["none", "method1", "method3", "method4"]

# sacrebleu's own tokenizer per language; "char" because its Japanese one needs MeCab.
SACREBLEU_TOKENIZER = {"en": "13a", "ja": "char", "zh": "zh"}


@dataclass(frozen=True)
class CorpusScore:
    """A corpus score from sacrebleu in per cent, with the signature that makes it comparable."""

    score: float
    signature: str


def sentence_bleu(
    references: References, hypothesis: str, *, language: str = "en", smoothing: Smoothing = "method3"
) -> float:
    """BLEU-4 of one answer, 0 to 1: `nltk.translate.bleu_score.sentence_bleu` on `split_words` tokens.

    `smoothing` is nltk's name (Chen and Cherry 2014). "none" gives tiny numbers, not 0, where an n-gram order
    has no match, and short answers always lack one: report it beside "method3".
    """
    from nltk.translate.bleu_score import sentence_bleu as nltk_bleu

    reference_words, words = _tokens(references, hypothesis, language)
    if not reference_words or not words:
        return 0.0
    return float(nltk_bleu(reference_words, words, smoothing_function=_smoothing_function(smoothing)))


def sentence_sacrebleu(
    references: References,
    hypothesis: str,
    *,
    language: str = "en",
    tokenize: str | None = None,
    effective_order: bool = True,
) -> float:
    """sacrebleu's sentence BLEU (exponential smoothing) of one answer, 0 to 1.

    `tokenize` None is the language's own: 13a (en), char (ja), zh; on "none" (split at spaces) the value is
    nltk's "method3" for answers of four words or more. `effective_order` leaves out n-gram orders that a short
    answer cannot have; without it they make the score 0.
    """
    listed = [reference for reference in _listed(references) if reference.strip()]
    if not listed or not hypothesis.strip():
        return 0.0
    tokenizer = SACREBLEU_TOKENIZER[check_language(language)] if tokenize is None else tokenize
    return float(_sentence_bleu_metric(tokenizer, effective_order).sentence_score(hypothesis, listed).score / 100.0)


def sentence_gleu(references: References, hypothesis: str, *, language: str = "en") -> float:
    """Google-BLEU of one answer, 0 to 1: nltk's `sentence_gleu`, n-grams of 1 to 4 (arXiv 1609.08144).

    Not the grammar-correction metric of the same name, nor the parser-based fluency score that arXiv
    2402.18284 cites.
    """
    from nltk.translate.gleu_score import sentence_gleu as nltk_gleu

    reference_words, words = _tokens(references, hypothesis, language)
    return float(nltk_gleu(reference_words, words)) if reference_words and words else 0.0


def rouge_l(references: References, hypothesis: str, *, language: str = "en") -> float:
    """ROUGE-L F1 of the best reference, 0 to 1, without stemming.

    `2PR / (P + R)` with P and R the longest common subsequence over the length of the answer and of the
    reference. English uses rouge_score where it is installed and the same rule otherwise (lower case, letters
    and digits only); Japanese and Chinese use `split_words` tokens, which rouge_score would drop.
    """
    scorer = _rouge_scorer() if check_language(language) == "en" else None
    if scorer is not None:
        scores = [scorer.score(reference, hypothesis)["rougeL"].fmeasure for reference in _listed(references)]
    else:
        words = _rouge_words(hypothesis, language)
        scores = [_lcs_f1(_rouge_words(reference, language), words) for reference in _listed(references)]
    return float(max(scores, default=0.0))


def exact_match(references: References, hypothesis: str, *, language: str = "en") -> float:
    """1 when the answer is a reference after SQuAD's normalisation (case, punctuation, articles), else 0."""
    words = _answer_words(hypothesis, language)
    return float(any(words and words == _answer_words(reference, language) for reference in _listed(references)))


def token_f1(references: References, hypothesis: str, *, language: str = "en") -> float:
    """F1 of the normalised words with the best reference (SQuAD), 0 to 1; never below `exact_match`."""
    words = Counter(_answer_words(hypothesis, language))
    scores = []
    for reference in _listed(references):
        reference_words = Counter(_answer_words(reference, language))
        common = (words & reference_words).total()
        scores.append(2 * common / (words.total() + reference_words.total()) if common else 0.0)
    return max(scores, default=0.0)


def corpus_bleu(
    references: Sequence[References],
    hypotheses: Sequence[str],
    *,
    language: str = "en",
    tokenize: str | None = None,
) -> CorpusScore:
    """sacrebleu's corpus BLEU in per cent, with its signature.

    `tokenize` None is the language's own: 13a (en), char (ja), zh; "none" splits at spaces and gives nltk's
    corpus BLEU of the same words.
    """
    from sacrebleu.metrics import BLEU

    tokenizer = SACREBLEU_TOKENIZER[check_language(language)] if tokenize is None else tokenize
    return _corpus_score(BLEU(tokenize=tokenizer), references, hypotheses)


def corpus_chrf(references: Sequence[References], hypotheses: Sequence[str], *, language: str = "en") -> CorpusScore:
    """sacrebleu's corpus chrF2 in per cent, with its signature; character n-grams need no tokenizer."""
    from sacrebleu.metrics import CHRF

    check_language(language)
    return _corpus_score(CHRF(), references, hypotheses)


def sentence_chrf(references: References, hypothesis: str) -> float:
    """sacrebleu's chrF2 of one answer against its best reference, 0 to 1."""
    listed = [reference for reference in _listed(references) if reference.strip()]
    if not listed or not hypothesis.strip():
        return 0.0
    return _sentence_chrf_metric().sentence_score(hypothesis, listed).score / 100.0


@lru_cache(maxsize=8)
def _sentence_bleu_metric(tokenize: str, effective_order: bool) -> Any:
    """Kept from call to call: building it costs three times the scoring of a pair."""
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenize, effective_order=effective_order)


@lru_cache(maxsize=1)
def _sentence_chrf_metric() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


def _corpus_score(metric: Any, references: Sequence[References], hypotheses: Sequence[str]) -> CorpusScore:
    if len(references) != len(hypotheses) or not hypotheses:
        raise ConfigError(
            f"references and hypotheses must pair up and not be empty, got {len(references)} and {len(hypotheses)}"
        )
    listed = [_listed(row) or [""] for row in references]
    # sacrebleu wants one stream per reference position; None says that a row has fewer.
    streams = [[row[i] if i < len(row) else None for row in listed] for i in range(max(len(row) for row in listed))]
    score = metric.corpus_score(list(hypotheses), streams).score
    return CorpusScore(float(score), str(metric.get_signature()))


def _listed(references: References) -> list[str]:
    return [references] if isinstance(references, str) else list(references)


def _tokens(references: References, hypothesis: str, language: str) -> tuple[list[list[str]], list[str]]:
    """Words of the references that have any, and of the hypothesis."""
    listed = [split_words(reference, language) for reference in _listed(references)]
    return [words for words in listed if words], split_words(hypothesis, language)


@cache
def _smoothing_function(smoothing: Smoothing) -> Any:
    from nltk.translate.bleu_score import SmoothingFunction

    functions = SmoothingFunction()
    known = {
        "none": _no_smoothing,
        "method1": functions.method1,
        "method3": functions.method3,
        "method4": functions.method4,
    }
    if smoothing not in known:
        raise ConfigError(f"smoothing must be one of {', '.join(known)}, got {smoothing!r}")
    return known[smoothing]


def _no_smoothing(p_n: Sequence[Fraction], *_: Any, **__: Any) -> list[Fraction | float]:
    """nltk's method0 without the warning that it prints for every short answer."""
    return [p if p.numerator else sys.float_info.min for p in p_n]


@lru_cache(maxsize=1)
def _rouge_scorer() -> Any | None:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        return None
    return RougeScorer(["rougeL"], use_stemmer=False)


def _rouge_words(text: str, language: str) -> list[str]:
    if language == "en":
        return re.findall(r"[a-z0-9]+", text.lower())
    return [word.lower() for word in split_words(text, language)]


def _lcs_f1(reference: Sequence[str], hypothesis: Sequence[str]) -> float:
    if not reference or not hypothesis:
        return 0.0
    row = [0] * (len(hypothesis) + 1)
    for word in reference:
        diagonal = 0
        for j, other in enumerate(hypothesis, start=1):
            above = row[j]
            row[j] = diagonal + 1 if word == other else max(above, row[j - 1])
            diagonal = above
    precision, recall = row[-1] / len(hypothesis), row[-1] / len(reference)
    return 2 * precision * recall / (precision + recall) if row[-1] else 0.0


_ARTICLES = frozenset({"a", "an", "the"})


def _answer_words(text: str, language: str) -> list[str]:
    """SQuAD's normalisation; a text of articles or marks alone keeps them: it would vanish otherwise."""
    if check_language(language) == "en":
        plain = text.lower().translate(str.maketrans("", "", string.punctuation))
        return [word for word in plain.split() if word not in _ARTICLES] or text.lower().split()
    words = [word.lower() for word in split_words(unicodedata.normalize("NFKC", text), language)]
    return [word for word in words if not _is_punctuation(word)] or words


def _is_punctuation(word: str) -> bool:
    return all(unicodedata.category(char).startswith("P") for char in word)
