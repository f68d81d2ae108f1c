"""Tiny random models and a real byte-level BPE whose pad token is its end token, as SmolLM2's is."""

from __future__ import annotations

import functools
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    set_seed,
)

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = [
    "Hello! How are you doing today?",
    "I am fine, thank you. What did you do at the weekend?",
    "We went to the park and played football with the children.",
    "That sounds like a lot of fun. The weather was great, wasn't it?",
    "No, it rained in the afternoon, so we watched a film at home.",
    "My favourite food is pizza, but I also like noodles and rice.",
    "こんにちは。元気ですか。今日は天気がいいですね。",
]


@functools.cache
def tiny_tokenizer(vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocab_size` entries with a ChatML template; pad is eos (`<|im_end|>`, id 2)."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|im_end|>",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_config(family: str, vocab_size: int = 400, **changes: Any) -> Any:
    """A two-layer config: llama (tied), gpt2 (absolute positions), qwen2 (untied head, bias), gemma2 (softcap)."""
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        **ids,
    }
    match family:
        case "llama":
            return LlamaConfig(**{**common, "tie_word_embeddings": True, **changes})
        case "qwen2":
            return Qwen2Config(**{**common, "tie_word_embeddings": False, **changes})
        case "gemma2":
            return Gemma2Config(**{**common, "head_dim": 8, "final_logit_softcapping": 5.0, **changes})
        case "gpt2":
            return GPT2Config(
                **{
                    "vocab_size": vocab_size,
                    "n_embd": 32,
                    "n_layer": 2,
                    "n_head": 4,
                    "n_positions": 256,
                    **ids,
                    **changes,
                }
            )
    raise ValueError(f"family must be llama, gpt2, qwen2 or gemma2, got {family!r}")


FAMILIES = ("llama", "gpt2", "qwen2", "gemma2")


def tiny_model(
    family: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any
) -> PreTrainedModel:
    """A causal LM of about 50k parameters with seeded random weights, in eval mode."""
    set_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(family, **changes), dtype=dtype)
    return model.eval()
