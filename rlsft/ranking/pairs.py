"""Preference pairs from the ranked representatives, and noise in their lower answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlsft.errors import ConfigError
from rlsft.ranking.inputs import Prompt, check_choice, prompt_key
from rlsft.ranking.noise import NOISE_KINDS, add_noise, check_noise_kinds, content_rng

PairMode = Literal["at_least", "exact"]
PAIR_MODES = ("at_least", "exact")
NOISE_TRIES = 8  # damage that happens to give the better answer is drawn anew so often


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """Which representatives are paired, and how often the lower one is damaged."""

    rank_interval: int | None = None  # IL; None: m' // 2, at least 1
    pair_mode: PairMode = "at_least"  # l >= w + IL, or l == w + IL
    max_pairs_per_prompt: int | None = None  # None: all of them
    noise_rate: float = 0.24  # share of pairs whose lower answer is damaged
    noise_kinds: Sequence[str] = NOISE_KINDS
    language: str = "en"
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("pair_mode", self.pair_mode, PAIR_MODES)
        check_noise_kinds(self.noise_kinds)
        for name in ("rank_interval", "max_pairs_per_prompt"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name} must be an integer of at least 1, or None, got {value!r}")
        if not 0.0 <= self.noise_rate <= 1.0:
            raise ConfigError(f"noise_rate must lie between 0 and 1, got {self.noise_rate}")
        if self.noise_rate > 0 and not len(self.noise_kinds):
            raise ConfigError("noise_kinds is empty: name at least one kind, or set noise_rate=0")

    def interval(self, num_representatives: int) -> int:
        """IL for a prompt with m' representatives."""
        return self.rank_interval or max(1, num_representatives // 2)


def pair_places(num_representatives: int, interval: int, mode: str) -> list[tuple[int, int]]:
    """All (w, l), counted from 0, with `l >= w + interval` ("at_least") or `l == w + interval` ("exact")."""
    return [
        (w, low)
        for w in range(num_representatives)
        for low in range(w + interval, num_representatives)
        if mode == "at_least" or low == w + interval
    ]


def make_pairs(
    prompt: Prompt,
    representatives: Sequence[dict[str, Any]],  # rows of the prompt's representatives, best first
    others: Sequence[str],  # all its answers: what noise may borrow words from
    settings: PairSettings,
) -> list[dict[str, Any]]:
    """The pairs of one prompt: `prompt, chosen, rejected` and where they come from.

    A chat prompt gets `chosen` and `rejected` as one assistant message each, as TRL's conversational
    preference format wants them. Draws depend on the seed and the texts alone.
    """
    count = len(representatives)
    places = [
        (w, low)
        for w, low in pair_places(count, settings.interval(count), settings.pair_mode)
        # without clusters equal answers all stay, and a pair of equals teaches nothing
        if not same_text(representatives[w]["completion"], representatives[low]["completion"])
    ]
    if settings.max_pairs_per_prompt is not None and len(places) > settings.max_pairs_per_prompt:
        rng = content_rng(settings.seed, "cap", prompt_key(prompt))
        keep = rng.permutation(len(places))[: settings.max_pairs_per_prompt]
        places = [places[index] for index in sorted(keep)]
    return [_pair(prompt, representatives[w], representatives[low], low - w, others, settings) for w, low in places]


def _pair(
    prompt: Prompt,
    high: dict[str, Any],
    low: dict[str, Any],
    gap: int,
    others: Sequence[str],
    settings: PairSettings,
) -> dict[str, Any]:
    clean = low["completion"]
    rng = content_rng(settings.seed, prompt_key(prompt), high["completion"], clean)
    text, kind = clean, None
    if rng.random() < settings.noise_rate:
        borrowed = [other for other in others if other != clean]
        for _ in range(NOISE_TRIES):
            noised = add_noise(clean, rng, kinds=settings.noise_kinds, language=settings.language, others=borrowed)
            if not same_text(noised.text, high["completion"]):
                text, kind = noised
                break
    return {
        "prompt": prompt,
        "chosen": as_completion(prompt, high["completion"]),
        "rejected": as_completion(prompt, text),
        "chosen_rank": high["rank"],
        "rejected_rank": low["rank"],
        "rank_gap": gap,
        "noise": kind,
        "rejected_without_noise": clean if kind else None,
        "prompt_index": high["prompt_index"],
        "chosen_index": high["response_index"],
        "rejected_index": low["response_index"],
    }


def same_text(a: str, b: str) -> bool:
    """Whether a reader sees the same answer: white space around and between words does not count."""
    return a.split() == b.split()


def as_completion(prompt: Prompt, text: str) -> str | list[dict[str, str]]:
    """`text` in the form that goes with `prompt`: a string, or one assistant message."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
