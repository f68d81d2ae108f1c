"""How varied answers are: distinct-n, self-BLEU, repetition and length."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from rlsft.errors import ConfigError
from rlsft.text import split_words

NGram = tuple[str, ...]


def distinct_n(texts: Sequence[str], n: int, *, language: str = "en") -> float:
    """Unique over all n-grams of all `texts` together (Li et al. 2016); 0 when there is no n-gram.

    Falls as the texts grow in number and length: compare equal numbers of answers only.
    """
    return distinct_n_leave_one_out(texts, n, language=language)[0]


def distinct_n_leave_one_out(
    texts: Sequence[str], n: int, *, language: str = "en", units: Sequence[Hashable] | None = None
) -> tuple[float, NDArray[np.float64]]:
    """`distinct_n` and its values with each unit left out, for `jackknife_interval`.

    `units` [len(texts)] names what is left out together, such as the prompt of several answers; None = each
    text. The second result follows the order in which units first appear.
    """
    names = range(len(texts)) if units is None else units
    per_unit: dict[Hashable, Counter[NGram]] = {}
    for name, text in zip(names, texts, strict=True):
        per_unit.setdefault(name, Counter()).update(_ngrams(text, n, language))
    total: Counter[NGram] = Counter()
    for counts in per_unit.values():
        total.update(counts)
    num_unique, num_all = len(total), total.total()
    left_out = [
        _ratio(num_unique - sum(total[gram] == count for gram, count in counts.items()), num_all - counts.total())
        for counts in per_unit.values()
    ]
    return _ratio(num_unique, num_all), np.array(left_out, dtype=np.float64)


def self_bleu(texts: Sequence[str], *, language: str = "en", max_texts: int | None = None, seed: int = 0) -> float:
    """Mean BLEU-4 (method3) of each text against all others (Zhu et al. 2018): 1 means all alike.

    nltk's numbers on `split_words` tokens. NaN below two texts. `max_texts` draws a seeded sample: the value grows
    with the number of texts, so compare equal numbers only.
    """
    chosen = list(texts)
    if max_texts is not None and len(chosen) > max_texts:
        picks = np.random.default_rng(seed).choice(len(chosen), size=max_texts, replace=False)
        chosen = [chosen[i] for i in sorted(picks.tolist())]
    if len(chosen) < 2:
        return math.nan
    return sum(_bleu_with_others([split_words(text, language) for text in chosen])) / len(chosen)


def _bleu_with_others(texts: Sequence[Sequence[str]]) -> list[float]:
    """`sentence_bleu` of each text with all others as references; texts without words score 0 and are no reference.

    On word numbers, where the core compares all texts at once; its plain definition gives the same numbers.
    """
    from rlsft_kernels import self_bleu_groups
    from rlsft_kernels._backend import native_status

    number: dict[str, int] = {}
    filled = [[number.setdefault(word, len(number)) for word in text] for text in texts if text]
    if len(filled) < 2:
        return [0.0] * len(filled)
    return np.asarray(self_bleu_groups(filled, backend="auto" if native_status()[0] else "reference")).tolist()


def repetition(text: str, *, n: int = 4, language: str = "en") -> float:
    """Share of n-grams that the text held before: `1 - unique/all` (Welleck et al. 2020); 0 without any."""
    grams = _ngrams(text, n, language)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def length_in_words(text: str, *, language: str = "en") -> int:
    """Number of tokens of `split_words`: words and marks in English, characters in Japanese and Chinese."""
    return len(split_words(text, language))


def _ngrams(text: str, n: int, language: str) -> list[NGram]:
    if n < 1:
        raise ConfigError(f"n must be at least 1, got {n}")
    words = [word.lower() for word in split_words(text, language)]
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
