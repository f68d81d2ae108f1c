"""Rewards of every kind: reward models, pairs, TRL's signature; weights, missing and broken scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from rlsft.data import encode_prompt
from rlsft.errors import ConfigError, RunError
from rlsft.rewards import RewardModel, score_texts
from rlsft.trainers.ppo.scoring import Answers, Scorer
from tests.support.models import tiny_tokenizer
from tests.support.rewarding import tiny_classifier

TOKENIZER = tiny_tokenizer()
ANSWERS = Answers(
    prompts=["Hello!", "How are you", "I"],
    completions=["fine", "", "  "],
    completion_ids=[[5, 6, 2], [2], [7]],
    columns={"bonus": [1.0, 2.0, 3.0], "prompts": ["hidden"]},
)


def test_pairs_and_name() -> None:
    def length(pairs: list[tuple[Any, str]]) -> list[float]:
        assert pairs[0] == ("Hello!", "fine")
        return [float(len(answer)) for _, answer in pairs]

    total, by_name = Scorer(length, None)(ANSWERS)
    assert total.tolist() == [4, 0, 2]
    assert list(by_name) == ["length"]


def test_trl_functions_get_columns_and_are_weighted() -> None:
    def bonus(prompts: list, completions: list, completion_ids: list, bonus: list, **kwargs: Any) -> list[float]:
        assert (prompts, completions, completion_ids) == (ANSWERS.prompts, ANSWERS.completions, ANSWERS.completion_ids)
        return bonus

    def tokens(completion_ids: list) -> list[float | None]:  # no **kwargs: gets what it names
        return [None if len(ids) == 1 and ids[0] == 7 else float(len(ids)) for ids in completion_ids]

    total, by_name = Scorer([bonus, tokens], None, weights=[2.0, 0.5])(ANSWERS)
    assert total.tolist() == [2 * 1 + 0.5 * 3, 2 * 2 + 0.5 * 1, 2 * 3]  # None leaves the answer to the others
    assert by_name["bonus"].tolist() == [1, 2, 3]
    assert math.isnan(by_name["tokens"][2])


def test_chat_prompts_get_chat_completions() -> None:
    chat = Answers([[{"role": "user", "content": "Hi"}]], ["there"], [[5]], {})
    seen: list[Any] = []
    Scorer([lambda prompts, completions: seen.extend(completions) or [0.0]], None)(chat)
    assert seen == [[{"role": "assistant", "content": "there"}]]


def test_functions_of_one_name_are_told_apart() -> None:
    scorer = Scorer([lambda prompts: [1.0] * 3, lambda prompts: [2.0] * 3], None)
    assert list(scorer.rewards) == ["<lambda>", "<lambda>_2"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "reward 'broken' must return one number an answer: 3 answers, 1 numbers"),
        ([1.0, math.inf, 0.0], "reward 'broken' returned infinity for answer 1"),
        ([1.0, None, 0.0], "no reward gave a score .* for answer 1 of 3"),
    ],
)
def test_broken_rewards_are_named(values: list, message: str) -> None:
    def broken(pairs: list) -> list:
        return values

    with pytest.raises(RunError, match=message):
        Scorer(broken, None)(ANSWERS)


def test_wrong_kinds_and_weights_are_named() -> None:
    with pytest.raises(ConfigError, match=r"reward_model must be a RewardModel .* got Linear"):
        Scorer(torch.nn.Linear(1, 1), None)
    with pytest.raises(ConfigError, match=r"reward_model must be a RewardModel .* got list"):
        Scorer([], None)
    with pytest.raises(ConfigError, match="1 rewards, got 2"):
        Scorer(lambda pairs: [], None, weights=[1.0, 2.0])


def test_reward_model_scores_as_it_was_trained_and_silence_too() -> None:
    """An answer without words is the prompt and the end token; two of them here, one said nothing but a space."""
    model = RewardModel(tiny_classifier("llama"))
    total, _ = Scorer(model, TOKENIZER, batch_size=2)(ANSWERS)
    assert total[0] == pytest.approx(score_texts(model, TOKENIZER, ["Hello!"], ["fine"])[0], abs=1e-6)
    for place in (1, 2):
        ids = [*encode_prompt(ANSWERS.prompts[place], TOKENIZER), TOKENIZER.eos_token_id]
        with torch.no_grad():
            alone = model.score(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.long))
        assert total[place] == pytest.approx(float(alone), abs=1e-5)
    assert len(np.unique(total)) == 3
