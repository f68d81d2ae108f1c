"""Keywords and key phrases of a text by TextRank of its words (Mihalcea and Tarau 2004)."""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import groupby

import numpy as np

from rlsft.ranking.text_words import check_top, is_content, numbered, stop_set
from rlsft.text import join_words, split_words

# Japanese writes endings and particles in hiragana: content words are Han characters, katakana and Latin runs.
_HIRAGANA_OR_NUMBER = re.compile(r"[\u3040-\u309f]+|[\d.,:]+")


def keywords(
    text: str,
    *,
    language: str = "en",
    window: int = 2,
    top: int | None = None,
    stop_words: Collection[str] | None = None,
    share: float = 1 / 3,
    weighted: bool = False,
    damping: float = 0.85,
) -> list[tuple[str, float]]:
    """(phrase, score) of the words that hold `text` together, best first.

    Content words that stand less than `window` words apart are joined (`rlsft_kernels.keyword_rank`); of them the best
    third is kept, and kept words that stand side by side become one phrase, as in the paper, which filters by part of
    speech where this drops stop words, numbers and marks. A phrase scores the mean of its words.

    Args:
        text: any text; an empty one has no keywords.
        language: "en", "ja" or "zh". Japanese phrases are runs of Han characters, katakana or Latin letters;
            Chinese ones are runs of the best characters, without knowledge of words.
        window: words a window spans, counted over all words of the text; 2 joins neighbours.
        top: at most this many phrases; None gives all.
        stop_words: words that are no keywords; None takes the built-in English ones (none in Japanese and Chinese).
        share: part of the content words that may make phrases, in (0, 1]; in Japanese, part of the phrases.
        weighted: an edge weighs how often two words stand together.
        damping: of the random walk, in [0, 1).

    Raises:
        ConfigError: an unknown language or a bad `top`. ValueError: a bad window, share or damping.
    """
    from rlsft_kernels import keyword_rank

    check_top(top)
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share!r}")
    ignored = stop_set(stop_words, language)
    words = [word.lower() for word in split_words(text, language)]
    keep = np.array([is_content(w, ignored) and not _HIRAGANA_OR_NUMBER.fullmatch(w) for w in words], dtype=bool)
    ids = np.array(numbered([words])[0], dtype=np.int64)
    result = keyword_rank(ids, keep=keep, window=window, weighted=weighted, damping=damping)
    scores, found = np.asarray(result.scores), np.asarray(result.token_ids)
    # a part of its characters would cut a Japanese word to pieces: there, the share is of the whole phrases
    kept = len(scores) if language == "ja" else int(np.ceil(share * len(scores)))
    best = np.argsort(-scores, kind="stable")[:kept]
    score_of = dict(zip(found[best].tolist(), scores[best].tolist(), strict=True))
    phrases: dict[str, float] = {}
    for chosen, run in groupby(range(len(words)), key=lambda i: int(ids[i]) in score_of):
        if chosen:
            places = list(run)
            phrase = join_words([words[i] for i in places], language)
            phrases.setdefault(phrase, float(np.mean([score_of[int(ids[i])] for i in places])))
    ranked = sorted(phrases.items(), key=lambda item: -item[1])
    return ranked[: int(np.ceil(share * len(ranked)))][:top] if language == "ja" else ranked[:top]
