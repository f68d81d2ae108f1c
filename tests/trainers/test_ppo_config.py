"""PPOConfig: names, defaults, contradictions; and the schedule that follows from it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from rlsft.errors import ConfigError
from rlsft.trainers.ppo.config import PPOConfig
from rlsft.trainers.ppo.schedule import PPOSchedule


def config(tmp_path: Path, **settings: Any) -> PPOConfig:
    return PPOConfig(str(tmp_path), use_cpu=True, **settings)


def test_every_own_field_has_a_help_string() -> None:
    for field in fields(PPOConfig):
        assert field.metadata.get("help"), field.name


def test_defaults_people_know(tmp_path: Path) -> None:
    """TRL's PPO, except for sampling, which draws from the policy itself."""
    args = config(tmp_path)
    known = {
        "num_ppo_epochs": 4, "num_mini_batches": 1, "kl_coef": 0.05, "kl_estimator": "k1", "cliprange": 0.2,
        "cliprange_value": 0.2, "vf_coef": 0.1, "gamma": 1.0, "lam": 0.95, "whiten_rewards": False,
        "missing_eos_penalty": None, "stop_token": None, "num_sample_generations": 10, "top_p": 1.0, "top_k": 0,
        "temperature": 1.0, "learning_rate": 3e-6, "disable_dropout": True,
    }  # fmt: skip
    assert {name: getattr(args, name) for name in known} == known


def test_response_length_is_another_name(tmp_path: Path) -> None:
    assert config(tmp_path, response_length=53).max_completion_length == 53


def test_batch_sizes_follow_from_each_other(tmp_path: Path) -> None:
    given = config(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2, num_mini_batches=3)
    assert (given.rollout_batch_size, given.local_mini_batch_size) == (24, 8)
    wanted = config(tmp_path, per_device_train_batch_size=4, rollout_batch_size=24, num_mini_batches=2)
    assert (wanted.gradient_accumulation_steps, wanted.local_mini_batch_size) == (3, 12)
    uneven = config(tmp_path, per_device_train_batch_size=5, rollout_batch_size=24, num_mini_batches=2)
    assert uneven.gradient_accumulation_steps == 3  # 5 + 5 + 2
    assert wanted.steps_per_iteration == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_p": 0.9}, r"top_p=0.9 and top_k=0 truncate the rollouts.*allow_biased_sampling=True"),
        ({"top_k": 50}, "truncate the rollouts"),
        ({"temperature": 0.0}, "temperature must be > 0 to explore"),
        ({"num_ppo_epochs": 0}, "num_ppo_epochs must be at least 1"),
        ({"kl_coef": -0.1}, "kl_coef must be at least 0"),
        ({"kl_estimator": "k4"}, "kl_estimator must be one of k1, k2, k3, got 'k4'"),
        ({"kl_ctrl": "adaptive", "kl_coef": 0.0}, "kl_coef must be > 0 for kl_ctrl='adaptive'"),
        ({"kl_target": 0.0}, "kl_target must be > 0"),
        ({"cliprange": 1.5}, "cliprange must be between"),
        ({"lam": -0.1}, "lam must be between"),
        ({"dual_clip": 0.5}, "dual_clip must be unset or at least"),
        ({"missing_eos_penalty": -1.0}, "missing_eos_penalty must be at least 0"),
        ({"advantage": "rloo"}, "samples_per_prompt must be >= 2, got 1"),
        ({"whiten_by_prompt": True}, "whiten_by_prompt needs whiten_scores=True"),
        (
            {"rollout_batch_size": 10, "samples_per_prompt": 4},
            "rollout_batch_size=10 answers must be a multiple of samples",
        ),
        ({"rollout_batch_size": 10, "num_mini_batches": 4}, "and of num_mini_batches"),
        ({"max_completion_length": 0}, "max_completion_length must be at least 1"),
        ({"value_model": "own"}, "value_model must be one of shared, separate"),
    ],
)
def test_contradictions_are_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **settings)


def test_biased_sampling_can_be_accepted(tmp_path: Path) -> None:
    assert config(tmp_path, top_p=0.9, allow_biased_sampling=True).top_p == 0.9


def schedule(tmp_path: Path, num_prompts: int = 10, **settings: Any) -> PPOSchedule:
    base = {"per_device_train_batch_size": 3, "rollout_batch_size": 16, "num_mini_batches": 2, "num_ppo_epochs": 3}
    return PPOSchedule.of(config(tmp_path, **{**base, **settings}), num_prompts)


def test_every_pass_answers_every_prompt_once(tmp_path: Path) -> None:
    s = schedule(tmp_path, num_prompts=10, rollout_batch_size=4, total_episodes=40, samples_per_prompt=1)
    order = [index for iteration in range(s.num_iterations) for index in s.prompt_indices(iteration)]
    assert len(order) == 40
    for turn in range(4):
        assert sorted(order[turn * 10 : turn * 10 + 10]) == list(range(10))
    assert order[:10] != order[10:20]


def test_more_prompts_an_iteration_than_there_are(tmp_path: Path) -> None:
    s = schedule(tmp_path, num_prompts=3)
    assert sorted(s.prompt_indices(0)[:3]) == [0, 1, 2]
    assert len(s.prompt_indices(5)) == 16
    assert s.prompt_indices(0) + s.prompt_indices(1) == schedule(tmp_path, 3, rollout_batch_size=32).prompt_indices(0)


def test_every_epoch_learns_from_every_answer_once(tmp_path: Path) -> None:
    s = schedule(tmp_path)
    epochs = []
    for epoch in range(3):
        rows = [torch.cat(s.micro_batches(2, 2 * epoch + part)).tolist() for part in (0, 1)]
        assert [len(part) for part in rows] == [8, 8]
        assert sorted(rows[0] + rows[1]) == list(range(16))
        epochs.append(rows)
    assert epochs[0] != epochs[1]
    assert [len(rows) for rows in s.micro_batches(0, 0)] == [3, 3, 2]
    whole = schedule(tmp_path, per_device_train_batch_size=8)
    assert torch.equal(torch.cat(s.micro_batches(0, 1)), whole.micro_batches(0, 1)[0])


def test_scoring_uses_the_first_epochs_micro_batches(tmp_path: Path) -> None:
    s = schedule(tmp_path)
    expected = [*s.micro_batches(4, 0), *s.micro_batches(4, 1)]
    found = s.scoring_batches(4, None)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert [len(rows) for rows in s.scoring_batches(4, 7)] == [7, 7, 2]


def test_episodes_from_epochs(tmp_path: Path) -> None:
    s = schedule(tmp_path, num_prompts=10, num_train_epochs=2, samples_per_prompt=4)  # 80 answers, 16 an iteration
    assert s.num_iterations == 5
    assert s.max_steps == 30
    assert s.iterations_per_epoch == 3  # 4 prompts an iteration
