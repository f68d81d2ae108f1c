"""Dropout is really off, and evaluation_mode gives everything back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlsft.models import add_lora, disable_dropout, evaluation_mode
from tests.support.models import tiny_model

IDS = torch.tensor([[5, 17, 301, 40, 2]])


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"attention_dropout": 0.2}),
        ("qwen2", {"attention_dropout": 0.2}),
        ("gemma2", {"attention_dropout": 0.2}),
        ("gpt2", {"attn_pdrop": 0.2, "resid_pdrop": 0.2, "embd_pdrop": 0.2}),
    ],
)
def test_two_training_forwards_are_equal_without_dropout(family: str, changes: dict[str, float]) -> None:  # C06
    model: Any = tiny_model(family, **changes).train()
    first, second = (model(IDS).logits for _ in range(2))
    assert not torch.equal(first, second), "dropout is not on, so the test would show nothing"
    assert disable_dropout(model) > 0
    first, second = (model(IDS).logits for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(first, model.eval()(IDS).logits)


def test_lora_dropout_is_disabled_too() -> None:
    model = add_lora(tiny_model(), {"r": 4, "lora_dropout": 0.5, "init_lora_weights": False}).train()
    assert not torch.equal(model(IDS).logits, model(IDS).logits)
    disable_dropout(model)
    assert torch.equal(model(IDS).logits, model(IDS).logits)


def test_the_count_is_of_probabilities_that_were_not_zero() -> None:
    model = tiny_model("llama", attention_dropout=0.2)
    assert disable_dropout(model) == 3  # two layers and the config
    assert disable_dropout(model) == 0


def test_evaluation_mode_sets_and_restores_every_flag() -> None:
    model: Any = tiny_model("llama").train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False
    frozen = model.model.layers[0].eval()  # a part that the caller keeps in eval mode
    flags = [module.gradient_checkpointing for module in model.modules() if hasattr(module, "gradient_checkpointing")]
    assert any(flags)
    with evaluation_mode(model) as same:
        assert same is model
        assert not any(module.training for module in model.modules())
        assert model.config.use_cache is True
        assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert model.training
    assert not frozen.training
    assert model.config.use_cache is False
    assert flags == [m.gradient_checkpointing for m in model.modules() if hasattr(m, "gradient_checkpointing")]


def test_evaluation_mode_restores_after_an_exception() -> None:  # C15
    model: Any = tiny_model("gpt2").train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.config.use_cache = False
    with pytest.raises(KeyboardInterrupt), evaluation_mode(model):
        raise KeyboardInterrupt
    assert model.training
    assert model.config.use_cache is False
    assert model.is_gradient_checkpointing


def test_evaluation_mode_of_a_lora_model_generates_with_the_cache() -> None:
    model = add_lora(tiny_model(), {"r": 4}).train()
    with evaluation_mode(model), torch.no_grad():
        assert model(IDS).past_key_values is not None
    assert model.training
