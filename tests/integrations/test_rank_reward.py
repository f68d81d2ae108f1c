"""A rank as a reward: the order of `rank_responses`, within each prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlsft.errors import ConfigError, DataError, ModelError
from rlsft.integrations.rewards import RankReward, load_reward
from rlsft.ranking import rank_responses

PROMPTS = ["What do you like?", "Where were you?"]
ANSWERS = [
    ["I like pizza and noodles.", "I like pizza a lot.", "The weather was bad.", "Noodles, pizza and rice."],
    ["At home.", "We were at home in the park.", "In the park, all of us, with rain and football."],
]
SHOWN = ["I like noodles and pizza.", "We were in the park."]


def flat(order: Any = None) -> dict[str, list[Any]]:
    rows = [(p, a, d) for p, d, group in zip(PROMPTS, SHOWN, ANSWERS, strict=True) for a in group]
    rows = rows if order is None else [rows[i] for i in order]
    return {name: [row[i] for row in rows] for i, name in enumerate(("prompts", "completions", "demonstration"))}


@pytest.mark.parametrize("has_demonstrations", [False, True])
def test_the_order_is_that_of_the_ranking(has_demonstrations: bool) -> None:
    columns = flat()
    if not has_demonstrations:
        del columns["demonstration"]
    ranked = rank_responses(
        PROMPTS, ANSWERS, demonstrations=SHOWN if has_demonstrations else None, cluster=None, noise_rate=0.0
    )
    found = RankReward()(**columns)
    sizes = [len(ANSWERS[row["prompt_index"]]) for row in ranked.rows]
    assert found == pytest.approx([(n - row["rank"]) / (n - 1) for n, row in zip(sizes, ranked.rows, strict=True)])
    scores = RankReward(value="score")(**columns)
    assert scores == pytest.approx([n * row["score"] for n, row in zip(sizes, ranked.rows, strict=True)])
    assert np.mean(scores[:4]) == pytest.approx(1.0)


def test_demonstrations_steer_and_can_be_ignored() -> None:
    columns = flat()
    steered, plain = RankReward(value="score")(**columns), RankReward(value="score", teleport=None)(**columns)
    assert steered != pytest.approx(plain)
    del columns["demonstration"]
    assert RankReward(value="score")(**columns) == pytest.approx(plain)


def test_mixed_up_rows_get_their_own_rewards_and_chats_are_texts() -> None:
    expected = RankReward()(**flat())
    order = [5, 0, 3, 6, 2, 4, 1]
    columns = flat(order)
    columns["prompts"] = [[{"role": "user", "content": text}] for text in columns["prompts"]]
    columns["completions"] = [[{"role": "assistant", "content": text}] for text in columns["completions"]]
    assert RankReward()(**columns) == [expected[i] for i in order]


def test_equal_answers_get_equal_rewards_and_empty_ones_nothing() -> None:
    assert RankReward()(["p"] * 4, ["I like rice.", " ", "I like rice.", "Football."]) == [0.75, 0.0, 0.75, 0.0]
    assert RankReward()(["p", "p", "q", "q"], ["a", "", "b", "b"]) == [None, None, 0.5, 0.5]
    assert RankReward()(["p"], ["alone"]) == [None]


def test_a_function_embeds(tmp_path: Path) -> None:
    vectors = {"up": [1.0, 0.0], "right": [0.0, 1.0], "nearly up": [0.9, 0.1]}
    reward = RankReward(encoder=lambda texts: np.array([vectors[text] for text in texts]))
    columns = {"prompts": ["p"] * 2, "completions": ["right", "nearly up"], "demonstration": ["up"] * 2}
    assert reward(**columns) == [0.0, 1.0]


def test_settings_come_from_a_saved_ranking(tmp_path: Path) -> None:
    ranked = rank_responses(PROMPTS, ANSWERS, demonstrations=SHOWN, damping=0.5, teleport_strength=1.0)
    ranked.save(tmp_path / "ranked")
    reward = load_reward(tmp_path / "ranked", value="score")
    assert isinstance(reward, RankReward)
    expected = RankReward(damping=0.5, teleport_strength=1.0, value="score")(**flat())
    assert reward(**flat()) == expected
    assert RankReward(value="score")(**flat()) != pytest.approx(expected)
    rank_responses(PROMPTS, ANSWERS, encoder=lambda texts: np.eye(len(texts))).save(tmp_path / "other")
    with pytest.raises(ModelError, match="used the encoder '<lambda>', which is no folder here; give it"):
        load_reward(tmp_path / "other")
    assert load_reward(tmp_path / "other", encoder=lambda texts: np.eye(len(texts)))
    with pytest.raises(ModelError, match=r"has no summary\.json"):
        RankReward.from_ranking(tmp_path)


def test_verl_scores_a_batch_and_ground_truths_are_demonstrations() -> None:
    columns = flat()
    found = RankReward().compute_score(
        data_sources=["chat"] * 7, solution_strs=columns["completions"], ground_truths=columns["demonstration"],
        extra_infos=[{"prompt": prompt} for prompt in columns["prompts"]],
    )  # fmt: skip
    assert found == RankReward()(**columns)
    with pytest.raises(ConfigError, match="set verl's reward manager to 'batch'"):
        RankReward().compute_score("chat", solution_str="a")  # type: ignore[call-arg]
    with pytest.raises(DataError, match="answer 0 has no other answer to its prompt"):
        RankReward().compute_score(solution_strs=["a"], extra_infos=[{"prompt": "p"}])


def test_bad_calls_and_settings_are_refused() -> None:
    with pytest.raises(DataError, match="must have one length, got 2 and 1"):
        RankReward()(["p", "p"], ["a"])
    with pytest.raises(DataError, match="num_generations=4, but 3 of them came"):
        RankReward(num_generations=4)(["p"] * 3, ["a", "b", "c"])
    with pytest.raises(ConfigError, match="value must be one of rank, score"):
        RankReward(value="place")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="damping"):
        RankReward(damping=1.0)
