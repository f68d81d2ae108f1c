"""One tiny config a model family whose head or logits differ: what an integration must not get wrong."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel, set_seed

_TOKENS: dict[str, Any] = {"vocab_size": 96, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
_SHAPE: dict[str, Any] = {
    **_TOKENS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
_GPT: dict[str, Any] = {**_TOKENS, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}

# family -> (config class, its fields)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-tied": ("LlamaConfig", {**_SHAPE, "tie_word_embeddings": True}),
    "mistral": ("MistralConfig", _SHAPE),
    "qwen2": ("Qwen2Config", _SHAPE),
    "qwen3": ("Qwen3Config", {**_SHAPE, "head_dim": 8}),
    "gemma2-softcap": ("Gemma2Config", {**_SHAPE, "head_dim": 8, "final_logit_softcapping": 2.0}),
    "gemma3": ("Gemma3TextConfig", {**_SHAPE, "head_dim": 8}),
    "gemma3-softcap": ("Gemma3TextConfig", {**_SHAPE, "head_dim": 8, "final_logit_softcapping": 2.0}),
    "gpt2": ("GPT2Config", {**_GPT, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
    "gpt-neox": ("GPTNeoXConfig", {k: v for k, v in _SHAPE.items() if k != "num_key_value_heads"}),
    "phi-bias": ("PhiConfig", _SHAPE),
    "granite-scaling": ("GraniteConfig", {**_SHAPE, "logits_scaling": 8.0}),
    "cohere-scale": ("CohereConfig", {**_SHAPE, "logit_scale": 0.25}),
    "mixtral-aux-loss": (
        "MixtralConfig",
        {**_SHAPE, "num_local_experts": 2, "num_experts_per_tok": 1, "output_router_logits": True},
    ),
}


def family_model(family: str, *, seed: int = 0) -> PreTrainedModel:
    """A float32 model of some thousand weights, in train mode but without dropout; logits spread well beyond a cap."""
    import transformers

    name, fields = FAMILIES[family]
    set_seed(seed)
    model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**fields))
    head: Any = model.get_output_embeddings()
    head.weight.data.mul_(20.0)  # at initialisation logits are near zero, where a cap and a scale hardly show
    if head.bias is not None:
        head.bias.data.normal_()
    return model.train()
