"""BLEU, GLEU and ROUGE-L of a thousand pairs, and self-BLEU of answer groups, beside the reference libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import numpy as np

from bench.measure import Provider
from bench.ops.text_textrank import licence_sentences, zipf
from rlsft_kernels import bleu_scores, gleu_scores, rouge_l_scores, self_bleu_groups


@dataclass
class MetricCase:
    """One metric on the same pairs."""

    truth: np.ndarray
    shape: str
    note: str
    providers: list[Provider]
    dtype: str = "int64 ids"
    baseline: str = "rlsft native 1T"

    def check(self, provider: Provider) -> str:
        """The largest difference from the plain definition."""
        got = np.asarray(provider.run(), dtype=np.float64)
        error = float(np.abs(got - self.truth[: len(got)]).max())
        if not error < 1e-9:
            raise AssertionError(f"{provider.name} is wrong by {error:.2e} on {self.shape}; not timed")
        return f"max {error:.1e}"


class SplitAtSpaces:
    """rouge_score's tokenizer protocol."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def damaged(sentences: list[list[str]], rng: np.random.Generator) -> list[list[str]]:
    """Copies with 8 % of the words dropped and 12 % replaced."""
    everything = [word for sentence in sentences for word in sentence]
    copies = []
    for sentence in sentences:
        kept = [word for word in sentence if rng.random() > 0.08] or sentence
        copies.append([str(rng.choice(everything)) if rng.random() < 0.12 else word for word in kept])
    return copies


def flat(texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([i for text in texts for i in text], dtype=np.int64), np.cumsum([0, *map(len, texts)])


def cases(*, quick: bool) -> Iterator[MetricCase]:
    """Each metric on 1000 pairs of sentences, then self-BLEU of 512 groups of 16."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from nltk.translate.gleu_score import sentence_gleu

    count = 100 if quick else 1000
    sentences, source = licence_sentences(100 if quick else 208)
    sentences = [sentence for sentence in sentences if len(sentence) > 7]  # the libraries differ on short texts
    references = (sentences * (count // len(sentences) + 1))[:count]
    hypotheses = damaged(references, np.random.default_rng(0))
    number: dict[str, int] = {}
    ids = [[[number.setdefault(w, len(number)) for w in text] for text in side] for side in (hypotheses, references)]
    method3, pairs = SmoothingFunction().method3, list(zip(references, hypotheses, strict=True))
    shape, note = f"{count} pairs", f"{np.mean([len(r) for r in references]):.0f} words a reference, {source}"
    bleu: list[Provider] = [
        Provider("nltk", lambda: [sentence_bleu([r], h, smoothing_function=method3) for r, h in pairs], package="nltk")
    ]
    if find_spec("sacrebleu") is not None:
        bleu.append(Provider("sacrebleu object", sacrebleu_run(pairs), package="sacrebleu"))
    gleu = [Provider("nltk", lambda: [sentence_gleu([r], h) for r, h in pairs], package="nltk")]
    rouge: list[Provider] = []
    if find_spec("rouge_score") is None:
        print("text_metrics: rouge_score is not installed; its row is left out (pip install rouge-score)")
    else:
        rouge.append(Provider("rouge_score", rouge_run(pairs), package="rouge-score"))
    for name, op, peers in (("BLEU-4 method3", bleu_scores, bleu), ("GLEU", gleu_scores, gleu)):
        yield MetricCase(
            np.asarray(op(*ids, backend="reference")), shape, f"{name}, {note}", [*ours(op, ids, np.asarray), *peers]
        )
    truth = np.asarray(rouge_l_scores(*ids, backend="reference").f1)
    yield MetricCase(truth, shape, f"ROUGE-L, {note}", [*ours(rouge_l_scores, ids, lambda got: got.f1), *rouge])
    yield self_bleu_case(32 if quick else 512)


def ours(op: Callable[..., Any], ids: list[list[list[int]]], pick: Callable[[Any], Any]) -> list[Provider]:
    """The public op from flat ids and from lists, on one thread."""
    (hypotheses, bounds), (references, others) = (flat(side) for side in ids)
    return [
        Provider(
            "rlsft native 1T",
            lambda: pick(op(hypotheses, references, hypothesis_offsets=bounds, reference_offsets=others)),
        ),
        Provider("rlsft native 1T, lists of ids", lambda: pick(op(*ids))),
    ]


def sacrebleu_run(pairs: list[tuple[list[str], list[str]]]) -> Callable[[], list[float]]:
    from sacrebleu.metrics import BLEU

    metric = BLEU(smooth_method="exp", tokenize="none", effective_order=True)
    texts = [(" ".join(r), " ".join(h)) for r, h in pairs]
    return lambda: [metric.sentence_score(h, [r]).score / 100 for r, h in texts]


def rouge_run(pairs: list[tuple[list[str], list[str]]]) -> Callable[[], list[float]]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=SplitAtSpaces())
    texts = [(" ".join(r), " ".join(h)) for r, h in pairs]
    return lambda: [scorer.score(r, h)["rougeL"].fmeasure for r, h in texts]


def self_bleu_case(count: int) -> MetricCase:
    """Answers of about 64 words; nltk does four groups, each answer against the fifteen others."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    rng, few, method3 = np.random.default_rng(0), 4, SmoothingFunction().method3
    texts = [zipf(rng, int(n)).tolist() for n in rng.integers(48, 81, size=count * 16)]
    ids, offsets = flat(texts)
    groups = np.arange(count + 1) * 16

    def with_nltk() -> list[float]:
        cuts = [texts[a:b] for a, b in pairwise(groups[: few + 1].tolist())]
        return [
            sentence_bleu(cut[:i] + cut[i + 1 :], text, smoothing_function=method3)
            for cut in cuts
            for i, text in enumerate(cut)
        ]

    def native() -> Any:
        return self_bleu_groups(ids, token_offsets=offsets, groups=groups)

    truth = np.asarray(
        self_bleu_groups(texts[: few * 16], groups=groups[: few + 1], backend="reference"), dtype=np.float64
    )
    first = len(truth)
    return MetricCase(
        np.concatenate([truth, np.asarray(native())[first:]]),
        f"{count}x16, {len(ids)} tokens",
        "self-BLEU method3; the plain definition checks the first four groups",
        [
            Provider("rlsft native 1T", native),
            Provider("rlsft native 2T", native, threads=2),
            Provider("nltk", with_nltk, scale=count / few, package="nltk"),
        ],
    )
