"""Sentence negation, the second kind of noise: rules that turn a statement round, per language."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_Replacement = str | Callable[[re.Match[str]], str]


@dataclass(frozen=True)
class Edit:
    """One possible change: `text[start:end]` becomes `replacement`."""

    start: int
    end: int
    replacement: str


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    replacement: _Replacement

    def edits(self, text: str) -> Iterable[Edit]:
        for match in self.pattern.finditer(text):
            new = self.replacement(match) if callable(self.replacement) else match.expand(self.replacement)
            if new != match.group():
                yield Edit(match.start(), match.end(), new)


def negation_edits(text: str, language: str) -> tuple[list[Edit], list[Edit]]:
    """(deletions, insertions) of a negation that the rules of `language` allow in `text`, by position."""
    deleting, inserting = _RULES[language]
    return _collect(deleting, text), _collect(inserting, text)


def _collect(rules: tuple[_Rule, ...], text: str) -> list[Edit]:
    """Edits of all rules; where two overlap the rule that stands first wins (longer forms are listed first)."""
    taken: list[Edit] = []
    for rule in rules:
        taken += [
            edit
            for edit in rule.edits(text)
            if all(edit.end <= other.start or edit.start >= other.end for other in taken)
        ]
    return sorted(taken, key=lambda edit: edit.start)


def _rules(*pairs: tuple[str, _Replacement], flags: int = 0) -> tuple[_Rule, ...]:
    return tuple(_Rule(re.compile(pattern, flags), replacement) for pattern, replacement in pairs)


# --- English ---------------------------------------------------------------------------------------------------------

_IRREGULAR = {"can't": "can", "cannot": "can", "won't": "will", "shan't": "shall", "ain't": "is"}
_AUXILIARY = "am|is|are|was|were|do|does|did|have|has|had|can|could|will|would|shall|should|may|might|must"
_CONTRACTED = r"i['’]m|(?:you|we|they)['’]re|(?:he|she|it|that|there)['’]s|(?:i|you|we|they|he|she|it)['’]ll"
# "is not not", and questions ("are you"), stay as they are; "nothing" and "no" already deny.
_NOT_AFTER = "(?:not|never|no|nothing|nobody|i|you|we|they|he|she|it|the|this|that|there)"
_VERBS = (
    "like|love|enjoy|want|need|think|know|believe|agree|understand|remember|hope|hate|prefer|see|feel|live|work|"
    "play|eat|drink|watch|listen|read|study|go|get|make|use|care|mind|mean|wish|usually|really|always|often"
)


def _without_not(match: re.Match[str]) -> str:
    word = match.group().replace("’", "'")
    bare = _IRREGULAR.get(word.lower(), word[:-3])
    return bare.capitalize() if word[0].isupper() else bare


def _as_case(word: str) -> _Replacement:
    return lambda match: word.capitalize() if match.group()[0].isupper() else word


_ENGLISH = (
    _rules(
        (rf"\b(?:{_AUXILIARY}|need)n['’]t\b|\b(?:can|won|shan|ain)['’]t\b|\bcannot\b", _without_not),
        (r"\b(?:not|never)[ \t]+", ""),
        (r"[ \t]+(?:not|never)\b(?=\s*[.,!?;:]|\s*$)", ""),
        (r"\bno(?=[ \t]+[a-z])|\bno(?=thing\b|body\b)", _as_case("some")),
        flags=re.IGNORECASE,
    ),
    _rules(
        (rf"\b(?:{_CONTRACTED})\b(?![ \t]+(?:not|never)\b)", r"\g<0> not"),
        (rf"(?<!['’])\b(?:{_AUXILIARY})\b(?=[ \t]+\w)(?![ \t]+{_NOT_AFTER}\b)", r"\g<0> not"),
        (rf"\b(?:i|you|we|they)\b(?=[ \t]+(?:{_VERBS})\b)", r"\g<0> don't"),
        flags=re.IGNORECASE,
    ),
)

# --- Japanese --------------------------------------------------------------------------------------------------------
# Longer endings first. A verb's negative stem ends on the a-row, its plain form on the u-row.

_A_TO_U = str.maketrans("わかがさたなばまら", "うくぐすつぬぶむる")


def _plain_form(match: re.Match[str]) -> str:
    return match.group(1).translate(_A_TO_U)


_JAPANESE = (
    _rules(
        ("(?:では|じゃ)ありませんでした", "でした"),
        ("(?:では|じゃ)ありません", "です"),
        ("くありませんでした", "かったです"),
        ("くありません", "いです"),
        ("ませんでした", "ました"),
        ("ません", "ます"),
        ("(?:では|じゃ)なかった", "だった"),
        ("(?:では|じゃ)ない", "だ"),
        ("くなかった", "かった"),
        ("くない", "い"),
        ("([がもはで])なかった", r"\1あった"),
        ("([がもは])ない", r"\1ある"),
        ("(?<=[いてでべめけれせねげじみびえ])(?<!たい)なかった", "た"),
        ("(?<=[いてでべめけれせねげじみびえき])(?<!たい)ない", "る"),
        ("(?<=[^ぁ-ん])しない", "する"),
        ("(?<!つま)(?<!くだ)([わかがさたなばまら])ない", _plain_form),
    ),
    _rules(
        ("(?<!ござい)ました", "ませんでした"),
        ("(?<!ござい)ます(?!か)", "ません"),
        ("いです", "くないです"),
        ("(?<![んくい])です", "ではありません"),
        ("(?<![んくい])でした", "ではありませんでした"),
        ("ている", "ていない"),
        ("てる(?=[。！？、…よねわ]|$)", "てない"),
        ("([がもは])ある", r"\1ない"),
        ("できる", "できない"),
        ("(?<=[ぁ-ん一-鿿])(?<![んま])だった", "ではなかった"),
        ("(?<=[一-鿿ァ-ヶー])だ(?=[。！？、…よねと]|$)", "ではない"),
        ("(?<=[しかたさる一-鿿])い(?=[。！？、…よねと]|$)", "くない"),
        ("する(?=[。！？、…よねと]|$)", "しない"),
    ),
)

# --- Chinese ---------------------------------------------------------------------------------------------------------
# The look-arounds keep fixed words whole: 不过 "but", 对不起 "sorry", 社会 "society".

_ZH_NOT_IN_WORD = "(?![过但仅同错管久断如妨料论惜])"
_CHINESE = (
    _rules(
        ("没有", "有"),
        ("没(?=[有去来看听说吃做想能会])", ""),
        (f"(?<![对了差要受来起])不{_ZH_NOT_IN_WORD}(?!起|好意思)", ""),
        ("从未|从不", "总"),
    ),
    _rules(
        ("(?<![不没只所还拥具很])有(?![点些的时])", "没有"),
        ("(?<![不没可但还就于要总老若正或便都])是(?![否非不])", "不是"),
        ("(?<![不没社机开大约集学晚宴])会(?![议员场不])", "不会"),
        ("(?<![不没才功性职智])能(?![力量不源])", "不能"),
        ("(?<![不])(?:可以|应该|喜欢|知道|觉得|愿意|需要|同意|相信|认为)", r"不\g<0>"),
        ("(?<![不没思理梦联])想(?![法象要不])", "不想"),
    ),
)

_RULES = {"en": _ENGLISH, "ja": _JAPANESE, "zh": _CHINESE}
