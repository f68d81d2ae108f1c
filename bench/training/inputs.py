"""A model of SmolLM2-135M's shape with random weights, a tokenizer of one token a word, and rows of exact lengths.

With one token a word every library sees the same tokens, whatever it does with templates.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast, set_seed

END = "<|im_end|>"
SPECIAL = ("<|endoftext|>", "<|im_start|>", END)


@dataclass(frozen=True)
class Sizes:
    """What is trained; the defaults are the shape of SmolLM2-135M, four rows of 256 tokens a step."""

    hidden: int = 576
    intermediate: int = 1536
    layers: int = 30
    heads: int = 9
    kv_heads: int = 3
    vocabulary: int = 49152
    batch: int = 4
    length: int = 256
    steps: int = 4

    @property
    def prompt(self) -> int:
        """Tokens of a prompt where a row has one: half of it."""
        return self.length // 2


def model_of(sizes: Sizes, dtype: torch.dtype) -> PreTrainedModel:
    """The same random weights for everybody."""
    config = LlamaConfig(
        vocab_size=sizes.vocabulary, hidden_size=sizes.hidden, intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads, num_key_value_heads=sizes.kv_heads,
        max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    set_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")


def tokenizer_of(sizes: Sizes) -> Any:
    """Word `w17` is token 17."""
    words = [*SPECIAL, *(f"w{i}" for i in range(len(SPECIAL), sizes.vocabulary))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=SPECIAL[1], eos_token=END, pad_token=END, unk_token=SPECIAL[0]
    )


def words(count: int, sizes: Sizes, chance: random.Random) -> str:
    """`count` random words."""
    return " ".join(f"w{chance.randrange(len(SPECIAL), sizes.vocabulary)}" for _ in range(count))


def texts(sizes: Sizes) -> list[dict[str, str]]:
    """Rows of `length` tokens, the end token among them."""
    chance = random.Random(0)
    return [{"text": words(sizes.length - 1, sizes, chance)} for _ in range(sizes.batch * sizes.steps)]


def pairs(sizes: Sizes) -> list[dict[str, str]]:
    """A prompt of half the length and two answers that fill the rest, the end token among them."""
    chance = random.Random(0)
    answer = sizes.length - sizes.prompt - 1
    return [
        {
            "prompt": words(sizes.prompt, sizes, chance),
            "chosen": " " + words(answer, sizes, chance),
            "rejected": " " + words(answer, sizes, chance),
        }
        for _ in range(sizes.batch * sizes.steps)
    ]


def token_rows(sizes: Sizes) -> torch.Tensor:
    """[batch, length] random tokens."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(len(SPECIAL), sizes.vocabulary, (sizes.batch, sizes.length), generator=generator)
