"""The three kinds of noise, in three languages."""

from __future__ import annotations

from collections import Counter

import pytest

from rlsft.ranking.negation import Edit, negation_edits
from rlsft.ranking.noise import NOISE_KINDS, add_noise, content_rng
from rlsft.text import split_sentences, split_words

TEXTS = {
    "en": "I like pizza. You are right! We can't go there today.",
    "ja": "私は学生です。今日は暑い。映画を見ませんでした。",
    "zh": "我是学生。我会游泳！我不知道他的名字。",
}
OTHERS = {
    "en": ["Where did you go yesterday?", "Nothing else matters here."],
    "ja": ["天気がいいですね。", "犬が走っている。"],
    "zh": ["今天天气很好。", "小狗在跑。"],
}


def applied(text: str, edits: list[Edit]) -> list[str]:
    return [text[: edit.start] + edit.replacement + text[edit.end :] for edit in edits]


DELETIONS = [
    ("en", "I don't like it, and I can't go.", ["I do like it, and I can't go.", "I don't like it, and I can go."]),
    ("en", "Won't you? It’s not good.", ["Will you? It’s not good.", "Won't you? It’s good."]),
    ("en", "No problem, I never cry.", ["Some problem, I never cry.", "No problem, I cry."]),
    ("en", "Notable notes are known.", []),
    ("ja", "これは本ではありません。", ["これは本です。"]),
    ("ja", "食べない。行かない。", ["食べる。行かない。", "食べない。行く。"]),
    ("ja", "寒くなかった。行きませんでした。", ["寒かった。行きませんでした。", "寒くなかった。行きました。"]),
    ("ja", "もったいない。つまらない。", []),
    ("zh", "我没有时间。我不喜欢他。", ["我有时间。我不喜欢他。", "我没有时间。我喜欢他。"]),
    ("zh", "对不起，不过这不错。", []),
]
INSERTIONS = [
    ("en", "I’m happy. You are right.", ["I’m not happy. You are right.", "I’m happy. You are not right."]),
    ("en", "We like tea.", ["We don't like tea."]),
    ("en", "Are you sure? It is not.", []),
    ("ja", "学生です。楽しいです。", ["学生ではありません。楽しいです。", "学生です。楽しくないです。"]),
    ("ja", "見ました。今日は暑い。", ["見ませんでした。今日は暑い。", "見ました。今日は暑くない。"]),
    ("ja", "ありがとうございます。", []),
    ("zh", "我是学生，我会游泳。", ["我不是学生，我会游泳。", "我是学生，我不会游泳。"]),
    ("zh", "可是社会有时不同。", []),
]


@pytest.mark.parametrize(("language", "text", "results"), DELETIONS)
def test_negations_are_deleted(language: str, text: str, results: list[str]) -> None:
    assert applied(text, negation_edits(text, language)[0]) == results


@pytest.mark.parametrize(("language", "text", "results"), INSERTIONS)
def test_negations_are_inserted(language: str, text: str, results: list[str]) -> None:
    assert applied(text, negation_edits(text, language)[1]) == results


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_each_kind_changes_the_text_and_says_its_name(language: str, kind: str) -> None:
    text = TEXTS[language]
    for seed in range(40):
        noised = add_noise(text, content_rng(seed, text), kinds=[kind], language=language, others=OTHERS[language])
        assert noised.kind == kind
        assert noised.text.strip()
        assert split_words(noised.text, language) != split_words(text, language)


@pytest.mark.parametrize("language", TEXTS)
def test_shuffle_keeps_every_sentence(language: str) -> None:
    text = TEXTS[language]
    seen = set()
    for seed in range(30):
        noised = add_noise(text, content_rng(seed, text), kinds=["shuffle"], language=language)
        assert sorted(split_sentences(noised.text, language)) == sorted(split_sentences(text, language))
        seen.add(noised.text)
    assert len(seen) == 5  # all 3! - 1 other orders


@pytest.mark.parametrize("language", TEXTS)
def test_ngram_edits_at_most_three_words(language: str) -> None:
    text = TEXTS[language]
    before = Counter(word for word in split_words(text, language) if word.isalnum())
    for seed in range(60):
        noised = add_noise(text, content_rng(seed, text), kinds=["ngram"], language=language, others=OTHERS[language])
        after = Counter(word for word in split_words(noised.text, language) if word.isalnum())
        assert sum((before - after).values()) <= 3
        # A borrowed Japanese or Chinese common word has up to three characters.
        assert sum((after - before).values()) <= 3


def test_kinds_are_drawn_uniformly_among_those_that_apply() -> None:
    two_apply = "Bread or milk. Tea or soup."  # nothing to negate
    kinds = Counter(add_noise(two_apply, content_rng(seed, two_apply)).kind for seed in range(600))
    assert set(kinds) == {"ngram", "shuffle"}
    assert kinds["ngram"] == pytest.approx(300, abs=50)  # 4 standard deviations
    all_apply = TEXTS["en"]
    kinds = Counter(add_noise(all_apply, content_rng(seed, all_apply)).kind for seed in range(600))
    for kind in NOISE_KINDS:
        assert kinds[kind] == pytest.approx(200, abs=50)


def test_a_text_that_no_kind_can_change_stays_as_it_is() -> None:
    assert add_noise("Yes.", content_rng(0, "Yes."), kinds=["negation", "shuffle"]) == ("Yes.", None)
    assert add_noise("Yes. Yes.", content_rng(0, "Yes."), kinds=["shuffle"]) == ("Yes. Yes.", None)


@pytest.mark.parametrize("text", ["ok", "...", ":)", "so so so", "a  b"])
def test_the_shortest_texts_still_change(text: str) -> None:
    for seed in range(30):
        noised = add_noise(text, content_rng(seed, text))
        assert noised.kind == "ngram"
        assert noised.text.split() != text.split()
        assert noised.text.strip()


def test_the_generator_depends_on_seed_and_texts_alone() -> None:
    draws = [content_rng(*key).random() for key in ((0, "a", "bc"), (0, "a", "bc"), (1, "a", "bc"), (0, "ab", "c"))]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3
