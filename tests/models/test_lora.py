"""The adapter off is the reference, merged is the adapter, and GPT-2's transposed layers raise no warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn

from rlsft.errors import ConfigError, ModelError
from rlsft.models import add_lora, is_lora, load_causal_lm, merge_lora, without_adapter
from tests.support.models import FAMILIES, tiny_model

IDS = torch.tensor([[5, 17, 301, 40, 2]])


def trained_lora(family: str) -> Any:
    """A LoRA model whose adapter is not the zero it starts as."""
    return add_lora(tiny_model(family), {"r": 4, "lora_alpha": 16, "init_lora_weights": False}).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_adapter_off_equals_the_base_model(family: str) -> None:
    base = tiny_model(family)(IDS).logits
    lora = trained_lora(family)
    assert (lora(IDS).logits - base).abs().max() > 1e-3
    with without_adapter(lora):
        assert torch.equal(lora(IDS).logits, base)
    assert (lora(IDS).logits - base).abs().max() > 1e-3


def test_adapter_comes_back_after_an_exception_and_stays_trainable() -> None:
    lora = trained_lora("llama")
    with_adapter = lora(IDS).logits
    trainable = [name for name, p in lora.named_parameters() if p.requires_grad]
    with pytest.raises(RuntimeError, match="inside"), without_adapter(lora):
        raise RuntimeError("inside")
    assert torch.equal(lora(IDS).logits, with_adapter)
    assert trainable == [name for name, p in lora.named_parameters() if p.requires_grad] != []


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_equals_the_adapter_and_is_a_plain_model(family: str, tmp_path: Path) -> None:
    lora = trained_lora(family)
    with torch.no_grad():
        expected = lora(IDS).logits
        merged = merge_lora(lora)
        assert not is_lora(merged)
        torch.testing.assert_close(merged(IDS).logits, expected, atol=1e-5, rtol=1e-5)
        merged.save_pretrained(tmp_path)
        torch.testing.assert_close(load_causal_lm(tmp_path)(IDS).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_default_targets_are_all_linear_layers_but_the_head(family: str) -> None:
    lora = add_lora(tiny_model(family), {"r": 4})
    adapted = [
        name for name, module in lora.named_modules() if hasattr(module, "lora_A") and hasattr(module, "base_layer")
    ]
    assert len(adapted) == (8 if family == "gpt2" else 14)
    assert not any("lm_head" in name for name in adapted)
    assert all(p.requires_grad == ("lora_" in name) for name, p in lora.named_parameters())


def test_a_peft_config_is_taken_as_it_is_and_a_second_call_adds_nothing() -> None:
    lora = add_lora(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert add_lora(lora, {"r": 8}) is lora
    assert sum("lora_A" in name for name, _ in lora.named_parameters()) == 2
    assert is_lora(lora)
    assert not is_lora(tiny_model())


def test_an_unknown_field_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown LoRA field 'lora_alfa'; did you mean 'lora_alpha'"):
        add_lora(tiny_model(), {"lora_alfa": 16})


def test_a_plain_model_has_no_adapter_to_switch_off() -> None:
    message = "LlamaForCausalLM has no adapter to switch off; pass a separate reference"
    with pytest.raises(ModelError, match=message), without_adapter(tiny_model()):
        pass


def test_merging_a_plain_model_returns_it() -> None:
    model = tiny_model()
    assert merge_lora(model) is model
    assert isinstance(merge_lora(model), nn.Module)
