"""Answers as numbers: unit vectors for clusters and cosines, token ids for word-overlap edges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlsft.errors import ConfigError
from rlsft.ranking.encoders import Encoder, embed, unit_rows
from rlsft.ranking.inputs import Candidates, check_choice
from rlsft.text import split_words

VECTOR_EDGES = ("shifted_cosine", "relu_cosine", "cosine")
TOKEN_EDGES = ("word_overlap", "bm25")
SIMILARITIES = (*VECTOR_EDGES, *TOKEN_EDGES)

# Zero columns up to a multiple of this many change no sum, so that a prompt's vectors do not depend
# on the vocabulary of the prompts it is ranked with.
_WIDTH_STEP = 64


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the graph and the clusters are built from, one row an answer."""

    edge: str  # one of SIMILARITIES: the edge map that is really used
    vectors: NDArray[np.float64]  # [S, d] unit rows; float64, so that rounding decides no tie
    tokens: list[list[int]] | None  # S lists of token ids, for the edges of TOKEN_EDGES
    cosine: NDArray[np.float64]  # [S] with the demonstration of the prompt; NaN where there is none

    @property
    def has_demonstration(self) -> NDArray[np.bool_]:
        """[S] whether the prompt of each answer has a demonstration."""
        return ~np.isnan(self.cosine)


def used_edge(encoder: Encoder | None, similarity: str) -> str:
    """The edge map in use: without an encoder the default `shifted_cosine` stands for `word_overlap`."""
    check_choice("similarity", similarity, SIMILARITIES)
    return "word_overlap" if encoder is None and similarity == "shifted_cosine" else similarity


def make_features(candidates: Candidates, encoder: Encoder | None, *, similarity: str, language: str) -> Features:
    """Embed all answers and demonstrations at once; without an encoder count their words."""
    edge = used_edge(encoder, similarity)
    words = None
    if encoder is None or edge in TOKEN_EDGES:
        words = [content_words(text, language) for text in candidates.texts]
    if encoder is None:
        assert words is not None
        vectors, cosine = _word_count_vectors(candidates, words, language)
    else:
        vectors, cosine = _encoded(candidates, encoder)
    tokens = _token_ids(words) if words is not None and edge in TOKEN_EDGES else None
    return Features(edge=edge, vectors=vectors, tokens=tokens, cosine=cosine)


def content_words(text: str, language: str) -> list[str]:
    """Words without marks, small and capital letters alike; the marks where there is nothing else."""
    words = [word.casefold() for word in split_words(text, language)]
    return [word for word in words if any(char.isalnum() for char in word)] or words


def _encoded(candidates: Candidates, encoder: Encoder) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with_one = [p for p, text in enumerate(candidates.demonstrations) if text is not None]
    demonstrations = [text for text in candidates.demonstrations if text is not None]
    rows = unit_rows(embed(encoder, [*candidates.texts, *demonstrations]).astype(np.float64))
    if not rows.shape[1]:
        raise ConfigError(f"encoder {encoder.name!r} returned vectors of length 0")
    vectors, demonstration_rows = rows[: len(candidates.texts)], rows[len(candidates.texts) :]
    row_of = np.full(len(candidates.prompts), -1)
    row_of[with_one] = np.arange(len(with_one))
    return vectors, _row_cosines(vectors, demonstration_rows, row_of[candidates.prompt_index])


def _row_cosines(
    vectors: NDArray[np.float64], others: NDArray[np.float64], row_of: NDArray[np.int64]
) -> NDArray[np.float64]:
    """[S] cosine of each unit row with the unit row `row_of` it in `others`; NaN where that is -1."""
    cosine = np.full(len(vectors), np.nan)
    known = row_of >= 0
    cosine[known] = np.clip((vectors[known] * others[row_of[known]]).sum(axis=1), -1.0, 1.0)
    return cosine


def _word_count_vectors(
    candidates: Candidates, words: list[list[str]], language: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Word counts scaled to length 1, over the words of the prompt's own answers and demonstration."""
    columns_of: list[dict[str, int]] = []
    demonstration_words: list[list[str]] = []
    for p, demonstration in enumerate(candidates.demonstrations):
        own = content_words(demonstration, language) if demonstration is not None else []
        column_of: dict[str, int] = {}
        for answer in [*words[candidates.offsets[p] : candidates.offsets[p + 1]], own]:
            for word in answer:
                column_of.setdefault(word, len(column_of))
        columns_of.append(column_of)
        demonstration_words.append(own)
    widest = max(map(len, columns_of), default=0)
    width = max(1, -(-widest // _WIDTH_STEP)) * _WIDTH_STEP
    answer_columns = [columns_of[p] for p in candidates.prompt_index]
    vectors = _count_rows(words, answer_columns, width)
    others = _count_rows(demonstration_words, columns_of, width)
    has_one = np.array([text is not None for text in candidates.demonstrations])
    row_of = np.where(has_one, np.arange(len(has_one)), -1)
    return vectors, _row_cosines(vectors, others, row_of[candidates.prompt_index])


def _count_rows(
    texts: Sequence[Sequence[str]], columns_of: Sequence[dict[str, int]], width: int
) -> NDArray[np.float64]:
    counts = np.zeros((len(texts), width))
    for row, (words, column_of) in enumerate(zip(texts, columns_of, strict=True)):
        for word, count in Counter(words).items():
            counts[row, column_of[word]] = count
    return unit_rows(counts)


def _token_ids(words: list[list[str]]) -> list[list[int]]:
    id_of: dict[str, int] = {}
    return [[id_of.setdefault(word, len(id_of)) for word in answer] for answer in words]
