"""keyword_rank: the words of a text that hold it together, from token ids."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from rlsft_kernels._backend import Backend, Supported, choose_backend
from rlsft_kernels._checks import require_choice, require_number, require_positive_int
from rlsft_kernels._groups import Array, contiguous_numpy, like, offsets_array, require_array
from rlsft_kernels.keyword_rank.reference import keyword_rank_reference
from rlsft_kernels.similarity.tokens import flatten
from rlsft_kernels.textrank.result import ConvergenceError

SUPPORTED: Supported = {"native": {"cpu": ("int64",)}}
ON_NONCONVERGENCE = ("raise", "warn", "ignore")
Texts = Sequence[int] | Sequence[Sequence[int]] | Array
Int64s = npt.NDArray[np.int64]


class KeywordRankResult(NamedTuple):
    """Words in the order of their first appearance; the words of text t are [offsets[t] : offsets[t + 1]]."""

    token_ids: Array  # [words] int64
    scores: Array  # [words] float64, sum 1 in each text
    counts: Array  # [words] int64: how often the word was kept
    n_iter: Array  # sweeps of each text, int64 [texts]; 0-d for one text
    residual: Array  # L1 step of the last sweep, float64 [texts]; 0-d for one text
    offsets: Array  # [texts + 1] int64


class _Ranked(NamedTuple):
    ids: Int64s  # [words]
    scores: npt.NDArray[np.float64]  # [words]
    counts: Int64s  # [words]
    words: Int64s  # [texts]
    n_iter: Int64s  # [texts]
    residual: npt.NDArray[np.float64]  # [texts]


@dataclass(frozen=True)
class _Options:
    window: int
    weighted: bool
    directed: bool
    damping: float
    tol: float
    max_iter: int


def keyword_rank(
    tokens: Texts,  # token ids of one text; a list of texts; or flat ids with offsets (int64 or int32)
    *,
    offsets: Array | None = None,  # [texts + 1] int64
    window: int = 2,
    keep: Array | Collection[int] | None = None,  # ids that may be words, or a mask [number of tokens]
    damping: float = 0.85,
    tol: float = 1e-10,
    max_iter: int = 1000,
    weighted: bool = False,
    directed: bool = False,
    on_nonconvergence: str = "raise",
    threads: int | None = None,
    backend: Backend = "auto",
) -> KeywordRankResult:
    """TextRank of the words of each text: words gain from neighbours that have few others (Mihalcea and Tarau 2004).

    x_j = (1-a)/n + a (sum_{i: s_i>0} x_i w_ij / s_i + D/n) over the n distinct kept words, with an edge between two
    different words that stand less than `window` tokens apart, s_i = sum_j w_ij and D the sum of x_i over words
    without edges. The paper's graph is unweighted and undirected, with a window of 2 (neighbours) to 10.

    Positions are those of `tokens`: a word that `keep` drops still takes its place in the window, as in the paper,
    which filters nouns and adjectives after counting. To count over the kept words alone, drop the others first.

    Args:
        tokens: token ids; a flat list or array is one text.
        offsets: where each text starts in flat tokens, [0, .., number of tokens].
        window: tokens that a window spans, at least 2.
        keep: which words may be nodes; a bool array masks positions of the flat tokens, integers are ids. None: all.
        damping: a, in [0, 1).
        tol: absolute L1 step on scores that sum to 1; the scores are then within a / (1-a) * tol of the solution.
        max_iter: sweeps a text may take.
        weighted: an edge weighs how often the pair stands in a window, instead of 1.
        directed: edges lead from the earlier word to the later one.
        on_nonconvergence: "raise" a ConvergenceError, "warn", or "ignore" when a text reaches max_iter.
        threads: native backend; None follows torch.get_num_threads(). The result does not depend on it.
        backend: "native" is the C++ core, "reference" plain NumPy.

    Returns:
        Words, scores and counts, flat over the texts, as torch tensors when tokens is one and as NumPy arrays
        otherwise. Best first: `order = np.argsort(-scores, kind="stable")`.

    Raises:
        TypeError: wrong kind or dtype. ValueError: wrong shape or value; the message names the argument.
        ConvergenceError: max_iter reached; carries n_iter, residual and the text as `group`.
    """
    options = _Options(window, bool(weighted), bool(directed), damping, tol, max_iter)
    _check(options, on_nonconvergence)
    threads = torch.get_num_threads() if threads is None else threads
    require_positive_int("threads", threads)
    ids, bounds, single = _read_texts(tokens, offsets)
    mask = _keep_mask(keep, ids)
    chosen = choose_backend("keyword_rank", backend, device_type="cpu", dtype="int64", supported=SUPPORTED)
    run = _native if chosen == "native" else _reference
    ranked = run(ids, mask, bounds, options, threads)
    _report(ranked, options, on_nonconvergence, single)
    return _result(ranked, single, tokens if isinstance(tokens, torch.Tensor) else np.empty(0))


def _check(options: _Options, on_nonconvergence: str) -> None:
    require_positive_int("window", options.window)
    if options.window < 2:
        raise ValueError(f"window must be >= 2 (2 joins neighbouring words), got {options.window}")
    require_number("damping", options.damping, at_least=0)
    if options.damping >= 1:
        raise ValueError(f"damping must be below 1, got {options.damping!r}")
    require_number("tol", options.tol, above=0)
    require_positive_int("max_iter", options.max_iter)
    require_choice("on_nonconvergence", on_nonconvergence, ON_NONCONVERGENCE)


def _read_texts(tokens: Texts, offsets: Array | None) -> tuple[Int64s, Int64s, bool]:
    """(flat ids, offsets, whether this is one text)."""
    if isinstance(tokens, (torch.Tensor, np.ndarray)):
        require_array("tokens", tokens, ("int64", "int32"))
        if tokens.ndim != 1:
            raise ValueError(f"tokens must be flat [number of tokens], with offsets for texts, got {tokens.ndim} axes")
        ids = contiguous_numpy(tokens).astype(np.int64, copy=False)
        if offsets is None:
            return ids, np.array([0, len(ids)], dtype=np.int64), True
        return ids, offsets_array("offsets", offsets, len(ids), "tokens"), False
    if offsets is not None:
        raise ValueError("offsets goes with flat tokens (a tensor or an array), got a list")
    if isinstance(tokens, str) or not isinstance(tokens, Sequence):
        raise TypeError(f"tokens must be token ids, got {type(tokens).__name__}; encode the text first")
    nested = len(tokens) > 0 and isinstance(tokens[0], (Sequence, np.ndarray, torch.Tensor))
    ids, bounds = flatten(tokens if nested else [tokens])  # type: ignore[arg-type, list-item]
    return ids, bounds, not nested


def _keep_mask(keep: Array | Collection[int] | None, ids: Int64s) -> npt.NDArray[np.bool_] | None:
    if keep is None:
        return None
    given = contiguous_numpy(keep) if isinstance(keep, (torch.Tensor, np.ndarray)) else np.asarray(list(keep))
    if given.dtype == bool:
        if given.shape != ids.shape:
            raise ValueError(f"keep as a mask must be [{len(ids)}], one entry a token, got shape {list(given.shape)}")
        return np.ascontiguousarray(given)
    if given.size and given.dtype.kind not in "iu":
        raise TypeError(f"keep must be token ids or a bool mask, got {given.dtype}")
    return np.isin(ids, given)


def _native(
    ids: Int64s, mask: npt.NDArray[np.bool_] | None, bounds: Int64s, options: _Options, threads: int
) -> _Ranked:
    from rlsft_kernels import _C

    texts = len(bounds) - 1
    found, scores, counts = np.empty_like(ids), np.empty(len(ids)), np.empty_like(ids)
    words, n_iter, residual = np.empty(texts, np.int64), np.empty(texts, np.int64), np.empty(texts)
    _C.keyword_rank(
        ids,
        mask,
        bounds,
        options.window,
        options.weighted,
        options.directed,
        options.damping,
        options.tol,
        options.max_iter,
        threads,
        found,
        scores,
        counts,
        words,
        n_iter,
        residual,
    )
    # the words of a text fill the front of its tokens' places
    is_word = np.arange(len(ids)) - np.repeat(bounds[:-1], np.diff(bounds)) < np.repeat(words, np.diff(bounds))
    return _Ranked(found[is_word], scores[is_word], counts[is_word], words, n_iter, residual)


def _reference(
    ids: Int64s, mask: npt.NDArray[np.bool_] | None, bounds: Int64s, options: _Options, threads: int
) -> _Ranked:
    kept = np.ones(len(ids), dtype=bool) if mask is None else mask
    ranked = [
        keyword_rank_reference(
            ids[begin:end].tolist(),
            kept[begin:end].tolist(),
            window=options.window,
            weighted=options.weighted,
            directed=options.directed,
            damping=options.damping,
            tol=options.tol,
            max_iter=options.max_iter,
        )
        for begin, end in pairwise(bounds)
    ]
    return _Ranked(
        np.array([word for words, *_ in ranked for word in words], dtype=np.int64),
        np.concatenate([np.empty(0), *(scores for _, scores, *_ in ranked)]),
        np.array([count for _, _, counts, *_ in ranked for count in counts], dtype=np.int64),
        np.array([len(words) for words, *_ in ranked], dtype=np.int64),
        np.array([sweeps for *_, sweeps, _ in ranked], dtype=np.int64),
        np.array([step for *_, step in ranked], dtype=np.float64),
    )


def _report(ranked: _Ranked, options: _Options, action: str, single: bool) -> None:
    late = np.flatnonzero(ranked.residual >= options.tol)
    if action == "ignore" or len(late) == 0:
        return
    text = int(late[0])
    n_iter, residual = int(ranked.n_iter[text]), float(ranked.residual[text])
    which = "the text" if single else f"text {text} (and {len(late) - 1} more of {len(ranked.words)})"
    message = (
        f"keyword_rank: {which} did not converge: residual = {residual:.3g} >= tol = {options.tol:g} after n_iter = "
        f"{n_iter} sweeps (max_iter = {options.max_iter}); raise max_iter or tol, or pass "
        "on_nonconvergence='warn' or 'ignore'"
    )
    if action == "raise":
        raise ConvergenceError(message, n_iter=n_iter, residual=residual, group=text)
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def _result(ranked: _Ranked, single: bool, pattern: Array) -> KeywordRankResult:
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(ranked.words)])
    shape = () if single else (len(ranked.words),)

    def give(values: Any, dtype: str) -> Array:
        return like(values, pattern, dtype)

    return KeywordRankResult(
        give(ranked.ids, "int64"),
        give(ranked.scores, "float64"),
        give(ranked.counts, "int64"),
        give(ranked.n_iter.reshape(shape), "int64"),
        give(ranked.residual.reshape(shape), "float64"),
        give(offsets, "int64"),
    )
