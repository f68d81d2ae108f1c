"""Dropout really off, and a model in its generating state for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

# The spellings of transformers: attention_dropout, resid_pdrop, embd_pdrop, dropout, dropout_p, layerdrop, …
_DROPOUT_WORDS = ("dropout", "pdrop", "layerdrop", "drop_path", "dropout_p", "dropout_prob", "drop_rate")


def disable_dropout(model: nn.Module) -> int:
    """Set every dropout probability of `model` to zero, in train mode too; return how many were not zero.

    Zeroing `nn.Dropout.p` is not enough: Llama, Qwen and Gemma keep `attention_dropout` as a plain number that is
    passed to a functional call. Modules and their configs are searched for such numbers. With dropout on, the first
    ratio of PPO is not 1 and the first KL is not 0.
    """
    changed = 0
    owners: dict[int, Any] = {}
    for module in model.modules():
        owners[id(module)] = module
        config = getattr(module, "config", None)
        if config is not None and not isinstance(config, dict):
            owners[id(config)] = config
    for owner in owners.values():
        changed += _zero_dropout(owner)
    return changed


def _zero_dropout(owner: Any) -> int:
    names = ["p"] if isinstance(owner, nn.modules.dropout._DropoutNd) else []
    names += [name for name in vars(owner) if _is_dropout_name(name)]
    live = [name for name in names if _is_probability(getattr(owner, name))]
    for name in live:
        setattr(owner, name, 0.0)
    return len(live)


def _is_dropout_name(name: str) -> bool:
    return any(word in name.lower() for word in _DROPOUT_WORDS)


def _is_probability(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block: eval mode, KV cache on, gradient checkpointing off. All of it is put back, errors included.

    The state is kept module by module, so a frozen part that was in eval mode inside a training model stays so.
    """
    training = [(module, module.training) for module in model.modules()]
    checkpointing = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False) is True]
    caches = [(config, config.use_cache) for config in _configs_with_cache(model)]
    try:
        model.eval()
        for module in checkpointing:
            module.gradient_checkpointing = False  # type: ignore[assignment]
        for config, _ in caches:
            config.use_cache = True
        yield model
    finally:
        for config, value in caches:
            config.use_cache = value
        for module in checkpointing:
            module.gradient_checkpointing = True  # type: ignore[assignment]
        for module, flag in training:
            module.training = flag


def _configs_with_cache(model: nn.Module) -> list[Any]:
    found: dict[int, Any] = {}
    for module in model.modules():
        for name in ("config", "generation_config"):
            config = getattr(module, name, None)
            if hasattr(config, "use_cache"):
                found[id(config)] = config
    return list(found.values())
