"""Words, sentences and their inverse, per language: what metrics, ranking and sampling share about text."""

from rlsft.text.languages import LANGUAGES, check_language
from rlsft.text.sentences import join_sentences, split_sentences, trim_unfinished
from rlsft.text.words import join_words, split_words, word_spans

__all__ = [
    "LANGUAGES",
    "check_language",
    "join_sentences",
    "join_words",
    "split_sentences",
    "split_words",
    "trim_unfinished",
    "word_spans",
]
