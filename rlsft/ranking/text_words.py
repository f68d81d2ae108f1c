"""A text as numbered words: what sentence ranking and keywords give to the ops."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rlsft.errors import ConfigError
from rlsft.ranking.stop_words import STOP_WORDS
from rlsft.text import check_language


def stop_set(stop_words: Collection[str] | None, language: str) -> frozenset[str]:
    """The caller's stop words in lower case, or the built-in ones of the language."""
    if isinstance(stop_words, str):
        raise ConfigError(f"stop_words must be a collection of words, got the string {stop_words!r}")
    if stop_words is None:
        return STOP_WORDS[check_language(language)]
    return frozenset(word.lower() for word in stop_words)


def is_content(word: str, stop_words: frozenset[str]) -> bool:
    """Whether a lower-case word has a letter or digit and is no stop word."""
    return word.replace("’", "'") not in stop_words and any(char.isalnum() for char in word)


def numbered(texts: Iterable[Iterable[str]]) -> list[list[int]]:
    """Each text as numbers, equal words having equal numbers."""
    number: dict[str, int] = {}
    return [[number.setdefault(word, len(number)) for word in text] for text in texts]


def check_top(top: int | None) -> None:
    """ConfigError unless `top` is None or at least 1."""
    if top is not None and (isinstance(top, bool) or not isinstance(top, int) or top < 1):
        raise ConfigError(f"top must be None (all) or an int >= 1, got {top!r}")
