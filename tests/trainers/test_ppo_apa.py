"""APA as PPO's policy loss: the regression by hand, the KL in the loss and not in the reward, learning, errors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlsft.errors import ConfigError
from rlsft.objectives import apa_loss
from tests.support.ppo import assert_equal_states, ppo_settings, ppo_trainer, rows_of


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_loss_by_hand_over_the_tokens_of_the_mask() -> None:
    logprobs, ref, advantages, values, returns = (drawn(seed) for seed in range(5))
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]], dtype=torch.bool)
    logprobs = torch.where(mask, logprobs, torch.nan)  # what stands outside of the mask does not matter
    loss, stats = apa_loss(
        logprobs, ref, advantages, mask, beta=0.5, values=values, returns=returns, vf_coef=0.3, normalizer=10.0
    )
    policy = value = 0.0
    for i, j in mask.nonzero().tolist():
        policy += float(logprobs[i, j] - ref[i, j] - 2.0 * advantages[i, j]) ** 2
        value += 0.5 * float(values[i, j] - returns[i, j]) ** 2
    assert float(loss) == pytest.approx((policy + 0.3 * value) / 10)
    assert float(stats["loss/policy"]) == pytest.approx(policy / 7)
    assert float(stats["loss/value"]) == pytest.approx(value / 7)
    assert float(stats["ratio_mean"]) == 1.0
    with pytest.raises(ValueError, match="beta must be > 0"):
        apa_loss(logprobs, ref, advantages, mask, beta=0.0)


def test_it_learns_and_the_kl_is_in_the_loss_alone(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path, policy_loss="apa", kl_coef=0.2, rollout_batch_size=32, total_episodes=640)
    trainer.train()
    rows = [row for row in rows_of(trainer) if "reward" in row]  # the first step of each iteration
    rewards = [row["reward"] for row in rows]
    assert sum(rewards[-3:]) > 1.5 * sum(rewards[:3])
    assert all(row["objective/kl_coef"] == 0.2 for row in rows)
    batch = trainer._batch
    assert batch is not None
    scores, values = batch.need("scores", "values")
    # with the reward at the last token alone, gamma 1, and no KL, a return that does not bootstrap is the score
    plain = trainer.maker.shape_rewards(batch, 0.0)
    with_kl = trainer.maker.shape_rewards(batch, 0.2)
    torch.testing.assert_close(plain.returns, batch.returns)
    assert not torch.allclose(with_kl.returns, batch.returns)
    assert scores.shape == (32,)
    assert values.shape == batch.completion_mask.shape


def test_a_step_does_not_depend_on_how_it_is_cut_up(tmp_path: Path) -> None:
    settings = {"policy_loss": "apa", "kl_coef": 0.5, "total_episodes": 16, "local_rollout_forward_batch_size": 16}
    whole = ppo_trainer(tmp_path / "a", per_device_train_batch_size=8, **settings)
    parts = ppo_trainer(tmp_path / "b", per_device_train_batch_size=2, **settings)
    for trainer in (whole, parts):
        trainer.train()
    for (name, left), (_, right) in zip(whole.model.named_parameters(), parts.model.named_parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=2e-4, rtol=0, msg=name)


def test_it_resumes_bit_for_bit(tmp_path: Path) -> None:
    settings = {"policy_loss": "apa", "kl_coef": 0.5, "save_strategy": "steps", "save_steps": 3}
    whole = ppo_trainer(tmp_path / "a", **settings)
    whole.train()
    first = ppo_trainer(tmp_path / "b", **settings)
    first.train()
    again = ppo_trainer(tmp_path / "b", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "b" / "checkpoint-3"))
    assert_equal_states(whole, again)


def test_it_works_without_a_value_model(tmp_path: Path) -> None:
    trainer = ppo_trainer(
        tmp_path, policy_loss="apa", advantage="rloo", samples_per_prompt=4, kl_coef=0.5, total_episodes=16
    )
    trainer.train()
    assert all("loss/value_avg" not in row for row in rows_of(trainer))


@pytest.mark.parametrize("changes", [{"kl_coef": 0.0}, {"kl_ctrl": "adaptive", "kl_coef": 0.1}])
def test_settings_that_the_regression_cannot_use_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"policy_loss='apa' regresses on A / kl_coef"):
        ppo_settings(tmp_path, policy_loss="apa", **changes)
