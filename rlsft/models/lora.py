"""LoRA through peft: add it, take it off for the reference model, merge it into a plain model."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from rlsft.errors import ConfigError, ModelError
from rlsft.models.head import is_peft, unwrap
from rlsft.models.loading import load_causal_lm


def add_lora(model: nn.Module, peft_config: Any) -> Any:
    """Wrap `model` with a LoRA adapter; only the adapter is trained from then on.

    Args:
        model: a transformers model.
        peft_config: a `peft.PeftConfig`, or a mapping of `LoraConfig` fields such as `{"r": 16, "lora_alpha": 32}`.
            Without `target_modules` every linear layer except the output layer is adapted.

    Returns:
        A `peft.PeftModel`. A model that already carries an adapter is returned as it is.

    Raises:
        ConfigError: peft is not installed, or a field is unknown.
    """
    if is_lora(model):
        return model
    if importlib.util.find_spec("peft") is None:
        raise ConfigError("peft_config needs the peft package: pip install 'rlsft[peft]'")
    from peft import get_peft_model

    config = _lora_config(peft_config) if isinstance(peft_config, Mapping) else peft_config
    if config.target_modules is None:
        config.target_modules = "all-linear"
    if _has_conv1d(model) and hasattr(config, "fan_in_fan_out"):
        config.fan_in_fan_out = True  # GPT-2 stores its weights transposed; peft would set it too, with a warning
    return get_peft_model(model, config)  # type: ignore[arg-type]


def _lora_config(fields: Mapping[str, Any]) -> Any:
    from dataclasses import fields as dataclass_fields
    from difflib import get_close_matches

    from peft import LoraConfig

    known = [field.name for field in dataclass_fields(LoraConfig)]
    for name in fields:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else f"; known: {', '.join(sorted(known))}"
            raise ConfigError(f"peft_config has an unknown LoRA field {name!r}{hint}")
    return LoraConfig(**{"task_type": "CAUSAL_LM", "target_modules": "all-linear", **fields})


def _has_conv1d(model: nn.Module) -> bool:
    return any(type(module).__name__ == "Conv1D" for module in model.modules())


def load_policy(folder: str | os.PathLike[str], *, dtype: str = "auto") -> Any:
    """A causal LM for use: a plain folder, or a LoRA adapter on the base model that it names.

    Raises:
        ConfigError: the adapter's base model is no folder here.
        ModelError: the folder cannot be loaded.
    """
    if not (Path(folder) / "adapter_config.json").exists():
        return load_causal_lm(folder, dtype=dtype)
    from peft import PeftConfig, PeftModel

    base = PeftConfig.from_pretrained(folder).base_model_name_or_path
    if not base or not Path(base).is_dir():
        raise ConfigError(
            f"{folder}/adapter_config.json names the base model {base!r}, which is no folder here; "
            "put it there or correct base_model_name_or_path"
        )
    return PeftModel.from_pretrained(load_causal_lm(base, dtype=dtype), folder)


def is_lora(model: nn.Module) -> bool:
    """Whether `model`, inside any data-parallel wrapper, carries a PEFT adapter."""
    return is_peft(unwrap(model))


@contextmanager
def without_adapter(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block `model` computes as if it had no adapter: the reference policy, without a second copy.

    Raises:
        ModelError: the model has no adapter, so it has no separate reference inside it.
    """
    if not is_lora(model):
        raise ModelError(
            f"{type(unwrap(model)).__name__} has no adapter to switch off; pass a separate reference model "
            f"(ref_model=...)"
        )
    with unwrap(model).disable_adapter():
        yield model


def merge_lora(model: nn.Module) -> Any:
    """The plain transformers model with the adapter added into its weights; a plain model is returned as it is.

    The merge happens in place: the given wrapper should not be used afterwards.
    """
    inner = unwrap(model)
    return inner.merge_and_unload() if is_peft(inner) else inner
