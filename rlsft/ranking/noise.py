"""Noise for the lower-ranked answer of a pair (arXiv 2402.18284, section 3.4): n-grams, negation, sentence order.

Centrality ranks good answers well but says little about bad ones; a damaged answer is certainly worse.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from rlsft.errors import ConfigError
from rlsft.ranking.inputs import check_choice
from rlsft.ranking.negation import negation_edits
from rlsft.text import check_language, join_sentences, split_sentences, split_words, word_spans

NoiseKind = Literal["ngram", "negation", "shuffle"]
NOISE_KINDS: tuple[NoiseKind, ...] = ("ngram", "negation", "shuffle")
MAX_NGRAM = 3  # the paper's n < 4

# What an insertion draws on where the other answers offer no words.
_COMMON_WORDS = {
    "en": (
        "yes",
        "no",
        "maybe",
        "the",
        "green",
        "table",
        "yesterday",
        "run",
        "because",
        "seven",
        "quietly",
        "house",
    ),
    "ja": ("たぶん", "昨日", "机", "緑の", "走る", "だから", "七つ", "静かに", "家", "そして", "水", "遠い"),
    "zh": ("也许", "昨天", "桌子", "绿色", "跑", "因为", "七个", "安静", "房子", "而且", "水", "很远"),
}


class Noised(NamedTuple):
    """A damaged text and the kind of damage; `kind` is None where no kind applies and the text is unchanged."""

    text: str
    kind: NoiseKind | None


def content_rng(seed: int, *parts: str) -> np.random.Generator:
    """A generator that depends on `seed` and the texts alone, not on their order in a batch."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part.encode("utf-8", "surrogatepass"))
    return np.random.default_rng([seed, int.from_bytes(digest.digest()[:8], "little")])


def check_noise_kinds(kinds: Sequence[str]) -> tuple[NoiseKind, ...]:
    """`kinds` without repeats, in the order of `NOISE_KINDS`; `ConfigError` with the nearest name for another."""
    if isinstance(kinds, str):
        raise ConfigError(f"noise_kinds must be a list such as {list(NOISE_KINDS)}, got the string {kinds!r}")
    for kind in kinds:
        check_choice("noise_kinds", kind, NOISE_KINDS)
    return tuple(kind for kind in NOISE_KINDS if kind in kinds)


def add_noise(
    text: str,
    rng: np.random.Generator,
    *,
    kinds: Sequence[str] = NOISE_KINDS,
    language: str = "en",
    others: Sequence[str] = (),  # texts whose words an insertion may borrow, such as the other answers
) -> Noised:
    """`text` damaged in one way, drawn uniformly from the `kinds` that can change it; unchanged when none can."""
    check_language(language)
    remaining = list(check_noise_kinds(kinds))
    while remaining:
        kind = remaining.pop(int(rng.integers(len(remaining))))
        noised = _NOISERS[kind](text, rng, language, others)
        if noised is not None and noised.split() != text.split() and noised.strip():
            return Noised(noised, kind)
    return Noised(text, None)


def _shuffle(text: str, rng: np.random.Generator, language: str, others: Sequence[str]) -> str | None:
    """Sentences in another order; None with fewer than two different sentences."""
    sentences = split_sentences(text, language)
    if len(set(sentences)) < 2:
        return None
    shuffled = [sentences[index] for index in rng.permutation(len(sentences))]
    if shuffled == sentences:  # move the first sentence behind the first one that differs from it
        other = next(index for index, sentence in enumerate(sentences) if sentence != sentences[0])
        shuffled[0], shuffled[other] = shuffled[other], shuffled[0]
    return join_sentences(shuffled, language)


def _negate(text: str, rng: np.random.Generator, language: str, others: Sequence[str]) -> str | None:
    """A negation inserted or deleted at one place; which of the two is drawn first, where both are possible."""
    options = [edits for edits in negation_edits(text, language) if edits]
    if not options:
        return None
    edits = options[int(rng.integers(len(options)))]
    edit = edits[int(rng.integers(len(edits)))]
    return text[: edit.start] + edit.replacement + text[edit.end :]


def _edit_ngram(text: str, rng: np.random.Generator, language: str, others: Sequence[str]) -> str | None:
    """One n-gram of 1 to 3 words deleted, replaced or inserted."""
    every_span = word_spans(text, language)
    # Marks are touched only together with the words around them, or where a text holds nothing else.
    spans = [span for span in every_span if _is_plain(text[slice(*span)])] or every_span
    if not spans:
        return None
    length = int(rng.integers(1, MAX_NGRAM + 1))
    edits = ("delete", "replace", "insert") if len(spans) > length else ("replace", "insert")
    edit = edits[int(rng.integers(len(edits)))]
    if edit == "insert":
        phrase, gap = _borrowed(text, length, rng, language, others), _gap(language)
        place = int(rng.integers(len(spans) + 1))
        if place == len(spans):
            return text[: spans[-1][1]] + gap + phrase + text[spans[-1][1] :]
        return text[: spans[place][0]] + phrase + gap + text[spans[place][0] :]
    length = min(length, len(spans))
    first = int(rng.integers(len(spans) - length + 1))
    start, end = spans[first][0], spans[first + length - 1][1]
    if edit == "replace":
        return text[:start] + _borrowed(text[start:end], length, rng, language, others) + text[end:]
    return (text[:start] + text[end:].lstrip() if start == 0 else text[:start].rstrip() + text[end:]).strip()


def _borrowed(avoid: str, length: int, rng: np.random.Generator, language: str, others: Sequence[str]) -> str:
    """`length` neighbouring words of another text, or common words; never the words of `avoid` again."""
    gap = _gap(language)
    for index in rng.permutation(len(others)):
        words = _plain_words(others[index], language)
        if len(words) < length:
            continue
        first = int(rng.integers(len(words) - length + 1))
        phrase = gap.join(words[first : first + length])
        if phrase.casefold() != avoid.casefold():
            return phrase
    common = [word for word in _COMMON_WORDS[language] if word.casefold() != avoid.casefold()]
    return gap.join(common[index] for index in rng.permutation(len(common))[:length])


def _plain_words(text: str, language: str) -> list[str]:
    return [word for word in split_words(text, language) if _is_plain(word)]


def _is_plain(word: str) -> bool:
    return any(char.isalnum() for char in word)


def _gap(language: str) -> str:
    return " " if language == "en" else ""


_NOISERS: dict[str, Callable[[str, np.random.Generator, str, Sequence[str]], str | None]] = {
    "ngram": _edit_ngram,
    "negation": _negate,
    "shuffle": _shuffle,
}
