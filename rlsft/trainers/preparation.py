"""From a folder or a loaded model to what a trainer trains: tokenizer, length limit, adapter, dropout."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn
from transformers import set_seed

from rlsft.errors import ConfigError, ModelError
from rlsft.models import add_lora, disable_dropout, is_lora, load_tokenizer, unwrap
from rlsft.trainers.arguments import RlsftArguments

logger = logging.getLogger(__name__)


def tokenizer_for(model: Any, processing_class: Any) -> Any:
    """`processing_class`, checked for a pad token, or the tokenizer beside the model.

    Raises:
        ModelError: no tokenizer can be found, or it has no pad token.
    """
    if processing_class is not None:
        return load_tokenizer(processing_class)
    if not isinstance(model, nn.Module):
        return load_tokenizer(model)
    folder = getattr(model.config, "_name_or_path", "")
    if not folder:
        raise ModelError(
            "processing_class is missing, and the model was built in memory, so no folder says which "
            "tokenizer it has; pass processing_class=load_tokenizer(FOLDER)"
        )
    return load_tokenizer(folder)


def adapt(model: nn.Module, args: RlsftArguments, peft_config: Any, task_type: Any) -> nn.Module:
    """`model` with the adapter, dropout and checkpointing hooks that `args` and `peft_config` ask for.

    Raises:
        ConfigError: a new adapter for a model that has one.
    """
    set_seed(args.seed)  # the adapter's first values
    if peft_config is not None and is_lora(model):
        raise ConfigError(
            "peft_config was given for a model that carries an adapter already; pass one or the other, or "
            "merge_lora(model) first to start a new adapter on top"
        )
    config = peft_config if peft_config is not None else args.lora_config(task_type)
    if config is not None:
        model = add_lora(model, config)
    if args.disable_dropout:
        disable_dropout(model)
    if is_lora(model) and args.gradient_checkpointing:
        # Frozen embeddings would leave the checkpointed layers without an input that needs a gradient.
        unwrap(model).enable_input_require_grads()
    return model


def length_limit(max_length: int | None, model: nn.Module) -> int:
    """The smaller of `max_length` and the positions that the model has.

    Raises:
        ConfigError: neither is known.
    """
    config = unwrap(model).config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(config, "max_position_embeddings", None)  # n_positions of GPT-2 answers to it too
    known = [limit for limit in (max_length, positions) if isinstance(limit, int)]
    if not known:
        raise ConfigError(f"max_length must be set: the config of {type(model).__name__} names no context length")
    if max_length is not None and min(known) < max_length:
        logger.info("max_length is %d, the context length of the model, not %d", min(known), max_length)
    return min(known)
