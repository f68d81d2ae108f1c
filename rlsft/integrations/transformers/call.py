"""One forward pass with labels: what it was asked for, and the loss that its head made instead of logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlsft.errors import ModelError
from rlsft.integrations.transformers.head import head_factors
from rlsft_kernels import linear_cross_entropy

IGNORE_INDEX = -100


@dataclass
class FusedCall:
    """Lives on the head layer while the model's forward runs; the head fills in `loss`, the model asks for it."""

    labels: Tensor | None  # [B, T] as the caller gave them
    shift_labels: Tensor | None  # [B, T], already shifted
    targets: Tensor  # [B, T], what the position predicts
    ignore_index: int
    num_items_in_batch: Any
    softcap: float | None
    logit_scale: float
    loss: Tensor | None = None
    hidden: Tensor | None = None  # [B, T, H]
    was_asked: bool = False

    def run(self, layer: nn.Module, hidden: Tensor) -> bool:
        """Make the loss from the hidden states that reach the head; False where this head must make its logits."""
        factors = head_factors(layer)
        if factors is None or self.loss is not None or hidden.shape[:-1] != self.targets.shape:
            return False
        self.hidden = hidden
        self.loss, _ = linear_cross_entropy(
            hidden,
            factors.weight,
            self.targets.to(hidden.device),
            bias=factors.bias,
            ignore_index=self.ignore_index,
            softcap=self.softcap,
            logit_scale=self.logit_scale,
            normalizer=_normalizer(self.num_items_in_batch, hidden.device),
            lora=factors.lora,
        )
        return True

    def answer(
        self, logits: Tensor, labels: Tensor | None, *_args: Any, shift_labels: Tensor | None = None, **_kwargs: Any
    ) -> Tensor:
        """Stands for `ForCausalLMLoss`: the loss that is already there, if it is that of these labels.

        Raises:
            ModelError: the model changed the labels on the way to its loss.
        """
        given, came = (self.labels, labels) if self.shift_labels is None else (self.shift_labels, shift_labels)
        if given is None or came is None or not (came is given or torch.equal(came.to(given.device), given)):
            raise ModelError(
                "this model family changes its labels before the loss, which patch_model does not support: "
                "unpatch_model(model), or pass skip_logits=False in this call"
            )
        self.was_asked = True
        assert self.loss is not None
        return self.loss


def start_call(kwargs: dict[str, Any], softcap: float | None, logit_scale: float) -> FusedCall | None:
    """The call that these arguments of a forward pass ask for; None where no loss is wanted or logits are."""
    labels, shift_labels = kwargs.get("labels"), kwargs.get("shift_labels")
    keeps_some = kwargs.get("logits_to_keep", 0)
    if labels is None or isinstance(keeps_some, Tensor) or keeps_some != 0:
        return None  # without labels a model makes no loss, whatever shift_labels says
    ignore_index = kwargs.get("ignore_index", IGNORE_INDEX)
    targets = shift_labels if shift_labels is not None else _shifted(labels, ignore_index)
    return FusedCall(
        labels, shift_labels, targets, ignore_index, kwargs.get("num_items_in_batch"), softcap, logit_scale
    )


def _shifted(labels_BT: Tensor, ignore_index: int) -> Tensor:
    """What every position predicts: the label one further on, nothing at the end."""
    return nn.functional.pad(labels_BT, (0, 1), value=ignore_index)[..., 1:]


def _normalizer(num_items: Any, device: torch.device) -> Any:
    """None, a number, or a 0-d tensor where the loss is; DataParallel hands every replica one of shape [1]."""
    return num_items.to(device).reshape(()) if isinstance(num_items, Tensor) else num_items
