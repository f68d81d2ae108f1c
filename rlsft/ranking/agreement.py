"""A proxy of agreement with people: where does a ranker that saw one human reply put another one?

On prompts that several people answered, TextRank teleports to one reply, and another reply competes with answers
that were not given to the prompt by a person. This is no human judgement of the model's answers, and every report
says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlsft.errors import DataError
from rlsft.metrics import Interval, bootstrap_mean, paired_bootstrap
from rlsft.ranking.encoders import EncoderSpec, load_encoder
from rlsft.ranking.features import make_features
from rlsft.ranking.inputs import Candidates, Prompt, collect_candidates, prompt_key
from rlsft.ranking.noise import content_rng
from rlsft.ranking.scoring import Backend, GraphSettings, rank_within, score_answers

LABEL = (
    "Proxy of human agreement: where a second human reply is ranked among other answers, with the first reply shown. "
    "Not a human judgement of the model's answers."
)
METHODS = {
    "textrank_teleport": "TextRank, teleport to one human reply (default)",
    "textrank_paper": "TextRank without teleport (the paper's ranker)",
    "plain_cosine": "plain cosine to the human reply, no graph",
}
MEASURES = {
    "reciprocal_rank": "mean reciprocal rank",
    "percentile": "mean percentile (1 = first, 0 = last)",
    "top1": "first place rate",
}
GAIN = "teleport_minus_cosine"


class _Lists(NamedTuple):
    """One list of candidates a direction: which reply is shown, where the other one stands."""

    candidates: Candidates
    second: NDArray[np.int64]  # [L] row of the second reply
    prompt_of: NDArray[np.int64]  # [L]


def agreement_with_second_reply(
    examples: Sequence[tuple[Prompt, Sequence[str]]],
    *,
    samples: Sequence[Sequence[str]] | None = None,
    encoder: EncoderSpec = None,
    similarity: str = "shifted_cosine",
    damping: float = 0.85,
    teleport_strength: float = 4.0,
    num_distractors: int = 15,
    num_resamples: int = 2000,
    language: str = "en",
    seed: int = 0,
    backend: Backend = "auto",
) -> dict[str, Any]:
    """Rank a second human reply with the help of the first, and the first with the help of the second.

    The paper's ranker, plain cosine and chance stand beside the default, and the paired difference to plain cosine
    says what the graph adds. Intervals resample prompts.

    Args:
        examples: (prompt, replies) with at least two distinct replies each, such as
            `rlsft.data.chitchat.several_replies("test")`; the first two are used.
        samples: for each example the model's own answers as competitors; None: replies that people gave to other
            prompts, `num_distractors` of them, drawn with `seed`.
        encoder, similarity, damping, teleport_strength, language, backend: see `rank_responses`.
        num_distractors: competitors a prompt, at most.
        num_resamples: bootstrap samples of the intervals.

    Returns:
        A JSON object: `proxy` (True), `description`, `num_prompts`, `mean_candidates`, `distractors`, and `rows` of
        `method, measure, label, mean, low, high, n, chance`, the last method being `teleport_minus_cosine`.

    Raises:
        DataError: no example has two replies and a competitor.
    """
    lists = _make_lists(examples, samples, num_distractors, seed)
    features = make_features(lists.candidates, load_encoder(encoder), similarity=similarity, language=language)
    group = lists.candidates.prompt_index
    values = {"plain_cosine": features.cosine}
    for method, teleport in (("textrank_teleport", "demonstration"), ("textrank_paper", None)):
        settings = GraphSettings(
            damping=damping,
            teleport=teleport,  # type: ignore[arg-type]
            teleport_strength=teleport_strength,
            backend=backend,
        )
        values[method] = score_answers(lists.candidates, features, settings)[0]
    sizes = np.diff(lists.candidates.offsets)
    measured = {method: _measure(rank_within(values[method], group)[lists.second], sizes) for method in METHODS}
    return _report(
        measured,
        lists,
        num_resamples=num_resamples,
        seed=seed,
        distractors="replies to other prompts" if samples is None else "model samples",
    )


def _make_lists(
    examples: Sequence[tuple[Prompt, Sequence[str]]],
    samples: Sequence[Sequence[str]] | None,
    num_distractors: int,
    seed: int,
) -> _Lists:
    if samples is not None and len(samples) != len(examples):
        raise DataError(f"samples must have one entry an example: got {len(samples)} for {len(examples)} examples")
    pool = list(dict.fromkeys(reply for _, replies in examples for reply in replies if reply.strip()))
    prompts: list[Prompt] = []
    answers: list[list[str]] = []
    shown: list[str] = []
    places: list[int] = []
    prompt_of: list[int] = []
    for index, (prompt, replies) in enumerate(examples):
        own = list(dict.fromkeys(reply for reply in replies if reply.strip()))
        rng = content_rng(seed, "distractors", prompt_key(prompt))
        others = _draw(pool if samples is None else samples[index], own, num_distractors, rng)
        if len(own) < 2 or not others:
            continue
        for first, second in ((own[0], own[1]), (own[1], own[0])):
            place = int(rng.integers(len(others) + 1))  # a fixed place would win or lose every tie
            prompts.append(prompt)
            answers.append([*others[:place], second, *others[place:]])
            shown.append(first)
            places.append(place)
            prompt_of.append(index)
    if not prompts:
        raise DataError("examples hold no prompt with two distinct replies and another answer to rank beside")
    candidates = collect_candidates(prompts, answers, shown)
    return _Lists(candidates, candidates.offsets[:-1] + np.array(places), np.array(prompt_of))


def _draw(source: Sequence[str], own: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """Up to `count` distinct texts that no person gave as a reply to the prompt."""
    others = [text for text in dict.fromkeys(source) if text.strip() and text not in own]
    return [others[index] for index in rng.permutation(len(others))[:count]]


def _measure(rank: NDArray[np.int64], size: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    return {
        "reciprocal_rank": 1.0 / rank,
        "percentile": (size - rank) / (size - 1),
        "top1": (rank == 1).astype(np.float64),
    }


def _report(
    measured: dict[str, dict[str, NDArray[np.float64]]],
    lists: _Lists,
    *,
    num_resamples: int,
    seed: int,
    distractors: str,
) -> dict[str, Any]:
    sizes = np.diff(lists.candidates.offsets)
    settings: dict[str, Any] = {"groups": lists.prompt_of.tolist(), "num_resamples": num_resamples, "seed": seed}
    chance = {
        "reciprocal_rank": float(np.mean([(1.0 / np.arange(1, size + 1)).mean() for size in sizes])),
        "percentile": 0.5,
        "top1": float((1.0 / sizes).mean()),
    }
    rows = [
        _row(method, measure, bootstrap_mean(values[measure], **settings), chance[measure])
        for method, values in measured.items()
        for measure in MEASURES
    ]
    cosine, teleport = measured["plain_cosine"], measured["textrank_teleport"]
    rows += [
        _row(GAIN, measure, paired_bootstrap(cosine[measure], teleport[measure], **settings), None)
        for measure in MEASURES
    ]
    num_prompts = len(set(settings["groups"]))
    return {
        "proxy": True,
        "description": f"{LABEL} {num_prompts} prompts, {sizes.mean():.1f} candidates each ({distractors}).",
        "num_prompts": num_prompts,
        "mean_candidates": float(sizes.mean()),
        "distractors": distractors,
        "rows": rows,
    }


def _row(method: str, measure: str, value: Interval, chance: float | None) -> dict[str, Any]:
    name = METHODS.get(method, "what the graph adds: teleport minus plain cosine")
    return {
        "method": method,
        "measure": measure,
        "label": f"{name}: {MEASURES[measure]}",
        "mean": value.mean,
        "low": value.low,
        "high": value.high,
        "n": value.units,
        "chance": chance,
    }
