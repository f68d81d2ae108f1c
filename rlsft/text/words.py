"""Text to words and back: space-separated words for English, characters for Japanese and Chinese."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rlsft.text.languages import CHARACTER_LANGUAGES, CJK, EMOJI, EMOTICON, check_language

_URL = r"(?:https?://|www\.)[!-~]*[A-Za-z0-9/]|[A-Za-z0-9.+-]+@[A-Za-z0-9-]+\.[A-Za-z0-9.-]*[A-Za-z0-9]"
_NUMBER = r"\d+(?:[.,:]\d+)+"
_EMOJI_TOKEN = rf"[{EMOJI}](?:[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]|\u200d[{EMOJI}])*"
_CLIPPED = r"['’](?:em|til|cause|bout|tis|twas|n|ve|re|ll|d|m|s)\b"  # 'em, 'cause; not an opening quote
_REPEATED = r"([^\w\s])\1*"  # "..." and "!!!" are one mark

_ENGLISH = re.compile(
    rf"{_URL}|(?<!\S){EMOTICON}(?!\w)|{_NUMBER}|\w+(?:['’-]\w+)*|(?<!\w){_CLIPPED}|{_EMOJI_TOKEN}|{_REPEATED}",
    re.IGNORECASE,
)
# A voicing mark or accent written as a character of its own belongs to the one before it.
_CHARACTERS = re.compile(
    rf"{_URL}|{_NUMBER}|[{CJK}][\u3099\u309a\uff9e\uff9f\u0300-\u036f]*|(?:(?![{CJK}])\w)+(?:(?:['’-]|(?<=\d)[.,](?=\d))(?:(?![{CJK}])\w)+)*"
    rf"|{_EMOJI_TOKEN}|[^\w\s]"
)

_CLOSING = frozenset(".,!?;:%)]}»”’…、。，！？；：）］｝」』】〉》")
_OPENING = frozenset("([{«“‘$£€¥#（［｛「『【〈《")
_STRAIGHT_QUOTES = frozenset("\"'")
_SPACED_MARKS = frozenset(".,!?;:")
_IS_EMOTICON = re.compile(rf"{EMOTICON}\Z")


def split_words(text: str, language: str = "en") -> list[str]:
    """Words and marks of `text`, in order; white space is dropped.

    English: words keep their apostrophes and hyphens (`don't`, `well-known`); numbers, addresses, emoticons
    and repeated marks (`...`) are one token each. Japanese and Chinese: one token a character, with Latin
    runs, numbers and addresses whole, so that n-gram metrics find n-grams where a space-split finds one word.
    """
    return [text[start:end] for start, end in word_spans(text, language)]


def word_spans(text: str, language: str = "en") -> list[tuple[int, int]]:
    """Start and end of every word of `split_words` in `text`, for edits that leave the rest as written."""
    pattern = _CHARACTERS if check_language(language) in CHARACTER_LANGUAGES else _ENGLISH
    return [match.span() for match in pattern.finditer(text)]


def join_words(words: Sequence[str], language: str = "en") -> str:
    """The text that `words` spell: the inverse of `split_words` on ordinarily spaced text.

    Spaces that a writer put where the language has none (or left out where it has one) are not recovered.
    """
    if check_language(language) in CHARACTER_LANGUAGES:
        return _join_characters(words)
    return _join_spaced(words)


def _join_characters(words: Sequence[str]) -> str:
    """No spaces, except between Latin words and after their ASCII marks: `New York`, `Yes, please`."""
    parts: list[str] = []
    for word in words:
        if parts and _is_latin(word) and (_is_latin(parts[-1]) or parts[-1] in _SPACED_MARKS):
            parts.append(" ")
        parts.append(word)
    return "".join(parts)


def _is_latin(word: str) -> bool:
    return bool(word) and word[0].isalnum() and unicodedata.east_asian_width(word[0]) in ("Na", "N", "A")


def _join_spaced(words: Sequence[str]) -> str:
    parts: list[str] = []
    is_open = dict.fromkeys(_STRAIGHT_QUOTES, False)
    glue_next = True  # nothing before the first word
    for word in words:
        if word in _STRAIGHT_QUOTES:  # the same sign opens and closes: it opens when none is open
            opens = not is_open[word]
            is_open[word] = opens
        else:
            opens = word in _OPENING
        if not glue_next and not _hugs_left(word, opens):
            parts.append(" ")
        parts.append(word)
        glue_next = opens or word == "/"
    return "".join(parts)


def _hugs_left(word: str, opens: bool) -> bool:
    """Whether `word` follows the one before it without a space."""
    if opens or _IS_EMOTICON.match(word):
        return False
    return word in _STRAIGHT_QUOTES or word == "/" or (bool(word) and all(char in _CLOSING for char in word))
