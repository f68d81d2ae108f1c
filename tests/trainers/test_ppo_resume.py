"""Invariant 4: a run that is stopped anywhere and resumed equals one that never stopped, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlsft.errors import RunError
from rlsft.trainers.ppo.value import ValueModel
from tests.support.models import tiny_model
from tests.support.ppo import LORA, assert_equal_states, ppo_trainer, rows_of


@pytest.mark.parametrize(
    ("cut", "settings"),
    [
        (6, {}),  # in the middle of an iteration's answers
        (8, {}),  # between two iterations
        (5, {"peft_config": LORA, "kl_ctrl": "adaptive", "kl_target": 0.01, "kl_horizon": 50}),
        (7, {"value_model": "separate", "num_train_epochs": 1, "total_episodes": None, "samples_per_prompt": 4}),
        (6, {"advantage": "rloo", "samples_per_prompt": 2, "per_device_train_batch_size": 3}),
    ],
)
def test_stop_and_resume_equals_never_stopped(tmp_path: Path, cut: int, settings: dict[str, Any]) -> None:
    """C09: bit for bit, optimizer moments, KL weight and logged rows included."""
    saving = {"save_strategy": "steps", "save_steps": cut, "lr_scheduler_type": "linear", "max_steps": 12, **settings}
    if settings.get("value_model") == "separate":
        del saving["value_model"]

    def build(name: str) -> Any:
        given = (
            {"value_model": ValueModel.separate_from(tiny_model("llama", seed=9))} if "value_model" in settings else {}
        )
        return ppo_trainer(tmp_path / name, **saving, **given)

    whole = build("whole")
    whole.train()
    resumed = build("resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{cut}"))
    assert_equal_states(whole, resumed)
    left, right = whole.optimizer.state_dict()["state"], resumed.optimizer.state_dict()["state"]
    for key, moments in left.items():
        assert torch.equal(moments["exp_avg_sq"], right[key]["exp_avg_sq"])
    assert whole.kl_control.value == resumed.kl_control.value
    same = ("loss", "objective/kl", "objective/kl_coef", "reward", "episode", "epoch", "num_tokens", "learning_rate")
    before, after = rows_of(whole)[cut:], [row for row in rows_of(resumed) if row["step"] > cut]
    assert [{k: row.get(k) for k in same} for row in before] == [{k: row.get(k) for k in same} for row in after]


def test_checkpoint_holds_what_it_promises(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=4)
    trainer.train()
    middle, end = tmp_path / "checkpoint-2", tmp_path / "checkpoint-4"
    assert (middle / "rollout_buffer.safetensors").is_file()
    assert not (end / "rollout_buffer.safetensors").exists()  # the next iteration draws new answers
    state = json.loads((middle / "rl_state.json").read_text())
    assert state == {"iteration": 0, "answers_in_use": True, "kl_control": trainer.kl_control.state_dict()}
    assert {"value_config.json", "value_head.safetensors"} <= {file.name for file in (middle / "value_model").iterdir()}
    AutoModelForCausalLM.from_pretrained(middle)


def test_resume_without_the_buffer_or_state_is_explained(tmp_path: Path) -> None:
    ppo_trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=2).train()
    folder = tmp_path / "checkpoint-2"
    (folder / "rollout_buffer.safetensors").unlink()
    with pytest.raises(RunError, match=r"rollout_buffer.safetensors is missing.*Resume from an earlier checkpoint"):
        ppo_trainer(tmp_path).train(resume_from_checkpoint=str(folder))
    (folder / "rl_state.json").unlink()
    with pytest.raises(RunError, match=r"no rl_state.json: it is no PPO checkpoint"):
        ppo_trainer(tmp_path).train(resume_from_checkpoint=str(folder))


def test_resume_with_another_model_is_refused(tmp_path: Path) -> None:
    ppo_trainer(tmp_path, save_strategy="steps", save_steps=2, max_steps=2).train()
    with pytest.raises(RunError, match="are not those of this policy"):
        ppo_trainer(tmp_path, tiny_model("gpt2")).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
