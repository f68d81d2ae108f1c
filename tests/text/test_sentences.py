"""Sentence ends in the three languages, and the trimming of an unfinished last sentence."""

from __future__ import annotations

import pytest

from rlsft.errors import ConfigError
from rlsft.text import join_sentences, split_sentences, trim_unfinished

ENGLISH = {
    "two-plain": ["I am fine.", "how are you?"],
    "title-and-initial": ["Mr. Smith met J. Doe at noon.", "He left."],
    "quotation": ['He said "Go!"', "Then he left (at last.)", "Fine."],
    "question-goes-on": ['"Why?" she asked.', "No."],
    "ellipsis-goes-on": ["Well... maybe not.", "But…", "OK."],
    "decimal": ["It costs 3.50 a day.", "Too much!?"],
    "list-number": ["1. Bread.", "2. Milk."],
    "etc-may-end": ["Apples, pears, etc.", "They are good, e.g. in a cake."],
    "i-is-a-word": ["So do I.", "What now?"],
}
JAPANESE = {
    "marks": ["こんにちは。", "元気ですか？", "うん…", "はい！！"],
    "quotation-goes-on": ["「行く。」と言った。", "そう。"],
    "quotations": ["「はい。」", "「いいえ。」", "終わり"],
    "ascii-marks": ["いいね!", "v1.2が出た.", "本当?"],
}


@pytest.mark.parametrize("name", ENGLISH)
def test_english_sentences(name: str) -> None:
    assert split_sentences(" ".join(ENGLISH[name])) == ENGLISH[name]


@pytest.mark.parametrize("name", JAPANESE)
def test_japanese_sentences(name: str) -> None:
    assert split_sentences("".join(JAPANESE[name]), "ja") == JAPANESE[name]


def test_chinese_sentences() -> None:
    sentences = ["他说：“走吧。”", "然后走了！", "好吗？"]
    assert split_sentences("".join(sentences), "zh") == sentences
    assert join_sentences(sentences, "zh") == "".join(sentences)


def test_a_line_break_ends_a_sentence() -> None:
    assert split_sentences("A title\nA line.\n\n Another") == ["A title", "A line.", "Another"]


@pytest.mark.parametrize(
    ("text", "language", "trimmed"),
    [
        ("I agree. That is because the", "en", "I agree."),
        ('He said "Yes." And then', "en", 'He said "Yes."'),
        ("no end mark at all", "en", "no end mark at all"),
        ("All is well. Really!", "en", "All is well. Really!"),
        ("Nice! See you :)", "en", "Nice! See you :)"),
        ("Nice! See you 👋", "en", "Nice! See you 👋"),
        ("One. Mr. Smith of", "en", "One."),
        ("  Keep  my   spaces.  Cut th", "en", "  Keep  my   spaces."),
        ("そうです。でも私は", "ja", "そうです。"),
        ("そうです。彼は「はい」", "ja", "そうです。彼は「はい」"),
        ("好的。我觉得", "zh", "好的。"),
        ("", "en", ""),
        (" \n", "en", ""),
    ],
)
def test_trim_unfinished(text: str, language: str, trimmed: str) -> None:
    assert trim_unfinished(text, language) == trimmed


def test_no_text_has_no_sentences() -> None:
    assert split_sentences("") == split_sentences(" \n ", "ja") == []


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ConfigError, match="language must be one of"):
        trim_unfinished("a", "xx")
