"""An implicit reward in PPO: on whole answers, and on every token before the advantages are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlsft.errors import ConfigError, RunError
from rlsft.models import load_causal_lm
from rlsft.rewards import ImplicitReward
from rlsft.rollouts import RolloutBatch
from rlsft.trainers.ppo.scoring import Answers, Scorer
from rlsft.trainers.ppo.shaping import placed_scores
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.ppo import assert_equal_states, e_share, letter_model, letter_tokenizer, ppo_trainer, rows_of
from tests.trainers.test_ppo_rollout import PLAIN, batch, maker

TOKENIZER = tiny_tokenizer()


def implicit(token_level: bool, beta: float = 1.0, **options: Any) -> ImplicitReward:
    policy, reference = (tiny_model("llama", seed=seed, initializer_range=0.1) for seed in (5, 6))
    return ImplicitReward(policy, reference, TOKENIZER, beta=beta, token_level=token_level, **options)


def answers() -> Answers:
    return Answers(
        prompts=["Hello!", "How are you"], completions=["a", "b"], completion_ids=[[10, 11, 2], [12]],
        columns={}, prompt_ids=[[1, 5, 6], [7, 8]],
    )  # fmt: skip


# ---- the scorer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token_level", [False, True])
def test_the_drawn_tokens_are_scored_and_nothing_else(token_level: bool) -> None:
    """No end token is added to the answer that was cut off, and the prompt is read as the policy read it."""
    reward = implicit(token_level)
    scored = Scorer(reward, TOKENIZER).judge(answers())
    for number, (prompt, drawn) in enumerate(zip(answers().prompt_ids, answers().completion_ids, strict=True)):
        ids = torch.tensor([prompt + drawn])
        with torch.no_grad():
            logs = [
                model(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[len(prompt) - 1 :, 0]
                for model in (reward.policy, reward.reference)
            ]
        ratio = (logs[0] - logs[1]).numpy()
        assert scored.total[number] == pytest.approx(float(ratio.sum()), abs=1e-5)
        if token_level:
            assert scored.token_rewards is not None
            np.testing.assert_allclose(scored.token_rewards[number], ratio, atol=1e-5)
    assert (scored.token_rewards is not None) == token_level
    assert list(scored.by_reward) == ["implicit_reward"]


def test_weights_scale_the_tokens_and_another_reward_stays_with_the_answer() -> None:
    def bonus(prompts: list) -> list[float]:
        return [10.0, 20.0]

    reward = implicit(True)
    scorer = Scorer([bonus, reward], TOKENIZER, weights=[1.0, 0.5])
    scored = scorer.judge(answers())
    alone = Scorer(reward, TOKENIZER).judge(answers())
    assert scorer.token_level
    assert scored.token_rewards is not None
    assert alone.token_rewards is not None
    for half, whole in zip(scored.token_rewards, alone.token_rewards, strict=True):
        np.testing.assert_allclose(half, 0.5 * whole)
    np.testing.assert_allclose(scored.total, [10.0, 20.0] + 0.5 * alone.total)
    total, by_name = scorer(answers())
    assert total.tolist() == scored.total.tolist()
    np.testing.assert_allclose(by_name["implicit_reward"], alone.total)


def test_broken_and_foreign_rewards_are_named() -> None:
    foreign = ImplicitReward(letter_model(1), letter_model(2), letter_tokenizer())
    with pytest.raises(ConfigError, match="its tokenizer has another vocabulary"):
        Scorer(foreign, TOKENIZER)
    broken = implicit(True)
    with torch.no_grad():
        broken.policy.model.norm.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with pytest.raises(RunError, match=r"'implicit_reward' is not finite at token 0 of answer 0"):
        Scorer([lambda prompts: [0.0, 0.0], broken], TOKENIZER).judge(answers())


# ---- rewards to advantages --------------------------------------------------------------------------------


def dense_batch(pad: int = 2) -> RolloutBatch:
    """The scores 1 and 2 of `batch()`, of which the tokens carry 0.3 + 0.4 and -1 + 0.5 + 2."""
    return batch(pad).with_(token_rewards=torch.tensor([[0.3, 0.4, 0.0], [-1.0, 0.5, 2.0]]))


@pytest.mark.parametrize("pad", [2, 0])
def test_each_token_has_its_reward_and_the_last_one_the_rest(tmp_path: Any, pad: int) -> None:
    """kl_coef 0.1, KL of the tokens 0.5, 0 and 0, -0.5, -2; the scores hold 0.3 and 0.5 beyond their tokens.

    answer 1: 0.3 - 0.05 | 0.4 + 0.3     answer 2: -1 | 0.5 + 0.05 | 2 + 0.2 + 0.5
    """
    made = maker(tmp_path, **PLAIN).shape_rewards(dense_batch(pad), 0.1)
    assert torch.allclose(made.advantages, torch.tensor([[0.25, 0.7, 0.0], [-1.0, 0.55, 2.7]]), atol=1e-6)


def test_rewards_sum_to_the_score(tmp_path: Any) -> None:
    made = maker(tmp_path, missing_eos_penalty=1.5, **PLAIN).shape_rewards(dense_batch(), 0.0)
    assert torch.allclose(made.advantages.sum(dim=1), torch.tensor([1.0, 0.5]), atol=1e-6)
    assert torch.allclose(placed_scores(made), torch.tensor([[0.3, 0.7, 0.0], [-1.0, 0.5, 1.0]]), atol=1e-6)


@pytest.mark.parametrize("whiten_rewards", [False, True])
def test_advantages_are_those_of_a_plain_loop(tmp_path: Any, whiten_rewards: bool) -> None:
    """gamma 0.9, lambda 0.8, values that are not 0; a batch of uneven lengths from a generator."""
    draw = torch.Generator().manual_seed(3)
    wide = dense_batch().with_(
        values=torch.randn(2, 3, generator=draw), token_rewards=torch.randn(2, 3, generator=draw)
    )
    wide = wide.with_(token_rewards=torch.where(wide.completion_mask, wide.token_rewards, 0.0))
    settings = {"gamma": 0.9, "lam": 0.8, "whiten_advantages": False, "whiten_rewards": whiten_rewards}
    made = maker(tmp_path, **settings).shape_rewards(wide, 0.1)

    lengths, rewards = wide.lengths.tolist(), []
    for row, length in enumerate(lengths):
        ours = [float(wide.token_rewards[row, t]) for t in range(length)]
        rest = float(wide.raw_scores[row]) - sum(ours)
        kl = [float(wide.old_logprobs[row, t] - wide.ref_logprobs[row, t]) for t in range(length)]
        rewards.append([r - 0.1 * k + (rest if t == length - 1 else 0.0) for t, (r, k) in enumerate(zip(ours, kl))])  # noqa: B905
    flat = np.concatenate(rewards)
    scale = 1 / flat.std(ddof=1) if whiten_rewards else 1.0
    for row, length in enumerate(lengths):
        following, value = 0.0, 0.0
        for t in reversed(range(length)):
            delta = scale * rewards[row][t] + 0.9 * value - float(wide.values[row, t])
            following, value = delta + 0.9 * 0.8 * following, float(wide.values[row, t])
            assert float(made.advantages[row, t]) == pytest.approx(following, abs=1e-5)
            assert float(made.returns[row, t]) == pytest.approx(following + value, abs=1e-5)


def test_a_selection_keeps_token_rewards_beside_their_tokens() -> None:
    one = dense_batch().select(torch.tensor([0]))
    assert torch.equal(one.token_rewards, torch.tensor([[0.3, 0.4]]))


# ---- in training ------------------------------------------------------------------------------------------


def test_dense_and_summed_rewards_report_the_same_scores_but_learn_otherwise(tmp_path: Path) -> None:
    trainers = []
    for token_level in (False, True):
        trainer = ppo_trainer(tmp_path / str(token_level), reward_model=implicit(token_level), total_episodes=16)
        trainer.train()
        trainers.append(trainer)
    summed, dense = trainers
    assert rows_of(dense)[0]["objective/scores"] == pytest.approx(rows_of(summed)[0]["objective/scores"], abs=1e-6)
    assert rows_of(dense)[0]["rewards/implicit_reward/mean"] == pytest.approx(rows_of(dense)[0]["reward"], abs=1e-6)
    assert dense._batch.token_rewards is not None
    assert summed._batch.token_rewards is None
    with pytest.raises(AssertionError):
        assert_equal_states(summed, dense)


def test_the_policy_climbs_towards_the_policy_of_the_reward(tmp_path: Path) -> None:
    """The reward is log pi_a - log pi_b of the seven-letter world; its mean over answers rises."""
    reward = ImplicitReward(letter_model(7), letter_model(8), letter_tokenizer(), beta=1.0, token_level=True)
    trainer = ppo_trainer(
        tmp_path, letter_model(3), reward_model=reward, processing_class=letter_tokenizer(), kl_coef=0.0,
        rollout_batch_size=64, per_device_train_batch_size=32, total_episodes=64 * 12, learning_rate=1e-2,
        train_dataset=[{"prompt": "a b"}, {"prompt": "c"}], max_completion_length=5,
    )  # fmt: skip
    trainer.train()
    scores = [row["objective/scores"] for row in rows_of(trainer) if "objective/scores" in row]
    assert len(scores) == 12
    assert np.mean(scores[-3:]) > np.mean(scores[:2]) + 3  # from about 5 to 10.7


def test_a_run_stopped_inside_a_buffer_resumes_bit_for_bit(tmp_path: Path) -> None:
    """C09 with token rewards: the checkpoint after the first of four steps on one buffer."""
    whole = ppo_trainer(tmp_path / "whole", reward_model=implicit(True), total_episodes=32)
    whole.train()
    cut = ppo_trainer(
        tmp_path / "cut", reward_model=implicit(True), total_episodes=32, save_strategy="steps", save_steps=1
    )
    cut.train()
    resumed = ppo_trainer(tmp_path / "again", reward_model=implicit(True), total_episodes=32)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-1"))
    assert_equal_states(whole, resumed)


def test_settings_that_need_one_score_an_answer_are_refused(tmp_path: Path) -> None:
    for settings, message in (
        ({"whiten_scores": True}, "whiten_scores=True takes one score an answer.* whiten_rewards=True"),
        ({"score_clip": 1.0}, r"score_clip=1\.0 takes one score an answer"),
        ({"advantage": "rloo", "samples_per_prompt": 2}, "advantage='rloo' takes one score an answer"),
    ):
        with pytest.raises(ConfigError, match=message):
            ppo_trainer(tmp_path, reward_model=implicit(True), **settings)
        ppo_trainer(tmp_path, reward_model=implicit(False), **settings)
    ppo_trainer(tmp_path, reward_model=[e_share_of_columns, implicit(False)], whiten_scores=True)


def e_share_of_columns(prompts: list, completions: list) -> list[float]:
    return e_share(list(zip(prompts, completions, strict=True)))


def test_a_reward_that_is_the_policy_is_refused(tmp_path: Path) -> None:
    policy = tiny_model("llama", initializer_range=0.1)
    reward = ImplicitReward(policy, tiny_model("llama", seed=4), TOKENIZER)
    with pytest.raises(ConfigError, match="shares weights with the policy"):
        ppo_trainer(tmp_path, policy, reward_model=reward)
    assert all(parameter.requires_grad for parameter in policy.parameters())


def test_a_folder_of_exported_rewards_is_a_reward(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 6)):
        tiny_model("llama", seed=seed, initializer_range=0.1).save_pretrained(tmp_path / name)
        TOKENIZER.save_pretrained(tmp_path / name)
    reward = ImplicitReward.from_checkpoints(tmp_path / "a", tmp_path / "b", beta=1.0, token_level=True)
    scored = Scorer(reward.save_pretrained(tmp_path / "reward"), TOKENIZER).judge(answers())
    expected = Scorer(implicit(True), TOKENIZER).judge(answers())
    assert scored.total.tolist() == expected.total.tolist()
    assert load_causal_lm(tmp_path / "a").config.vocab_size == 400
