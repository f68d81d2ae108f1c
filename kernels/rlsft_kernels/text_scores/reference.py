"""What BLEU, GLEU and ROUGE-L of token ids mean, slow and obvious. Tests treat this file as the truth."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence

Tokens = Sequence[int]


def ngrams(tokens: Tokens, n: int) -> Counter[tuple[int, ...]]:
    """How often each run of n tokens occurs."""
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def bleu_reference(hypothesis: Tokens, references: Sequence[Tokens], max_order: int, smoothing: str) -> float:
    """nltk's sentence_bleu with uniform weights; see `bleu_scores`."""
    log_precisions = []
    empty_orders = 0
    for n in range(1, max_order + 1):
        counts = ngrams(hypothesis, n)
        most: Counter[tuple[int, ...]] = Counter()
        for reference in references:
            most |= ngrams(reference, n)
        matches, total = (counts & most).total(), max(1, counts.total())
        if n == 1 and matches == 0:
            return 0.0
        if matches == 0:
            empty_orders += 1
            precision = _smoothed(smoothing, empty_orders, total, len(hypothesis))
        else:
            precision = matches / total
        if precision > 0:
            log_precisions.append(math.log(precision) / max_order)
    length = len(hypothesis)
    closest = min((len(reference) for reference in references), key=lambda r: (abs(r - length), r))
    penalty = 1.0 if length > closest else math.exp(1 - closest / length)
    return penalty * math.exp(math.fsum(log_precisions))


def _smoothed(smoothing: str, order: int, total: int, length: int) -> float:
    if smoothing == "method1":
        return 0.1 / total
    if smoothing == "method3":
        return 1 / (2**order * total)
    if smoothing == "method4":
        return math.log(length) / (5 * 2**order * total) if length > 1 else 0.0
    return sys.float_info.min


def gleu_reference(hypothesis: Tokens, references: Sequence[Tokens], min_order: int, max_order: int) -> float:
    """nltk's sentence_gleu; see `gleu_scores`."""
    orders = range(min_order, max_order + 1)
    best = 0.0
    for reference in references:
        pairs = [(ngrams(hypothesis, n), ngrams(reference, n)) for n in orders]
        shared = sum((a & b).total() for a, b in pairs)
        larger = max(sum(a.total() for a, _ in pairs), sum(b.total() for _, b in pairs))
        best = max(best, shared / larger if larger else 0.0)
    return best


def rouge_l_reference(hypothesis: Tokens, references: Sequence[Tokens]) -> tuple[float, float, float]:
    """(precision, recall, f1) of the reference with the best f1; see `rouge_l_scores`."""
    best = (0.0, 0.0, 0.0)
    for reference in references:
        shared = _common_subsequence(hypothesis, reference)
        if shared == 0:
            continue
        precision, recall = shared / len(hypothesis), shared / len(reference)
        f1 = 2 * precision * recall / (precision + recall)
        if f1 > best[2]:
            best = (precision, recall, f1)
    return best


def _common_subsequence(a: Tokens, b: Tokens) -> int:
    row = [0] * (len(b) + 1)
    for token in a:
        diagonal = 0
        for j, other in enumerate(b, start=1):
            above = row[j]
            row[j] = diagonal + 1 if token == other else max(above, row[j - 1])
            diagonal = above
    return row[-1]


def self_bleu_reference(texts: Sequence[Tokens], max_order: int, smoothing: str) -> list[float]:
    """BLEU of each text with the others as references; NaN for one alone."""
    if len(texts) < 2:
        return [math.nan] * len(texts)
    return [bleu_reference(text, [*texts[:i], *texts[i + 1 :]], max_order, smoothing) for i, text in enumerate(texts)]
