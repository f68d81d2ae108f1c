"""Which representatives are paired, and that draws depend on nothing but seed and text."""

from __future__ import annotations

from typing import Any

import pytest

from rlsft.ranking.pairs import PairSettings, make_pairs, pair_places


def representatives(count: int) -> list[dict[str, Any]]:
    return [
        {"completion": f"Answer number {i} is fine.", "rank": 2 * i + 1, "prompt_index": 4, "response_index": 9 - i}
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "interval", "mode", "places"),
    [
        (4, 2, "at_least", [(0, 2), (0, 3), (1, 3)]),
        (4, 2, "exact", [(0, 2), (1, 3)]),
        (3, 1, "at_least", [(0, 1), (0, 2), (1, 2)]),
        (3, 1, "exact", [(0, 1), (1, 2)]),
        (3, 3, "at_least", []),
        (1, 1, "at_least", []),
        (0, 1, "exact", []),
    ],
)
def test_pair_places_by_hand(count: int, interval: int, mode: str, places: list[tuple[int, int]]) -> None:
    assert pair_places(count, interval, mode) == places


@pytest.mark.parametrize(("count", "interval"), [(2, 1), (3, 1), (4, 2), (7, 3), (16, 8)])
def test_the_default_interval_is_half_the_representatives(count: int, interval: int) -> None:
    assert PairSettings().interval(count) == interval
    assert PairSettings(rank_interval=5).interval(count) == 5


def test_a_pair_says_where_it_comes_from() -> None:
    pairs = make_pairs("Why?", representatives(3), [], PairSettings(noise_rate=0.0, rank_interval=2))
    assert pairs == [
        {
            "prompt": "Why?",
            "chosen": "Answer number 0 is fine.",
            "rejected": "Answer number 2 is fine.",
            "chosen_rank": 1,
            "rejected_rank": 5,
            "rank_gap": 2,
            "noise": None,
            "rejected_without_noise": None,
            "prompt_index": 4,
            "chosen_index": 9,
            "rejected_index": 7,
        }
    ]


def test_a_chat_prompt_gets_messages_on_both_sides() -> None:
    chat = [{"role": "user", "content": "Why?"}]
    (pair,) = make_pairs(chat, representatives(2), [], PairSettings(noise_rate=0.0))
    assert pair["chosen"] == [{"role": "assistant", "content": "Answer number 0 is fine."}]
    assert pair["rejected"] == [{"role": "assistant", "content": "Answer number 1 is fine."}]


def test_noise_touches_the_lower_answer_only() -> None:
    pairs = make_pairs("Why?", representatives(6), ["Something else entirely."], PairSettings(noise_rate=1.0))
    assert len(pairs) == 6
    clean = {row["completion"] for row in representatives(6)}
    for pair in pairs:
        assert pair["chosen"] in clean
        assert pair["rejected_without_noise"] in clean
        assert pair["rejected"] != pair["rejected_without_noise"]
        assert pair["noise"] in ("ngram", "negation")  # one sentence: nothing to shuffle


def test_noise_rate_is_met() -> None:
    settings = PairSettings(noise_rate=0.24, rank_interval=1)
    pairs = [pair for n in range(40) for pair in make_pairs(f"prompt {n}", representatives(8), [], settings)]
    rate = sum(pair["noise"] is not None for pair in pairs) / len(pairs)
    assert len(pairs) == 40 * 28
    assert rate == pytest.approx(0.24, abs=0.04)  # 3 standard deviations


@pytest.mark.parametrize("options", [{"noise_rate": 0.5}, {"noise_rate": 0.0, "max_pairs_per_prompt": 5}], ids=str)
def test_the_seed_decides_noise_and_cap(options: dict[str, Any]) -> None:
    def made(seed: int) -> list[dict[str, Any]]:
        settings = PairSettings(rank_interval=1, seed=seed, **options)
        return make_pairs("Why?", representatives(8), ["Not that."], settings)

    assert made(0) == made(0)
    assert made(0) != made(1)


def test_the_cap_keeps_a_subset_of_the_pairs() -> None:
    every = make_pairs("Why?", representatives(6), [], PairSettings(noise_rate=0.3, rank_interval=1))
    some = make_pairs(
        "Why?", representatives(6), [], PairSettings(noise_rate=0.3, rank_interval=1, max_pairs_per_prompt=4)
    )
    assert len(some) == 4
    assert all(pair in every for pair in some)


def test_equal_answers_are_never_paired() -> None:
    rows = representatives(4)
    rows[2]["completion"] = rows[0]["completion"].replace(" ", "  ")  # without clusters, equal answers all stay
    pairs = make_pairs("Why?", rows, [], PairSettings(noise_rate=0.0, rank_interval=2))
    assert [(pair["chosen_rank"], pair["rejected_rank"]) for pair in pairs] == [(1, 7), (3, 7)]


def test_damage_that_gives_the_better_answer_is_drawn_anew() -> None:
    rows = [row | {"completion": text} for row, text in zip(representatives(2), ("1 2", "1 2 2"), strict=True)]
    settings = [PairSettings(noise_rate=1.0, rank_interval=1, noise_kinds=("ngram",), seed=seed) for seed in range(40)]
    pairs = [pair for setting in settings for pair in make_pairs("Sort 2 1.", rows, [], setting)]
    assert all(pair["rejected"].split() != ["1", "2"] for pair in pairs)
    assert sum(pair["noise"] is not None for pair in pairs) == 40
