"""patch_model: bounded-memory loss for any causal LM in any Trainer, after a self-test on four tokens."""

from __future__ import annotations

import sys
from typing import Any, TypeVar

import torch
from torch import nn

from rlsft.errors import ModelError
from rlsft.integrations.transformers.classes import FusedCausalLM, FusedHeadLayer, PatchState, is_plain_loss
from rlsft.integrations.transformers.head import active_head_layer, head_factors
from rlsft.models.head import is_peft, logit_transform_of

Model = TypeVar("Model", bound=nn.Module)


def patch_model(model: Model, *, verify: bool = True) -> Model:
    """Make the loss of a causal LM without its `[B, T, V]` logits, for every caller of `model(labels=...)`.

    `loss = -1/n * sum_t log softmax(head(h_t))[labels_{t+1}]`, as `ForCausalLMLoss` of transformers defines it,
    `num_items_in_batch`, `shift_labels` and `ignore_index` included, but by tiles of the vocabulary; a batch without
    a labelled token gives 0 instead of NaN. The output's `logits` are made when they are first used, so an
    evaluation with `compute_metrics` works and one without never makes them. Calls without labels (generation, label
    smoothing, `compute_loss_func`) are left alone, and so is a model with a loss function of its own.

    Call it before `Trainer(...)`, `accelerator.prepare`, `torch.compile` or FSDP, and after adapters are added.

    Args:
        model: a causal LM of transformers; inside PEFT or DistributedDataParallel too.
        verify: compare loss and logits with the model's own on four tokens, once, now.

    Returns:
        `model` itself, changed in place; `unpatch_model` undoes it.

    Raises:
        ModelError: the model is not a causal LM whose logits are `softcap(scale * linear(hidden))`, its forward was
            already replaced by somebody else, or it has no numbers to verify.
    """
    causal = _patchable(model)
    layer = active_head_layer(causal)
    _restore(causal)
    state = PatchState(type(causal), type(layer), *logit_transform_of(causal.config))
    causal._rlsft_patch = state
    causal.__class__ = FusedCausalLM.of(type(causal))
    layer.__class__ = FusedHeadLayer.of(type(layer))
    if verify:
        try:
            _verify(causal, layer)
        except BaseException:
            _restore(causal)
            raise
    shape = f"[tokens, {causal.config.get_text_config().vocab_size}]"
    print(f"[rlsft] {state.model_class.__name__}: loss from hidden states, logits {shape} on demand", file=sys.stderr)
    return model


def unpatch_model(model: Model) -> Model:
    """Undo `patch_model`; a model that is not patched stays as it is.

    Args:
        model: as given to `patch_model`, or its wrapper.

    Returns:
        `model` itself.
    """
    _restore(_causal_lm(model))
    return model


def is_patched(model: nn.Module) -> bool:
    """Whether `patch_model` is in effect on `model`."""
    state = getattr(_causal_lm(model), "_rlsft_patch", None)
    return state is not None and state.enabled


def _causal_lm(model: Any) -> Any:
    """The transformers model inside wrappers of data parallelism, torch.compile and PEFT (prompt tuning too)."""
    while True:
        inner = model.get_base_model() if is_peft(model) else getattr(model, "_orig_mod", None)
        inner = model._modules.get("module") if inner is None else inner
        if inner is None:
            return model
        model = inner


def _patchable(model: Any) -> Any:
    causal = _causal_lm(model)
    name = type(causal).__name__
    if hasattr(model, "_orig_mod"):
        raise ModelError(f"model is already compiled, so a patch would not be seen: torch.compile(patch_model({name}))")
    embeddings = getattr(causal, "get_output_embeddings", lambda: None)()
    if embeddings is None or causal.config.is_encoder_decoder or not hasattr(type(causal), "loss_function"):
        raise ModelError(
            f"model must be a causal language model of transformers with an LM head, got {name}; "
            "load it with AutoModelForCausalLM"
        )
    if "forward" in vars(causal):
        raise ModelError(
            f"the forward of this {name} was replaced on the instance (by accelerate, Liger or another patch), which "
            "would bypass this one: call patch_model(model) first"
        )
    if not is_plain_loss(causal):
        raise ModelError(
            f"{name} has a loss function other than transformers' ForCausalLMLoss, which would be replaced; "
            "it keeps its logits, so there is nothing to patch"
        )
    layer = active_head_layer(causal)
    if head_factors(layer) is None:
        raise ModelError(
            f"the LM head of {name} must be one unquantised linear layer, with at most one LoRA adapter without "
            f"dropout, got {type(layer).__name__}"
        )
    return causal


def _restore(causal: Any) -> None:
    """Back to the classes before the patch; where FSDP has put its own on top, the patch goes inert instead."""
    state = vars(causal).get("_rlsft_patch")
    if state is None:
        return
    state.enabled = False
    layer = active_head_layer(causal)
    if type(causal).__mro__[1] is FusedCausalLM:
        causal.__class__ = state.model_class
        del causal._rlsft_patch
    if type(layer).__mro__[1] is FusedHeadLayer:
        layer.__class__ = state.layer_class


@torch.no_grad()
def _verify(causal: Any, layer: Any) -> None:
    """Loss and logits of four tokens, with the model's own forward and without."""
    name, weight = type(causal).__name__, getattr(layer, "base_layer", layer).weight
    if weight.is_meta or weight.numel() == 0:
        raise ModelError(f"{name} has no numbers yet (meta device or ZeRO-3), pass patch_model(model, verify=False)")
    was_training = causal.training
    causal.eval()  # dropout would make the two passes differ
    try:
        ids = torch.arange(4, device=weight.device)[None] % weight.shape[0]
        plain = causal(input_ids=ids, labels=ids, use_cache=False, skip_logits=False)
        fused = causal(input_ids=ids, labels=ids, use_cache=False)
        logits_error = (fused.logits.float() - plain.logits.float()).abs().max().item()
        loss_error = (fused.loss - plain.loss).abs().item()
    finally:
        causal.train(was_training)
    allowed = 64 * torch.finfo(weight.dtype).eps * plain.logits.float().abs().max().clamp(min=1.0).item()
    if not max(logits_error, loss_error) <= allowed:
        raise ModelError(
            f"{name} (model_type {causal.config.model_type!r}) does more to its logits than a linear head, a scale and "
            f"a softcap: logits differ by {logits_error:.3g}, the loss by {loss_error:.3g}. It is left as it was"
        )
