"""`gradient_checkpointing` recomputes the layers and changes no weight of any method, with dropout and LoRA too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaMLP

from rlsft.trainers.ppo.value import ValueModel
from rlsft.trainers.reward import RewardTrainer
from tests.support.irft import irft_trainer
from tests.support.models import tiny_model, tiny_tokenizer
from tests.support.ppo import LORA, ppo_trainer
from tests.support.rewarding import planted_pairs, reward_settings, tiny_classifier
from tests.support.rft import letter_folder, rft_trainer
from tests.support.training import sft_trainer

ADAPTER = {**LORA, "lora_dropout": 0.1}  # random numbers that a recomputed layer has to draw again


def sft(folder: Path, **changes: Any) -> Any:
    return sft_trainer(tiny_model("llama", attention_dropout=0.1), folder, **changes)


def irft(folder: Path, **changes: Any) -> Any:
    return irft_trainer(folder, **changes)


def ppo(folder: Path, **changes: Any) -> Any:
    if changes.get("value_model") == "separate":
        changes["value_model"] = ValueModel.separate_from(tiny_model("llama"))
    return ppo_trainer(folder, total_episodes=16, **changes)


def reward(folder: Path, **changes: Any) -> Any:
    own = {"peft_config": changes.pop("peft_config", None)}
    args = reward_settings(folder, **changes)
    return RewardTrainer(tiny_classifier(), args, planted_pairs(16), processing_class=tiny_tokenizer(), **own)


def trained(trainer: Any) -> tuple[dict[str, torch.Tensor], int]:
    """The trained weights, and the forward passes of all layers with gradients."""
    passes = 0

    def count(module: nn.Module, _inputs: Any) -> None:
        nonlocal passes
        passes += module.training and torch.is_grad_enabled()

    model = trainer.model
    for module in model.modules():
        if isinstance(module, LlamaMLP):
            module.register_forward_pre_hook(count)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    trainer.train()
    after = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    assert any(not torch.equal(before[name], after[name]) for name in after), "nothing was learned"
    return after, passes


@pytest.mark.parametrize(
    "changes",
    [{}, {"peft_config": ADAPTER, "gradient_accumulation_steps": 2}],
    ids=["whole", "lora"],
)
@pytest.mark.parametrize("method", [sft, reward, irft])
def test_weights_are_those_of_a_run_without(
    method: Callable[..., Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    plain, passes = trained(method(tmp_path, gradient_checkpointing=False, **changes))
    saving, recomputed = trained(method(tmp_path, gradient_checkpointing=True, **changes))
    assert recomputed == 2 * passes > 0
    assert plain.keys() == saving.keys()
    assert all(torch.equal(plain[name], saving[name]) for name in plain)


@pytest.mark.parametrize(
    "changes",
    [{}, {"value_model": "separate"}, {"peft_config": LORA}, {"advantage": "rloo", "samples_per_prompt": 2}],
    ids=["shared value", "separate value", "lora", "rloo"],
)
def test_ppo_rolls_out_and_scores_without_and_learns_with_it(changes: dict[str, Any], tmp_path: Path) -> None:
    plain, passes = trained(ppo(tmp_path, gradient_checkpointing=False, **changes))
    saving, recomputed = trained(ppo(tmp_path, gradient_checkpointing=True, **changes))
    assert recomputed == 2 * passes > 0
    assert all(torch.equal(plain[name], saving[name]) for name in plain)


@pytest.mark.parametrize("step", ["rloo", "weighted_sft"])
def test_rft_on_one_trunk_gives_the_same_policy_and_reward(step: str, tmp_path: Path) -> None:
    """Every stage that trains starts from an adapter or puts one on a trunk that others hold too."""
    base = letter_folder(tmp_path / "base")
    for flag in (False, True):
        rft_trainer(
            base, tmp_path / str(flag), gradient_checkpointing=flag, policy_step=step, rounds=2, sample_prompts=8,
            policy_episodes=32, policy_batch_size=32, reward_num_train_epochs=1, stop_after="round_02/policy",
        ).train()  # fmt: skip
    for part in ("reward", "policy"):
        one, other = (
            (tmp_path / str(flag) / f"round_02/{part}/model/adapter_model.safetensors").read_bytes()
            for flag in (False, True)
        )
        assert one == other
