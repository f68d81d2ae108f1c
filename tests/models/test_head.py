"""What lm_head_of reads from each family, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    CohereConfig,
    CohereForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from rlsft.errors import ModelError
from rlsft.models import add_lora, check_lm_head, lm_head_of
from tests.support.models import FAMILIES, tiny_config, tiny_model

SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weight_is_the_parameter_itself_tied_or_not(family: str) -> None:
    model: Any = tiny_model(family)
    head = lm_head_of(model)
    assert head.weight is model.lm_head.weight
    assert (head.weight is model.get_input_embeddings().weight) == (family != "qwen2")
    assert head.bias is None
    assert head.softcap == (5.0 if family == "gemma2" else None)
    assert head.logit_scale == 1.0
    check_lm_head(model)


def test_logit_scales_of_cohere_and_granite() -> None:
    torch.manual_seed(0)
    cohere = CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25))
    granite = GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=8.0))
    assert lm_head_of(cohere).logit_scale == 0.25
    assert lm_head_of(granite).logit_scale == 0.125
    check_lm_head(cohere)
    check_lm_head(granite)


def test_a_bias_is_part_of_the_head() -> None:
    model: Any = tiny_model("qwen2")
    model.lm_head = nn.Linear(32, 400)
    assert lm_head_of(model).bias is model.lm_head.bias
    check_lm_head(model)


def test_check_finds_a_head_that_does_more() -> None:
    class Doubled(type(tiny_model("llama"))):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * 1.01
            return output

    with pytest.raises(ModelError, match="does more to its logits"):
        check_lm_head(Doubled(tiny_config("llama")))


def test_check_leaves_the_mode_alone() -> None:
    model = tiny_model("gpt2").train()
    check_lm_head(model)
    assert model.training


def test_a_lora_adapter_on_the_head_is_refused() -> None:
    model = add_lora(tiny_model("qwen2"), {"r": 2, "target_modules": ["q_proj", "lm_head"]})
    with pytest.raises(ModelError, match=r"carries an adapter.*take the head out of target_modules"):
        lm_head_of(model)


def test_a_model_without_a_head_is_refused() -> None:
    classifier = AutoModelForSequenceClassification.from_config(tiny_config("llama"))
    with pytest.raises(ModelError, match="must be a causal language model with an LM head"):
        lm_head_of(classifier)


def test_prompt_tuning_is_refused() -> None:
    from peft import PromptTuningConfig, get_peft_model

    model = get_peft_model(tiny_model(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ModelError, match=r"prompt-learning adapter.*use LoRA"):
        lm_head_of(model)
