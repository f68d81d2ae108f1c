"""What a head layer is made of: its own weight, or that of the layer inside PEFT's wrappers with the adapter beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor


@dataclass(frozen=True)
class HeadFactors:
    """`hidden @ weight.T + bias`, plus `scale * hidden @ A.T @ B.T` with a LoRA adapter."""

    weight: Tensor  # [V, H]
    bias: Tensor | None  # [V]
    lora: tuple[Tensor, Tensor, float] | None  # A [r, H], B [V, r], scale


def active_head_layer(model: Any) -> Any:
    """The layer that makes the logits; of PEFT's `modules_to_save` the copy in use."""
    layer = model.get_output_embeddings()
    copies = getattr(layer, "modules_to_save", None)
    if copies is None or not hasattr(layer, "original_module"):
        return layer
    names = [name for name in layer.active_adapters if name in copies]
    return layer.original_module if layer.disable_adapters or not names else copies[names[0]]


def head_factors(layer: Any) -> HeadFactors | None:
    """The tensors of a head; None where it is more than a linear layer with at most one plain LoRA adapter."""
    base = getattr(layer, "base_layer", layer)
    weight = getattr(base, "weight", None)
    if not isinstance(base, nn.Linear) or weight is None or not weight.is_floating_point():
        return None
    if isinstance(weight, DTensor):  # tensor parallelism: a rank holds a part of the vocabulary only
        return None
    plain = HeadFactors(weight, base.bias, None)
    if base is layer:
        return plain
    if layer.disable_adapters or layer.merged:
        return None if layer.disable_adapters and layer.merged else plain  # its forward would unmerge the weight first
    return _with_adapter(layer, plain)


def _with_adapter(layer: Any, plain: HeadFactors) -> HeadFactors | None:
    if not hasattr(layer, "lora_A"):  # some other method than LoRA
        return None
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if not active:
        return plain
    name = active[0]
    drops = layer.training and getattr(layer.lora_dropout[name], "p", 0.0) > 0
    has_bias = any(low_rank[name].bias is not None for low_rank in (layer.lora_A, layer.lora_B))
    if len(active) > 1 or drops or has_bias or name in layer.lora_variant:
        return None
    low_rank_update = (layer.lora_A[name].weight, layer.lora_B[name].weight, float(layer.scaling[name]))
    return HeadFactors(plain.weight, plain.bias, low_rank_update)
