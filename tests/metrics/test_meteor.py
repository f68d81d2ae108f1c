"""METEOR: nltk's values, its variants under their names, languages without stems."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlsft.errors import ConfigError
from rlsft.metrics import Meteor
from tests.metrics.test_overlap import noisy_pairs


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("a b c", "a b c", 0.981),
        ("a b c d", "a b c d", 0.992),
        ("cat", "cat", 0.5),  # one chunk of one match: half is penalty
        ("the cat sat down", "the dog ran off", 0.125),
        ("", "a b c d", 0.0),
        ("", "", 0.0),
        ("a b c d", "", 0.0),
    ],
)
def test_short_answers_score_what_nltk_gives_them(reference: str, hypothesis: str, expected: float) -> None:
    assert Meteor(wordnet=False)(reference, hypothesis) == pytest.approx(expected, abs=6e-4)


def test_exact_stem_is_nltk_with_a_reader_that_knows_no_word() -> None:
    from nltk.translate.meteor_score import meteor_score

    class Empty:
        def synsets(self, _word: str) -> list:
            return []

    references, hypothesis = ["the cats were running home", "a cat ran"], "the cat runs to its homes"
    expected = meteor_score([text.split() for text in references], hypothesis.split(), wordnet=Empty())
    meteor = Meteor(wordnet=False)
    assert meteor(references, hypothesis) == pytest.approx(expected, abs=1e-12)
    assert meteor.variant == "exact+stem"
    assert meteor("the cats", "the cat") > 0.9  # by stem


def test_every_noisy_pair_is_nltk_with_the_same_variant() -> None:
    from nltk.translate.meteor_score import meteor_score

    class Empty:
        def synsets(self, _word: str) -> list:
            return []

    meteor = Meteor(wordnet=False)
    for reference, hypothesis in noisy_pairs():
        expected = meteor_score([reference.split()], hypothesis.split(), wordnet=Empty())
        assert meteor(reference, hypothesis) == pytest.approx(expected, abs=1e-12)


def test_synonyms_count_where_wordnet_is_installed() -> None:
    assets = pytest.importorskip("rlsft.data.assets")
    folder = assets.wordnet()
    if folder is None:
        pytest.skip("no WordNet here: apt-get install wordnet-base wordnet-sense-index")
    meteor = Meteor(wordnet=folder)
    assert meteor.variant == "exact+stem+WordNet 3.0"
    assert meteor("I own a car", "I have an auto") == pytest.approx(0.6389, abs=1e-4)


def test_without_wordnet_the_same_pair_has_one_match() -> None:
    assert Meteor(wordnet=False)("I own a car", "I have an auto") == pytest.approx(0.125, abs=1e-4)


def test_japanese_matches_exact_characters_and_says_so() -> None:
    meteor = Meteor("ja")
    assert meteor.variant == "exact"
    assert 0.7 < meteor("今日はとても良い天気ですね。", "今日はとてもいい天気ですね。") < 1.0


def test_a_folder_without_wordnet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no WordNet database for nltk: data\.noun, index\.sense, lexnames"):
        Meteor(wordnet=tmp_path)
