"""The differentiable tensors of an op that starts from a head, by name and by matrix product."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlsft_kernels._head.gradients import HeadGradients, Needs


@dataclass(frozen=True)
class HeadInputs:
    """The differentiable inputs of a head's op, in the order of `needs`."""

    hidden: Tensor  # [N, H]
    weight: Tensor  # [V, H]
    bias: Tensor | None
    lora_hidden: Tensor | None  # [N, r]
    lora_weight: Tensor | None  # [V, r]

    @property
    def hiddens(self) -> tuple[Tensor, ...]:
        """Left factors of the products."""
        return (self.hidden,) if self.lora_hidden is None else (self.hidden, self.lora_hidden)

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Right factors of the products."""
        return (self.weight,) if self.lora_weight is None else (self.weight, self.lora_weight)

    def needs(self, flags: list[bool]) -> Needs:
        """`flags` by product."""
        hidden, weight, bias, lora_hidden, lora_weight = flags
        if self.lora_weight is None:
            return Needs((hidden,), (weight,), bias)
        return Needs((hidden, lora_hidden), (weight, lora_weight), bias)

    def in_order(self) -> tuple[Tensor | None, ...]:
        """As `needs` names them."""
        return self.hidden, self.weight, self.bias, self.lora_hidden, self.lora_weight


def gradients_for_inputs(inputs: HeadInputs, found: HeadGradients) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """In the order of the inputs; an op returns no None, so an empty tensor stands for it."""
    has_lora = inputs.lora_weight is not None
    gradients = (
        found.hiddens[0], found.weights[0], found.bias, found.hiddens[1] if has_lora else None,
        found.weights[1] if has_lora else None,
    )  # fmt: skip
    by_hidden, by_weight, by_bias, by_lora_hidden, by_lora_weight = (
        inputs.weight.new_empty(0) if x is None else x for x in gradients
    )
    return by_hidden, by_weight, by_bias, by_lora_hidden, by_lora_weight
