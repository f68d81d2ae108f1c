"""A GPT-2 small enough to train in seconds, with biases, so that BitFit has something to train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# a prompt, a new line, the answer, the end: decoded answers encode again to the very tokens that were drawn, and no
# system message takes a third of the tokens
TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}"
    "{% if m['role'] == 'user' %}{{ '\\n' }}{% else %}{{ eos_token }}{% endif %}{% endfor %}"
)


def small_gpt2(vocabulary: int, seed: int, *, width: int, layers: int, positions: int, end: int) -> Any:
    """Drawn anew for each seed; no dropout."""
    from transformers import AutoModelForCausalLM, GPT2Config, set_seed

    set_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=positions, n_embd=width, n_layer=layers, n_head=max(1, width // 16),
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=end, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager")


def trained_on(
    model: Any, tokenizer: Any, rows: list[dict[str, str]], folder: Path, *, steps: int, seed: int, max_length: int,
    batch: int = 32, learning_rate: float = 2e-3,
) -> Any:  # fmt: skip
    """The pretraining that all methods of a seed start from."""
    from rlsft import SFTConfig, SFTTrainer

    args = SFTConfig(
        output_dir=str(folder), max_steps=steps, learning_rate=learning_rate, per_device_train_batch_size=batch,
        lr_scheduler_type="cosine", warmup_steps=steps // 20, logging_steps=1000, save_strategy="no", use_cpu=True,
        seed=seed, max_length=max_length, show_progress=False,
    )  # fmt: skip
    SFTTrainer(model, args, rows, processing_class=tokenizer).train()
    return model


def small_bpe(texts: list[str], vocabulary: int) -> Any:
    """A byte-level BPE of the texts with a template of one line a turn; pad == eos."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|end|>", eos_token="<|end|>", unk_token="<|end|>", pad_token="<|end|>",
        chat_template=TEMPLATE,
    )  # fmt: skip
