"""bleu_scores, gleu_scores, rouge_l_scores and self_bleu_groups on token ids."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._backend import Backend, Supported, choose_backend
from rlsft_kernels._checks import require_choice, require_positive_int
from rlsft_kernels._groups import Array, like
from rlsft_kernels.similarity.tokens import Tokens, token_groups
from rlsft_kernels.text_scores.inputs import References, cut, scored_texts
from rlsft_kernels.text_scores.reference import (
    bleu_reference,
    gleu_reference,
    rouge_l_reference,
    self_bleu_reference,
)

SMOOTHINGS = ("none", "method1", "method3", "method4")  # in the order of BleuSmoothing in csrc
SUPPORTED: Supported = {"native": {"cpu": ("int64",)}}


class RougeLScores(NamedTuple):
    """ROUGE-L of the reference with the largest f1; each [n] float64."""

    precision: Array
    recall: Array
    f1: Array


def bleu_scores(
    hypotheses: Tokens,  # a list of texts, each a list of token ids; or flat ids (int64 or int32) with offsets
    references: References,  # one for each hypothesis; or a list of references for each
    *,
    hypothesis_offsets: Array | None = None,  # [n + 1] int64
    reference_offsets: Array | None = None,  # [references + 1] int64
    reference_groups: Array | None = None,  # [n + 1] int64: which references belong to each hypothesis
    max_order: int = 4,
    smoothing: str = "method3",
    threads: int | None = None,
    backend: Backend = "auto",
) -> Array:  # [n] float64
    """Sentence BLEU of each hypothesis, 0 to 1: nltk's `sentence_bleu` with uniform weights, to rounding.

    bp * exp(mean_n log p_n) for n-grams of 1 to max_order (Papineni et al. 2002): p_n is the share of the hypothesis's
    n-grams that a reference holds, each counted as often as in the reference that holds it most often, and bp =
    exp(min(0, 1 - r / length)) with r the nearest reference length, the smaller of two.

    Args:
        hypotheses: token ids of each text.
        references: token ids of what each is compared with. Without any, the score is 0.
        hypothesis_offsets: where each text starts in flat hypotheses.
        reference_offsets: where each text starts in flat references.
        reference_groups: [0, .., references], for several references each in a flat list.
        max_order: longest n-gram.
        smoothing: what replaces a p_n without a match (Chen and Cherry 2014), by nltk's names: "none" the smallest
            double, "method1" 0.1 matches, "method3" 1/2, 1/4, .. matches, "method4" those shrunk by log(length) / 5.
        threads: native backend; None follows torch.get_num_threads(). The result does not depend on it.
        backend: "native" is the C++ core, "reference" plain Python.

    Returns:
        One score a hypothesis, as a torch tensor when hypotheses is one and as a NumPy array otherwise.

    Raises:
        TypeError: wrong kind or dtype. ValueError: wrong shape or value; the message names the argument.
    """
    require_positive_int("max_order", max_order)
    require_choice("smoothing", smoothing, SMOOTHINGS)
    texts = scored_texts(hypotheses, references, hypothesis_offsets, reference_offsets, reference_groups)
    threads = _threads(threads)
    if _choose("bleu_scores", backend) == "native":
        from rlsft_kernels import _C

        scores = np.empty(len(texts))
        _C.bleu_scores(*texts.arrays, max_order, SMOOTHINGS.index(smoothing), threads, scores)
    else:
        scores = np.array([bleu_reference(text, refs, max_order, smoothing) for text, refs in texts.pairs()])
    return _give(scores, hypotheses)


def gleu_scores(
    hypotheses: Tokens,
    references: References,
    *,
    hypothesis_offsets: Array | None = None,  # [n + 1] int64
    reference_offsets: Array | None = None,  # [references + 1] int64
    reference_groups: Array | None = None,  # [n + 1] int64
    min_order: int = 1,
    max_order: int = 4,
    threads: int | None = None,
    backend: Backend = "auto",
) -> Array:  # [n] float64
    """Google-BLEU of each hypothesis, 0 to 1: nltk's `sentence_gleu` (arXiv 1609.08144), to rounding.

    The number of shared n-grams of min_order to max_order, over the larger of their numbers in hypothesis and
    reference; of the best reference. Arguments and errors as in `bleu_scores`.

    Args:
        hypotheses: token ids of each text.
        references: token ids of what each is compared with.
        hypothesis_offsets: where each text starts in flat hypotheses.
        reference_offsets: where each text starts in flat references.
        reference_groups: [0, .., references], for several references each in a flat list.
        min_order: shortest n-gram.
        max_order: longest n-gram.
        threads: native backend; None follows torch.get_num_threads().
        backend: "native" is the C++ core, "reference" plain Python.

    Returns:
        One score a hypothesis; 0 where neither side has an n-gram.

    Raises:
        TypeError: wrong kind or dtype. ValueError: wrong shape or value; the message names the argument.
    """
    require_positive_int("min_order", min_order)
    require_positive_int("max_order", max_order)
    if max_order < min_order:
        raise ValueError(f"max_order must be at least min_order = {min_order}, got {max_order}")
    texts = scored_texts(hypotheses, references, hypothesis_offsets, reference_offsets, reference_groups)
    threads = _threads(threads)
    if _choose("gleu_scores", backend) == "native":
        from rlsft_kernels import _C

        scores = np.empty(len(texts))
        _C.gleu_scores(*texts.arrays, min_order, max_order, threads, scores)
    else:
        scores = np.array([gleu_reference(text, refs, min_order, max_order) for text, refs in texts.pairs()])
    return _give(scores, hypotheses)


def rouge_l_scores(
    hypotheses: Tokens,
    references: References,
    *,
    hypothesis_offsets: Array | None = None,  # [n + 1] int64
    reference_offsets: Array | None = None,  # [references + 1] int64
    reference_groups: Array | None = None,  # [n + 1] int64
    threads: int | None = None,
    backend: Backend = "auto",
) -> RougeLScores:
    """ROUGE-L of each hypothesis (Lin 2004), 0 to 1: rouge_score's numbers on the same tokens, to rounding.

    Longest common subsequence over the length of the hypothesis (precision) and of the reference (recall); f1 = 2PR /
    (P + R). Bit-parallel (Hyyro 2004). Arguments and errors as in `bleu_scores`.

    Args:
        hypotheses: token ids of each text.
        references: token ids of what each is compared with; the one with the largest f1 counts.
        hypothesis_offsets: where each text starts in flat hypotheses.
        reference_offsets: where each text starts in flat references.
        reference_groups: [0, .., references], for several references each in a flat list.
        threads: native backend; None follows torch.get_num_threads().
        backend: "native" is the C++ core, "reference" plain Python.

    Returns:
        precision, recall and f1 of each hypothesis; 0 where a side is empty.

    Raises:
        TypeError: wrong kind or dtype. ValueError: wrong shape or value; the message names the argument.
    """
    texts = scored_texts(hypotheses, references, hypothesis_offsets, reference_offsets, reference_groups)
    threads = _threads(threads)
    parts: Sequence[npt.NDArray[np.float64]]
    if _choose("rouge_l_scores", backend) == "native":
        from rlsft_kernels import _C

        precision, recall, f1 = (np.empty(len(texts)) for _ in range(3))
        _C.rouge_l_scores(*texts.arrays, threads, precision, recall, f1)
        parts = (precision, recall, f1)
    else:
        rows = [rouge_l_reference(text, refs) for text, refs in texts.pairs()]
        parts = list(np.array(rows, dtype=np.float64).reshape(-1, 3).T)
    return RougeLScores(*(_give(part, hypotheses) for part in parts))


def self_bleu_groups(
    tokens: Tokens,
    *,
    token_offsets: Array | None = None,  # [texts + 1] int64, with flat tokens
    groups: Array | None = None,  # [G + 1] int64 offsets that cut the texts into groups
    max_order: int = 4,
    smoothing: str = "method3",
    threads: int | None = None,
    backend: Backend = "auto",
) -> Array:  # [texts] float64
    """Self-BLEU (Zhu et al. 2018): `bleu_scores` of each text with all others of its group as its references.

    1 means a copy of the others. The cost is linear in the tokens of a group, not in the pairs of its texts.

    Args:
        tokens: token ids of each text.
        token_offsets: where each text starts in flat tokens.
        groups: [0, .., texts]; None: one group.
        max_order: longest n-gram.
        smoothing: as in `bleu_scores`.
        threads: native backend; None follows torch.get_num_threads().
        backend: "native" is the C++ core, "reference" plain Python.

    Returns:
        One score a text; NaN for a text alone in its group. A group's self-BLEU is the mean over its texts.

    Raises:
        TypeError: wrong kind or dtype. ValueError: wrong shape or value; the message names the argument.
    """
    require_positive_int("max_order", max_order)
    require_choice("smoothing", smoothing, SMOOTHINGS)
    parsed = token_groups(tokens, token_offsets, groups)
    threads = _threads(threads)
    if _choose("self_bleu_groups", backend) == "native":
        from rlsft_kernels import _C

        scores = np.empty(len(parsed.offsets) - 1)
        bounds = parsed.groups.offsets
        _C.self_bleu_groups(parsed.ids, parsed.offsets, bounds, max_order, SMOOTHINGS.index(smoothing), threads, scores)
    else:
        texts = cut(parsed.ids, parsed.offsets)
        spans = pairwise(parsed.groups.offsets.tolist())
        scores = np.array(
            [score for a, b in spans for score in self_bleu_reference(texts[a:b], max_order, smoothing)],
            dtype=np.float64,
        )
    return _give(scores, tokens)


def _threads(threads: int | None) -> int:
    if threads is None:
        return torch.get_num_threads()
    require_positive_int("threads", threads)
    return threads


def _choose(op: str, backend: Backend) -> Backend:
    return choose_backend(op, backend, device_type="cpu", dtype="int64", supported=SUPPORTED)


def _give(scores: npt.NDArray[np.float64], pattern: Tokens) -> Array:
    return like(scores, pattern if isinstance(pattern, torch.Tensor) else np.empty(0), "float64")
