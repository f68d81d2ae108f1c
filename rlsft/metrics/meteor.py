"""METEOR under the name of the variant that ran: with WordNet's synonyms where its files are found."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlsft.errors import ConfigError
from rlsft.text import check_language, split_words


class Meteor:
    """nltk's METEOR (the 2007 parameters: alpha 0.9, beta 3, gamma 0.5; lower case), of the best reference.

    English matches exact words, Porter stems and, where the files are found, WordNet synonyms; Japanese and
    Chinese match exact tokens. nltk hands stems to the synonym stage, so that some synonyms (big, large) are
    missed: `variant` belongs beside every number.

    Args:
        language: one of `rlsft.text.LANGUAGES`.
        wordnet: folder of the WordNet 3.0 database files in nltk's form, or a folder holding
        `corpora/wordnet`;
            None looks along nltk's own data path; False does without.

    Raises:
        ConfigError: `wordnet` names a folder without the database.
    """

    def __init__(self, language: str = "en", *, wordnet: str | Path | bool | None = None) -> None:
        self.language = check_language(language)
        self._wordnet: Any = _NoSynonyms()
        self._stemmer: Any = _NoStems()
        self.variant = "exact"
        if self.language != "en":
            return
        from nltk.stem.porter import PorterStemmer

        self._stemmer = PorterStemmer()
        reader = _find_reader(wordnet)
        self.variant = "exact+stem" if reader is None else f"exact+stem+WordNet {reader.get_version()}"
        self._wordnet = reader or self._wordnet

    def __call__(self, references: str | Sequence[str], hypothesis: str) -> float:
        """METEOR of `hypothesis` against the best of `references`, 0 to 1; 0 when a side is empty."""
        from nltk.translate.meteor_score import meteor_score

        listed = [references] if isinstance(references, str) else references
        reference_words = [words for text in listed if (words := split_words(text, self.language))]
        words = split_words(hypothesis, self.language)
        if not reference_words or not words:
            return 0.0
        return float(meteor_score(reference_words, words, stemmer=self._stemmer, wordnet=self._wordnet))


class _NoSynonyms:
    """Stands in for a WordNet reader that knows no word."""

    def synsets(self, _word: str) -> list[Any]:
        return []


class _NoStems:
    """Stands in for a stemmer where the language has no Porter stems."""

    def stem(self, word: str) -> str:
        return word


def _find_reader(wordnet: str | Path | bool | None) -> Any | None:
    if wordnet is False:
        return None
    if wordnet is None or wordnet is True:
        return _reader_on_nltk_path()
    folder = Path(wordnet).resolve()
    if not (folder / "corpora" / "wordnet").is_dir() and (folder / "corpora" / "wordnet.zip").is_file():
        _allow(folder)
        return _reader_on_nltk_path()
    return _reader_in(folder)


def _reader_on_nltk_path() -> Any | None:
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except (LookupError, OSError):  # absent, or a set without the files that nltk needs
        return None
    return wordnet


@lru_cache(maxsize=4)
def _reader_in(folder: Path) -> Any:
    from nltk.corpus.reader import WordNetCorpusReader

    root = folder / "corpora" / "wordnet" if (folder / "corpora" / "wordnet").is_dir() else folder
    missing = [name for name in ("data.noun", "index.sense", "lexnames") if not (root / name).is_file()]
    if missing:
        raise ConfigError(
            f"wordnet={folder} is no WordNet database for nltk: {', '.join(missing)} not found in {root}. "
            "Leave wordnet out to score exact+stem matches only."
        )
    _allow(folder)
    with warnings.catch_warnings():  # "multilingual functions are not available": none is used
        warnings.filterwarnings("ignore", message="The multilingual functions")
        return WordNetCorpusReader(str(root), None)


def _allow(folder: Path) -> None:
    """nltk opens corpus files only below the folders of its data path."""
    import nltk.data

    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))
