"""From drawn answers to advantages, against numbers derived by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from rlsft.rollouts import Completion, RolloutBatch, pad_rollouts
from rlsft.trainers.ppo.config import PPOConfig
from rlsft.trainers.ppo.metrics import KLWatch, health
from rlsft.trainers.ppo.rollout import ExperienceMaker
from rlsft.trainers.ppo.shaping import importance_weights, token_kl

PAD = 2  # also the end token


def maker(tmp_path: Any, **settings: Any) -> ExperienceMaker:
    """Only the arithmetic of rewards is used here; everything that draws or scores is absent."""
    args = PPOConfig(str(tmp_path), use_cpu=True, per_device_train_batch_size=2, **settings)
    return ExperienceMaker(args, None, None, None, None, None, max_length=64)  # type: ignore[arg-type]


def batch(pad: int = PAD) -> RolloutBatch:
    """Two answers: `10 <end>` (ended, then padding that looks like the end token) and `11 12 13` (cut off)."""
    b = pad_rollouts(
        [[5], [6, 7]],
        [Completion([10, 2], "stop"), Completion([11, 12, 13], "length")],
        pad_token_id=pad,
        temperature=1.0,
    )
    return b.with_(
        raw_scores=torch.tensor([1.0, 2.0]),
        old_logprobs=torch.tensor([[-1.0, -2.0, 0.0], [-1.0, -1.0, -3.0]]),
        ref_logprobs=torch.tensor([[-1.5, -2.0, 0.0], [-1.0, -0.5, -1.0]]),
        values=torch.zeros(2, 3),
    )


def rewards_of(made: RolloutBatch) -> list[list[float]]:
    """With gamma 1, lambda 0 and values 0 the un-whitened advantages are the token rewards."""
    return made.advantages.tolist()


PLAIN = {"gamma": 1.0, "lam": 0.0, "whiten_advantages": False}


@pytest.mark.parametrize("pad", [PAD, 0])
def test_reward_stands_on_the_last_action_token(tmp_path: Any, pad: int) -> None:
    """C11, C12, invariant 5. KL of a token is old - ref: 0.5, 0 and 0, -0.5, -2; kl_coef 0.1.

    answer 1: -0.05 | 0 + 1 (on the end token) | padding nothing
    answer 2: 0     | 0.05                     | 0.2 + 2 (on the last token, no end token there)
    """
    made = maker(tmp_path, kl_coef=0.1, **PLAIN).shape_rewards(batch(pad), 0.1)
    assert torch.allclose(made.advantages, torch.tensor([[-0.05, 1.0, 0.0], [0.0, 0.05, 2.2]]))


def test_missing_eos_penalty_hits_the_answer_that_was_cut_off(tmp_path: Any) -> None:
    made = maker(tmp_path, missing_eos_penalty=1.5, **PLAIN).shape_rewards(batch(), 0.0)
    assert made.scores.tolist() == [1.0, 0.5]
    assert made.raw_scores.tolist() == [1.0, 2.0]
    assert rewards_of(made) == [[0, 1.0, 0], [0, 0, 0.5]]


def test_scores_are_clipped_then_whitened_and_recorded(tmp_path: Any) -> None:
    """Clip to 1.5: 1, 1.5. Mean 1.25, unbiased deviation 0.3536: -+0.7071."""
    made = maker(tmp_path, score_clip=1.5, whiten_scores=True, **PLAIN).shape_rewards(batch(), 0.0)
    assert torch.allclose(made.scores, torch.tensor([-(0.5**0.5), 0.5**0.5]))
    assert made.raw_scores.tolist() == [1.0, 2.0]


def test_scores_are_whitened_within_prompts_on_request(tmp_path: Any) -> None:
    """Two prompts with two answers each: 1, 2 and 10, 30 both become -+0.7071."""
    four = batch().select(torch.tensor([0, 1, 0, 1])).with_(raw_scores=torch.tensor([1.0, 2.0, 10.0, 30.0]))
    settings = {"whiten_scores": True, "whiten_by_prompt": True, "samples_per_prompt": 2}
    made = maker(tmp_path, **settings).shape_rewards(four, 0.0)
    assert torch.allclose(made.scores, torch.tensor([-1.0, 1.0, -1.0, 1.0]) * 0.5**0.5)


def test_equal_scores_whiten_to_zero(tmp_path: Any) -> None:
    same = batch().with_(raw_scores=torch.tensor([3.0, 3.0]))
    assert maker(tmp_path, whiten_scores=True).shape_rewards(same, 0.0).scores.tolist() == [0, 0]


def test_whitened_advantages_have_mean_0_and_deviation_1_over_action_tokens(tmp_path: Any) -> None:
    made = maker(tmp_path).shape_rewards(batch(), 0.1)
    tokens = made.advantages[made.completion_mask]
    assert abs(tokens.mean()) < 1e-6
    assert abs(tokens.std() - 1) < 1e-5
    assert made.advantages[0, 2] == 0
    plain = maker(tmp_path, whiten_advantages=False).shape_rewards(batch(), 0.1)
    assert torch.equal(made.returns, plain.returns)  # returns use the un-whitened advantages


def test_whitening_over_ranks_equals_one_process(tmp_path: Any) -> None:
    """Uneven lengths on two ranks; each sees the other through `gather`."""
    whole = maker(tmp_path, whiten_scores=True, whiten_rewards=True).shape_rewards(batch(), 0.1)
    parts = [batch().select(torch.tensor([row])) for row in (0, 1)]
    assert [len(part.completion_ids[0]) for part in parts] == [2, 3]

    def run(rank: int, others: list[torch.Tensor] | None) -> tuple[RolloutBatch, list[torch.Tensor]]:
        said: list[torch.Tensor] = []

        def gather(tensor: torch.Tensor) -> torch.Tensor:
            said.append(tensor)
            other = others[len(said) - 1] if others is not None else tensor
            return torch.cat([tensor, other] if rank == 0 else [other, tensor])

        one = maker(tmp_path, whiten_scores=True, whiten_rewards=True)
        one.shaper.gather, one.shaper.rank = gather, rank
        return one.shape_rewards(parts[rank], 0.1), said

    heard: list[list[torch.Tensor] | None] = [None, None]
    for _ in range(8):  # what a rank says next depends on what it heard before: iterate to the fixed point
        said = [run(rank, heard[1 - rank])[1] for rank in (0, 1)]
        heard = [said[0], said[1]]
    for rank, width in ((0, 2), (1, 3)):
        made, _ = run(rank, heard[1 - rank])
        assert torch.allclose(made.advantages[0], whole.advantages[rank, :width], atol=1e-6)


def test_whiten_rewards_scales_without_shifting(tmp_path: Any) -> None:
    """Token rewards without whitening: -0.05 1 | 0 0.05 2.2, unbiased deviation s; whitened: each divided by s."""
    rewards = torch.tensor([-0.05, 1.0, 0.0, 0.05, 2.2])
    made = maker(tmp_path, whiten_rewards=True, **PLAIN).shape_rewards(batch(), 0.1)
    assert torch.allclose(made.advantages[made.completion_mask], rewards / rewards.std(), atol=1e-6)


def test_rloo_compares_answers_of_one_prompt(tmp_path: Any) -> None:
    """Rewards after KL: 1 - 0.1 * 0.5 = 0.95 and 2 - 0.1 * (-2.5) = 2.25; each minus the other."""
    settings = {"advantage": "rloo", "samples_per_prompt": 2, "whiten_advantages": False}
    made = maker(tmp_path, **settings).shape_rewards(batch(), 0.1)
    assert torch.allclose(made.advantages, torch.tensor([[-1.3, -1.3, 0.0], [1.3, 1.3, 1.3]]), atol=1e-6)
    assert made.values is None
    assert made.returns is None


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("k1", [[0.5, 0.0, 0.0], [0.0, -0.5, -2.0]]),
        ("k2", [[0.125, 0.0, 0.0], [0.0, 0.125, 2.0]]),
        # exp(-d) - 1 + d: e^-0.5 - 0.5, e^0.5 - 1.5, e^2 - 3
        ("k3", [[0.1065307, 0.0, 0.0], [0.0, 0.1487213, 4.3890561]]),
    ],
)
def test_kl_estimators(estimator: str, expected: list) -> None:
    assert torch.allclose(token_kl(batch(), estimator), torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_kl_of_extreme_log_ratios_is_finite(estimator: str) -> None:
    """C08: log-ratios of +-1e4."""
    wild = batch().with_(old_logprobs=torch.tensor([[-1e4, 0.0, 0.0], [0.0, -1e4, 0.0]]))
    assert token_kl(wild, estimator).isfinite().all()


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        ("none", None),
        ("truncate", [[2.0, 2.0, 0.0], [1.0, 0.5, 2.0]]),
        ("mask", [[2.0, 0.0, 0.0], [1.0, 0.5, 0.0]]),
    ],
)
def test_importance_weights_by_hand(tmp_path: Any, correction: str, expected: list | None) -> None:
    """C16: the engine's log-probabilities are ours minus log of (2, 3 | 1, 0.5, 8); the cap is 2."""
    shift = torch.tensor([[2.0, 3.0, 1.0], [1.0, 0.5, 8.0]]).log()
    shifted = batch().with_(sampler_logprobs=batch().old_logprobs - shift)
    weights = importance_weights(shifted, correction, 2.0 + 1e-6)
    if expected is None:
        assert weights is None
        return
    assert torch.allclose(weights, torch.tensor(expected), atol=1e-5)
    settings = {"importance_correction": correction, "importance_cap": 2.0 + 1e-6, **PLAIN}
    made = maker(tmp_path, **settings).shape_rewards(shifted, 0.0)
    plain = maker(tmp_path, **PLAIN).shape_rewards(shifted, 0.0)
    assert torch.allclose(made.advantages, plain.advantages * torch.tensor(expected), atol=1e-5)
    assert torch.equal(made.returns, plain.returns)  # the value learns from unweighted returns


def test_single_token_batch_is_left_unwhitened(tmp_path: Any) -> None:
    one = batch().select(torch.tensor([0]))
    one = replace(one, completion_mask=torch.tensor([[True, False]]))
    assert maker(tmp_path).shape_rewards(one, 0.0).advantages.tolist() == [[1.0, 0.0]]


def test_negative_kl_is_explained_once(caplog: pytest.LogCaptureFixture) -> None:
    """C07: k1 below -1 lists causes."""
    watch = KLWatch()
    for kl in (0.5, -0.5, -1.5, -9.0):
        watch.check(kl)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "-1.50 nats" in messages[0]
    assert "dropout" in messages[0]


def test_health_tells_collapse_from_variety() -> None:
    varied = health([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10]])
    assert varied == {"health/distinct_2": 1.0, "health/repetition": 0.0}
    collapsed = health([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1]])
    assert collapsed["health/distinct_2"] == pytest.approx(1 / 8)
    assert collapsed["health/repetition"] == pytest.approx((2 / 3 + 0) / 2)
    assert health([[1]]) == {"health/distinct_2": 1.0, "health/repetition": 0.0}
