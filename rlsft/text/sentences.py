"""Text to sentences, and the trimming of a last sentence that sampling cut off."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from rlsft.text.languages import CHARACTER_LANGUAGES, CJK, EMOJI, EMOTICON, check_language

_ASCII_MARKS = ".!?"
_WIDE_MARKS = "。！？…｡．"
_OPENERS = "「『（【〈《“‘"
_CLOSERS = "\"'”’)\\]}»」』）】〉》｣"

_MARK_RUN = re.compile(rf"[{_ASCII_MARKS}{_WIDE_MARKS}]+[{_CLOSERS}]*|\n+")
_ENDS = re.compile(rf"(?:[{_ASCII_MARKS}{_WIDE_MARKS}][{_CLOSERS}]*|[」』｣]|(?:^|\s){EMOTICON}|[{EMOJI}]\ufe0f?)\s*\Z")
_QUOTED = re.compile(r"「[^「」]*」|『[^『』]*』")
# A quotation followed by one of these goes on: 「行く。」と言った。
_QUOTE_GOES_ON = re.compile(r"[、，,とっ]|って|なんて|なん|など|の|は|が|を|に|だ|で|说|地|道")

_WITH_FULL_STOP = (
    "mr mrs ms dr prof st sr jr capt col gen gov hon lt rev rep sen sgt "
    "vs etc inc ltd co corp vol fig al e.g i.e eg ie cf approx dept est "
    "jan feb mar apr jun jul aug sep sept oct nov dec"
)
_ABBREVIATIONS = frozenset(_WITH_FULL_STOP.split())
# These also end sentences ("… and so on, etc."): a capital letter after them decides.
_ENDING_ABBREVIATIONS = frozenset({"etc", "inc", "ltd", "co", "corp", "jr", "sr", "al"})


def split_sentences(text: str, language: str = "en") -> list[str]:
    """Sentences of `text`, stripped, with their end marks and closing quotes; a line break also ends one.

    English ends at `.`, `!`, `?` before white space, but not after an abbreviation, an initial or a list
    number, nor at an ellipsis that a small letter follows. Japanese and Chinese end at 。！？… with no space
    needed, but not inside a quotation that the sentence goes on after (「行く。」と言った。 is one sentence).
    """
    return [text[start:end].strip() for start, end in _spans(text, check_language(language))]


def join_sentences(sentences: Sequence[str], language: str = "en") -> str:
    """Sentences as one text: separated by a space, or by nothing where the language has none."""
    return ("" if check_language(language) in CHARACTER_LANGUAGES else " ").join(sentences)


def trim_unfinished(text: str, language: str = "en") -> str:
    """`text` without a last sentence that has no end mark, as sampling up to a token limit leaves one.

    The whole text (less trailing white space) when that sentence is the only one. A closing 」, an emoji and
    an emoticon count as end marks, because people end messages with them.
    """
    spans = _spans(text, check_language(language))
    if len(spans) < 2 or _ENDS.search(text[slice(*spans[-1])]):
        return text.rstrip()
    return text[: spans[-2][1]].rstrip()


def _spans(text: str, language: str) -> list[tuple[int, int]]:
    """Start and end of every sentence that holds more than white space."""
    cuts = [0, *_boundaries(text, language in CHARACTER_LANGUAGES), len(text)]
    return [(start, end) for start, end in itertools.pairwise(cuts) if text[start:end].strip()]


def _boundaries(text: str, by_character: bool) -> list[int]:
    quoted = [match.span() for match in _QUOTED.finditer(text)]
    found = []
    for match in _MARK_RUN.finditer(text):
        end = match.end()
        if any(start < match.start() and end < stop for start, stop in quoted):
            continue  # inside a quotation
        run = match.group()
        if run[0] == "\n" or _is_end(text, match.start(), end, run, by_character):
            found.append(end)
    return found


def _is_end(text: str, start: int, end: int, run: str, by_character: bool) -> bool:
    rest = text[end:]
    if not rest.strip():
        return True
    if any(char in _WIDE_MARKS for char in run) and (by_character or "…" not in run):
        return not (run[-1] in "」』｣" and _QUOTE_GOES_ON.match(rest))
    if not rest[0].isspace():
        return by_character and (run[0] in "!?" or _stop_in_running_text(text, start, rest))
    following = rest.lstrip()[0]
    if run.startswith(("..", "…")) or (run[-1] not in _ASCII_MARKS and run[0] in "!?"):
        return not following.islower()  # "well... maybe", '"Why?" she asked'
    return not (run == "." and _is_abbreviation(text[:start], following))


def _stop_in_running_text(text: str, start: int, rest: str) -> bool:
    """Whether an ASCII full stop before no space ends a Japanese or Chinese sentence: not in `v1.2`."""
    after_latin = start > 0 and text[start - 1].isascii() and text[start - 1].isalnum()
    return not after_latin and re.match(rf"[{CJK}{_OPENERS}]", rest) is not None


def _is_abbreviation(before: str, following: str) -> bool:
    word = re.search(r"(\S*)\Z", before).group(1).lstrip("\"'“‘([")  # type: ignore[union-attr]
    if re.search(r"(?:^|\n|[.!?]\s)\s*\d{1,2}\Z", before):
        return True  # "1. First"
    if len(word) == 1 and word.isupper() and word != "I":
        return following.isupper()  # "J. Smith"
    if word.lower() in _ABBREVIATIONS:
        return not (word.lower() in _ENDING_ABBREVIATIONS and following.isupper())
    return re.fullmatch(r"(?:[A-Za-z]\.)+[A-Za-z]", word) is not None and following.islower()  # "the U.S. army"
