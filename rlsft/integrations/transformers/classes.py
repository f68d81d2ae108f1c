"""Classes between a model and its own class, and a head layer and its own: where the loss is made without logits.

A class and not a function on the instance, because replicas of DataParallel, `copy.deepcopy` and accelerate's autocast
carry an instance's functions to the wrong place, and FSDP2 and DeepSpeed gather weights around a layer's own forward.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlsft.errors import ModelError
from rlsft.integrations.transformers.call import FusedCall, start_call
from rlsft.integrations.transformers.head import active_head_layer
from rlsft.integrations.transformers.logits import LogitsOnDemand


@dataclass
class PatchState:
    """What a patched model knows about itself."""

    model_class: type
    layer_class: type
    softcap: float | None
    logit_scale: float
    enabled: bool = True
    told: bool = False  # whether a call that kept its logits has been mentioned


class FusedHeadLayer:
    """Mixin of the head layer: inside a fused call it makes the loss and lets logits of one position through."""

    _rlsft_call: FusedCall | None = None

    @staticmethod
    def of(cls: type) -> type:
        """The class between: a subclass of `cls` of the same name."""
        plain_forward: Any = cls.forward  # type: ignore[attr-defined]

        @functools.wraps(plain_forward)
        def forward(self: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            call = self._rlsft_call
            if call is None or not call.run(self, hidden):
                return plain_forward(self, hidden, *args, **kwargs)
            with torch.no_grad():  # scales and caps of the family run on it, and nothing reads the result
                return plain_forward(self, hidden[..., :1, :].detach(), *args, **kwargs)

        return _subclass(cls, FusedHeadLayer, {"forward": forward})


class FusedCausalLM:
    """Mixin of the model: with labels, its loss comes from the head layer and its logits are made on demand."""

    @staticmethod
    def of(cls: type) -> type:
        """The class between: a subclass of `cls` of the same name."""
        plain_forward: Any = cls.forward  # type: ignore[attr-defined]
        plain_loss: Any = cls.loss_function  # type: ignore[attr-defined]

        @functools.wraps(plain_forward)
        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            return _forward(self, plain_forward, args, kwargs)

        def loss_function(self: Any) -> Any:
            call = getattr(active_head_layer(self), "_rlsft_call", None)
            return plain_loss.fget(self) if call is None or call.loss is None else call.answer

        return _subclass(
            cls, FusedCausalLM, {"forward": forward, "loss_function": property(loss_function, plain_loss.fset)}
        )


def _subclass(cls: type, mixin: type, members: dict[str, Any]) -> type:
    # The name is read by save_pretrained (config.architectures) and by the Trainer's label smoother.
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    return type(cls.__name__, (mixin, cls), {**names, **members})


def _forward(model: Any, plain_forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    state: PatchState = model._rlsft_patch
    skip_logits = kwargs.pop("skip_logits", None)
    call = start_call(kwargs, state.softcap, state.logit_scale) if _may_fuse(model, kwargs, skip_logits) else None
    if call is None:
        return plain_forward(model, *args, **kwargs)
    layer = active_head_layer(model)
    if not isinstance(layer, FusedHeadLayer):
        _tell_once(state, f"its head is now {type(layer).__name__}: call patch_model again after changing the model")
        return plain_forward(model, *args, **kwargs)
    layer._rlsft_call = call
    try:
        outputs = plain_forward(model, *args, **kwargs)
    finally:
        layer._rlsft_call = None
    if call.loss is None:
        _tell_once(state, "its head is more than a linear layer with one plain LoRA adapter")
        return outputs
    if not call.was_asked:
        raise ModelError(f"{type(model).__name__} does not take its loss from loss_function: unpatch_model(model)")
    return _with_logits(model, outputs, None if skip_logits else _on_demand(model, layer, call, state))


def _may_fuse(model: Any, kwargs: dict[str, Any], skip_logits: bool | None) -> bool:
    """Whether a call may go without logits: nobody asked for them, nor for a tuple, nor for another loss."""
    asked_for_dict = kwargs.get("return_dict")
    returns_dict = model.config.return_dict if asked_for_dict is None else asked_for_dict
    return skip_logits is not False and model._rlsft_patch.enabled and returns_dict and is_plain_loss(model)


def is_plain_loss(model: Any) -> bool:
    """Whether the loss of `model` is the next-token cross-entropy of transformers, and not one of the user's."""
    from transformers.loss.loss_utils import ForCausalLMLoss

    return model.loss_function is ForCausalLMLoss


def _on_demand(model: Any, layer: Any, call: FusedCall, state: PatchState) -> LogitsOnDemand | None:
    # A compiled graph returns tensors only, and DataParallel gathers nothing else from its replicas.
    if torch.compiler.is_compiling() or getattr(model, "_is_replica", False) or call.hidden is None:
        return None

    hidden = call.hidden

    def make() -> Tensor:
        logits = layer(hidden) * state.logit_scale
        return logits if state.softcap is None else torch.tanh(logits / state.softcap) * state.softcap

    device = hidden.device
    autocast = torch.is_autocast_enabled(device.type)
    dtype = torch.get_autocast_dtype(device.type) if autocast else hidden.dtype
    shape = torch.Size((*hidden.shape[:-1], getattr(layer, "base_layer", layer).weight.shape[0]))
    return LogitsOnDemand(make, shape, dtype, device)


def _with_logits(model: Any, outputs: Any, logits: LogitsOnDemand | None) -> Any:
    fields = {name: value for name, value in outputs.items() if name != "logits"}
    return type(outputs)(**fields, **({} if logits is None else {"logits": logits}))


def _tell_once(state: PatchState, why: str) -> None:
    if not state.told:
        state.told = True
        print(f"[rlsft] {state.model_class.__name__} makes its logits as before: {why}", file=sys.stderr)
