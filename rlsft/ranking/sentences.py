"""TextRank of the sentences of a text, and the summary they make (Mihalcea and Tarau 2004)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from rlsft.ranking.inputs import check_choice
from rlsft.ranking.text_words import check_top, is_content, numbered, stop_set
from rlsft.text import join_sentences, split_sentences, split_words

EDGES = ("word_overlap", "bm25")


@dataclass(frozen=True)
class RankedSentence:
    """A sentence, its place in the text and its score; the scores of all sentences sum to 1."""

    index: int
    text: str
    score: float


def rank_sentences(
    text: str,
    *,
    language: str = "en",
    edge: str = "word_overlap",
    top: int | None = None,
    damping: float = 0.85,
    stop_words: Collection[str] | None = None,
) -> list[RankedSentence]:
    """The sentences of `text` with their TextRank scores, in reading order.

    Sentences are joined by the content words they share (`rlsft_kernels.similarity_matrix` names the weights), in
    lower case, without marks and stop words. Equal sentences have equal scores and are all kept.

    Args:
        text: any text; an empty one has no sentences.
        language: "en", "ja" or "zh"; the words of the last two are characters.
        edge: "word_overlap" or "bm25".
        top: keep this many of the best, the earlier of equals first; None keeps all.
        damping: of the random walk, in [0, 1).
        stop_words: words that join no sentences; None takes the built-in English ones (none in Japanese and Chinese).

    Raises:
        ConfigError: an unknown language or edge, a bad `top`. ValueError: a bad damping.
    """
    from rlsft_kernels import textrank

    check_choice("edge", edge, EDGES)
    check_top(top)
    ignored = stop_set(stop_words, language)
    sentences = split_sentences(text, language)
    words = [[w for w in map(str.lower, split_words(s, language)) if is_content(w, ignored)] for s in sentences]
    scores = np.asarray(textrank(tokens=numbered(words), edge=edge, damping=damping).scores)
    best = np.argsort(-scores, kind="stable")[:top]
    return [RankedSentence(i, sentences[i], float(scores[i])) for i in sorted(best.tolist())]


def summarize(
    text: str,
    *,
    language: str = "en",
    top: int = 3,
    edge: str = "word_overlap",
    damping: float = 0.85,
    stop_words: Collection[str] | None = None,
) -> str:
    """The `top` best sentences of `text` in reading order, as one text; arguments as in `rank_sentences`."""
    ranked = rank_sentences(text, language=language, edge=edge, top=top, damping=damping, stop_words=stop_words)
    return join_sentences([sentence.text for sentence in ranked], language)
