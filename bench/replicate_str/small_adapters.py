"""Two light ways of fine-tuning that peft does not have: Houlsby's bottleneck adapters, and biases alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Bottleneck(nn.Module):
    """`h + up(gelu(down(h)))` (Houlsby et al., arXiv 1902.00751): the identity until `up` is trained.

    Args:
        width: of the hidden states.
        bottleneck: of the layer between.
    """

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.normal_(self.down.weight, std=0.01)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.up(nn.functional.gelu(self.down(hidden)))


def add_bottlenecks(model: Any, bottleneck: int, *, seed: int) -> Any:
    """Two adapters a block of a GPT-2 model, after attention and after the MLP: these and the layer norms train."""
    model.requires_grad_(False)
    torch.manual_seed(seed)
    width = model.config.n_embd
    for block in model.transformer.h:
        block.attn.c_proj = nn.Sequential(block.attn.c_proj, Bottleneck(width, bottleneck))
        block.mlp.c_proj = nn.Sequential(block.mlp.c_proj, Bottleneck(width, bottleneck))
    for module in model.modules():
        if isinstance(module, (Bottleneck, nn.LayerNorm)):
            module.requires_grad_(True)
    return model


def only_biases(model: Any) -> Any:
    """Trains the biases and nothing else (BitFit, arXiv 2106.10199)."""
    found = False
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
        found = found or parameter.requires_grad
    if not found:
        raise ValueError("the model has no biases to train: BitFit needs a decoder with biases, such as GPT-2's")
    return model


def trained_share(model: Any) -> float:
    """Share of the weights that the optimizer moves."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in sizes if trained) / sum(n for n, _ in sizes)
