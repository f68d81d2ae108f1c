"""A causal LM seen as trunk + head: what the fused log-probability ops need to know about the head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlsft.errors import ModelError

# Config fields under which the families of transformers keep the cap c of `c * tanh(logits / c)`.
_SOFTCAP_FIELDS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
# Granite and MiniCPM divide by `logits_scaling`; HyperCLOVA X multiplies by the field of the same name.
_MULTIPLYING_LOGITS_SCALING = ("hyperclovax",)
# MPT's config has a `logit_scale` that its transformers implementation does not apply.
_UNUSED_LOGIT_SCALE = ("mpt",)


@dataclass(frozen=True)
class LmHead:
    """The map from hidden states to logits: `softcap(logit_scale * (hidden @ weight.T + bias))`."""

    weight: Tensor  # [V, H], the parameter itself: gradients flow into it
    bias: Tensor | None  # [V]
    softcap: float | None  # None = no cap
    logit_scale: float  # 1.0 = none

    def logits(self, hidden: Tensor) -> Tensor:
        """Plain logits `[..., V]` of `hidden [..., H]`, for checks and tiny inputs."""
        logits = nn.functional.linear(hidden, self.weight.to(hidden.dtype), self.bias) * self.logit_scale
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap


def causal_lm_of(model: nn.Module) -> Any:
    """The `…ForCausalLM` inside any wrapper (DDP, torch.compile, PEFT), with LoRA layers still in place.

    Raises:
        ModelError: prompt-learning adapters, or a model without an LM head.
    """
    inner = unwrap(model)
    if is_peft(inner):
        if inner.peft_config[inner.active_adapter].is_prompt_learning:
            raise ModelError(
                "model has a prompt-learning adapter (prefix or prompt tuning), which lives outside the trunk; "
                "use LoRA: add_lora(model, LoraConfig(...))"
            )
        inner = inner.get_base_model()
    if getattr(inner, "get_output_embeddings", None) is None or inner.get_output_embeddings() is None:
        raise ModelError(
            f"model must be a causal language model with an LM head, got {type(inner).__name__}; "
            f"load it with load_causal_lm(path)"
        )
    return inner


def trunk_of(model: nn.Module) -> Any:
    """The transformer below the LM head: token ids to hidden states, never logits."""
    causal = causal_lm_of(model)
    trunk = getattr(causal, causal.base_model_prefix, None)
    if trunk is None or trunk is causal:
        raise ModelError(f"{type(causal).__name__} does not expose a trunk below its LM head (base_model)")
    return trunk


def unwrap(model: nn.Module) -> Any:
    """`model` without the wrappers of data parallelism and torch.compile."""
    while True:
        inner = getattr(model, "_orig_mod", None) or model._modules.get("module")
        if inner is None:
            return model
        model = inner


def is_peft(model: nn.Module) -> bool:
    """Whether `model` itself is a PEFT wrapper; does not import peft for a plain model."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def lm_head_of(model: nn.Module) -> LmHead:
    """The LM head of `model`: its weight (tied or not), bias, softcap and logit scale.

    Raises:
        ModelError: the head carries a LoRA adapter, or is not one linear layer.
    """
    causal = causal_lm_of(model)
    layer = causal.get_output_embeddings()
    if hasattr(layer, "base_layer"):
        raise ModelError(
            f"the LM head of {type(causal).__name__} carries an adapter, and its weight alone would ignore it; "
            "take the head out of target_modules (for instance target_modules='all-linear'), or merge_lora(model) first"
        )
    weight = getattr(layer, "weight", None)
    if not isinstance(layer, nn.Linear) or weight is None or not weight.is_floating_point():
        raise ModelError(
            f"the LM head of {type(causal).__name__} must be one unquantised linear layer, got {type(layer).__name__}"
        )
    return LmHead(weight, layer.bias, *logit_transform_of(causal.config))


@torch.no_grad()
def check_lm_head(model: nn.Module) -> None:
    """Compare trunk + head with the model's own logits on two tokens; for model families not seen before.

    Raises:
        ModelError: the family does something to its logits that `lm_head_of` does not know.
    """
    causal, head = causal_lm_of(model), lm_head_of(model)
    was_training = causal.training
    causal.eval()  # dropout would make the two passes differ
    try:
        ids = torch.tensor([[0, 1]], device=head.weight.device)
        expected = causal(input_ids=ids, use_cache=False).logits.float()
        actual = head.logits(trunk_of(model)(input_ids=ids, use_cache=False)[0]).float()
    finally:
        causal.train(was_training)
    error = (actual - expected).abs().max().item()
    allowed = 64 * torch.finfo(head.weight.dtype).eps * expected.abs().max().clamp(min=1.0).item()
    if not error <= allowed:
        raise ModelError(
            f"{type(causal).__name__} (model_type {causal.config.model_type!r}) does more to its logits than a linear "
            f"head, a scale and a softcap: they differ by {error:.3g}. This family is not supported yet."
        )


def logit_transform_of(config: Any) -> tuple[float | None, float]:
    """What a family does to its logits after the head, as its config says it: (softcap or None, logit scale)."""
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    return _softcap(text_config), _logit_scale(text_config)


def _softcap(config: Any) -> float | None:
    for field in _SOFTCAP_FIELDS:
        value = getattr(config, field, None)
        if value:
            return float(value)
    return None


def _logit_scale(config: Any) -> float:
    scale = 1.0
    if config.model_type not in _UNUSED_LOGIT_SCALE and isinstance(getattr(config, "logit_scale", None), (int, float)):
        scale *= config.logit_scale
    if isinstance(getattr(config, "lm_head_multiplier", None), (int, float)):
        scale *= config.lm_head_multiplier
    if isinstance(getattr(config, "logits_scaling", None), (int, float)):
        divides = config.model_type not in _MULTIPLYING_LOGITS_SCALING
        scale = scale / config.logits_scaling if divides else scale * config.logits_scaling
    return float(scale)
