"""The whole pipeline: independence of the batch, determinism, languages, equal answers."""

from __future__ import annotations

from typing import Any

import pytest

from rlsft.ranking import rank_responses
from tests.ranking.fakes import hash_encoder

PROMPTS = ["Hello?", "How was your day?", "Do you like tea?"]
RESPONSES = [
    ["Hi there! How are you?", "Hi. Who is this?", "Hello! I am not sure.", "I am fine. You are late.", "Hi!"],
    ["It was good. I like Mondays.", "It was bad, really.", "I don't know.", "Not bad. It was fine."],
    ["Yes, I do. I love tea!", "Yes! Tea is great.", "No, I can't stand it.", "I prefer coffee. Tea is fine.", "Tea?"],
]
DEMONSTRATIONS = ["Hi! How are you doing?", None, "I love tea."]
SETTINGS: dict[str, Any] = {"noise_rate": 0.5, "rank_interval": 1, "max_pairs_per_prompt": 4}


def without_position(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "prompt_index"} for row in rows]


@pytest.mark.parametrize("encoder", [None, hash_encoder], ids=["word_overlap", "encoder"])
@pytest.mark.parametrize("cluster", ["ball_hall", "str"])
def test_a_prompt_alone_gets_what_it_gets_in_a_batch(encoder: Any, cluster: str) -> None:
    options = SETTINGS | {"encoder": encoder, "cluster": cluster}
    batch = rank_responses(PROMPTS, RESPONSES, demonstrations=DEMONSTRATIONS, **options)
    for p, prompt in enumerate(PROMPTS):
        alone = rank_responses([prompt], [RESPONSES[p]], demonstrations=[DEMONSTRATIONS[p]], **options)
        assert without_position(alone.rows) == without_position([r for r in batch.rows if r["prompt_index"] == p])
        assert without_position(alone.pairs) == without_position([r for r in batch.pairs if r["prompt_index"] == p])


def test_the_order_of_prompts_changes_nothing() -> None:
    order = [2, 0, 1]
    first = rank_responses(PROMPTS, RESPONSES, demonstrations=DEMONSTRATIONS, **SETTINGS)
    other = rank_responses(
        [PROMPTS[p] for p in order],
        [RESPONSES[p] for p in order],
        demonstrations=[DEMONSTRATIONS[p] for p in order],
        **SETTINGS,
    )
    for place, p in enumerate(order):
        assert without_position([r for r in other.pairs if r["prompt_index"] == place]) == without_position(
            [r for r in first.pairs if r["prompt_index"] == p]
        )


def test_two_runs_are_equal_and_another_seed_is_not() -> None:
    runs = [rank_responses(PROMPTS, RESPONSES, seed=seed, **SETTINGS) for seed in (3, 3, 4)]
    assert runs[0].rows == runs[1].rows
    assert runs[0].pairs == runs[1].pairs
    assert runs[0].pairs != runs[2].pairs


def test_pairs_obey_the_rule_over_the_representatives() -> None:
    ranked = rank_responses(PROMPTS, RESPONSES, encoder=hash_encoder, noise_rate=0.0, cluster=None)
    for p, responses in enumerate(RESPONSES):
        kept = sorted((row["rank"], row["completion"]) for row in ranked.rows if row["prompt_index"] == p)
        assert [rank for rank, _ in kept] == list(range(1, len(responses) + 1))
        interval = len(kept) // 2
        expected = {(w[1], low[1]) for w in kept for low in kept if low[0] >= w[0] + interval}
        pairs = [pair for pair in ranked.pairs if pair["prompt_index"] == p]
        assert {(pair["chosen"], pair["rejected"]) for pair in pairs} == expected
        assert all(pair["rank_gap"] >= interval for pair in pairs)


def test_representatives_alone_are_paired() -> None:
    ranked = rank_responses(PROMPTS, RESPONSES, noise_rate=0.0, rank_interval=1)
    kept = {(row["prompt_index"], row["completion"]) for row in ranked.rows if row["representative"]}
    assert len(kept) < len(ranked.rows)
    for pair in ranked.pairs:
        assert {(pair["prompt_index"], pair["chosen"]), (pair["prompt_index"], pair["rejected"])} <= kept


@pytest.mark.parametrize("encoder", [None, hash_encoder], ids=["word_overlap", "encoder"])
def test_equal_answers_make_one_cluster_and_no_pairs(encoder: Any) -> None:
    ranked = rank_responses(["p"], [["Same answer here."] * 4], encoder=encoder, teleport=None)
    assert {row["cluster"] for row in ranked.rows} == {0}
    assert [row["rank"] for row in ranked.rows] == [1, 2, 3, 4]
    assert [row["representative"] for row in ranked.rows] == [True, False, False, False]
    assert len({row["score"] for row in ranked.rows}) == 1
    assert ranked.pairs == []
    assert ranked.summary()["skipped"]["reasons"] == {"all responses are equal": 1}


def test_skips_are_counted_by_reason() -> None:
    ranked = rank_responses(
        ["one", "none", "same", "short", "good"],
        [["a"], [], ["b b", "b b"], ["c d", "x y"], RESPONSES[0]],
        rank_interval=2,
        cluster=None,
    )
    assert ranked.summary()["skipped"] == {
        "prompts": 4,
        "reasons": {
            "1 response: ranking needs at least 2": 1,
            "0 responses: ranking needs at least 2": 1,
            "all responses are equal": 1,
            "rank_interval 2 leaves no pair among m' = 2 representatives": 1,
        },
    }
    assert {pair["prompt"] for pair in ranked.pairs} == {"good"}


def test_the_summary_always_tells_m_and_the_plain_cosine() -> None:
    ranked = rank_responses(PROMPTS, RESPONSES, demonstrations=DEMONSTRATIONS)
    text = str(ranked)
    assert "Representatives a prompt, m': mean " in text
    assert "m' = " in repr(ranked)
    assert "Against plain cosine to the demonstration (2 prompts): Kendall tau" in text
    assert "no demonstration for 1 of the 3 ranked prompts: teleport is uniform there" in text
    plain = rank_responses(PROMPTS, RESPONSES)
    assert plain.summary()["agreement_with_cosine"] is None
    assert "Plain cosine to the demonstration: not available" in str(plain)


def test_agreement_with_cosine_is_counted() -> None:
    """With d = 0 the score is a rising function of the cosine: the two orders are one."""
    ranked = rank_responses(PROMPTS, RESPONSES, demonstrations=["Hi you", "bad day", "tea"], damping=0.0)
    agreement = ranked.summary()["agreement_with_cosine"]
    assert agreement == {"prompts": 3, "kendall_tau": pytest.approx(1.0), "same_winner": 1.0}
    assert all(row["rank"] == row["cosine_rank"] for row in ranked.rows)


def test_japanese_end_to_end_without_an_encoder() -> None:
    answers = [
        "私は映画を見るのが好きです。あなたは？",
        "映画を見るのが好きです。週末によく見ます。",
        "音楽が好きです。",
        "今日は雨が降っている。",
        "映画が好きです。音楽も聞きます。",
    ]
    ranked = rank_responses(
        ["趣味は何ですか？"],
        [answers],
        demonstrations=["映画を見るのが好きです。"],
        language="ja",
        noise_rate=1.0,
        rank_interval=1,
    )
    by_rank = sorted(ranked.rows, key=lambda row: row["rank"])
    assert by_rank[0]["completion"] in answers[:2]
    assert by_rank[-1]["completion"] == answers[3]
    cosines = [row["cosine_to_demonstration"] for row in ranked.rows]
    assert cosines[1] > cosines[3] > 0.0  # characters are shared where space-split words would not be
    assert ranked.pairs
    for pair in ranked.pairs:
        assert pair["noise"] in ("ngram", "negation", "shuffle")
        assert pair["rejected"] != pair["rejected_without_noise"]
        assert " " not in pair["rejected"]


def test_chinese_runs_too() -> None:
    ranked = rank_responses(
        ["你喜欢什么？"], [["我喜欢看电影。", "我喜欢听音乐。", "今天下雨了。"]], language="zh", teleport=None
    )
    assert max(ranked.rows, key=lambda row: row["rank"])["completion"] == "今天下雨了。"


def test_words_count_alike_whatever_their_case_and_marks() -> None:
    ranked = rank_responses(["p"], [["Hello, World", "hello world!", "bye"]], teleport=None)
    nearest = ranked.explain(0, 0).json["nearest"][0]
    assert nearest == {"response_index": 1, "cosine": pytest.approx(1.0)}
