"""Words and their inverse, in the three languages."""

from __future__ import annotations

import pytest

from rlsft.errors import ConfigError
from rlsft.text import LANGUAGES, check_language, join_words, split_words

ENGLISH = [
    ("I don't know, it's well-known...", ["I", "don't", "know", ",", "it's", "well-known", "..."]),
    ('He said "Hi there" (twice).', ["He", "said", '"', "Hi", "there", '"', "(", "twice", ")", "."]),
    ("Great :) see you!!", ["Great", ":)", "see", "you", "!!"]),
    ("$3.50 or 1,000, 100%", ["$", "3.50", "or", "1,000", ",", "100", "%"]),
    ("See https://a.b/c?d=1, or a@b.org.", ["See", "https://a.b/c?d=1", ",", "or", "a@b.org", "."]),
    ("Tell 'em and/or me", ["Tell", "'em", "and", "/", "or", "me"]),
    ("It’s naïve 👍🏽", ["It’s", "naïve", "👍🏽"]),
]
JAPANESE = [
    ("元気ですか？はい！", ["元", "気", "で", "す", "か", "？", "は", "い", "！"]),
    ("Python3.11とNew Yorkが好き", ["Python3.11", "と", "New", "York", "が", "好", "き"]),
    ("３０分、1,000円。", ["３０", "分", "、", "1,000", "円", "。"]),
    ("か\u3099んばれー", ["か\u3099", "ん", "ば", "れ", "ー"]),
    ("https://a.b/cを見て", ["https://a.b/c", "を", "見", "て"]),
]


@pytest.mark.parametrize(("text", "words"), ENGLISH)
def test_english_words_and_their_inverse(text: str, words: list[str]) -> None:
    assert split_words(text) == words
    assert join_words(words) == text


@pytest.mark.parametrize(("text", "words"), JAPANESE)
def test_japanese_characters_and_their_inverse(text: str, words: list[str]) -> None:
    assert split_words(text, "ja") == words
    assert join_words(words, "ja") == text


def test_chinese_is_split_by_character() -> None:
    text = "价格是3.5元，OK吗？"
    words = ["价", "格", "是", "3.5", "元", "，", "OK", "吗", "？"]
    assert split_words(text, "zh") == words
    assert join_words(words, "zh") == text


def test_white_space_is_dropped_and_nothing_else() -> None:
    text = " a\t b\n\nc? 日本 !"
    for language in LANGUAGES:
        assert "".join(split_words(text, language)) == "".join(text.split())


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_has_no_words(language: str) -> None:
    assert split_words("", language) == split_words("  \n", language) == []
    assert join_words([], language) == ""


def test_an_unknown_language_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"language must be one of en, ja, zh, got 'jp'; did you mean 'ja'\?"):
        split_words("a", "jp")
    with pytest.raises(ConfigError, match="got 'klingon'"):
        check_language("klingon")
