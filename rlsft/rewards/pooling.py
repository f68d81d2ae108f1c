"""The score of a sequence: the head at the last real token, found by the attention mask and never by a token id."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlsft.errors import ModelError
from rlsft.models import position_ids_of, unwrap


def pooled_scores(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Reward of every sequence, in float32.

    Decoders (`.score` head on every token): `score = w · h[last real token]`. transformers' own forward looks
    for the last token that is not the pad token, which misses the end token where pad equals it; the mask
    does not. Encoders (BERT's `.classifier`) pool as they were trained to, through their own forward.

    Args:
        model: a sequence-classification model with one label, plain, with an adapter, or wrapped for data
            parallelism; the call goes through the wrapper, so gradients are reduced and weights gathered.
        input_ids: [B, T] int64.
        attention_mask: [B, T], 1 or True = real token; padding on either side.

    Returns:
        float32 [B].
    """
    outer = unwrap(model)
    classifier = classifier_of(model)
    if head_name(classifier) != "score":
        return model(input_ids=input_ids, attention_mask=attention_mask.long()).logits[:, 0].float()
    with _forward_replaced(outer, lambda ids, mask: _score_last_token(classifier, ids, mask)):
        return model(input_ids, attention_mask)


def token_scores(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Reward at every token in float32, [B, T]; what stands at padding means nothing.

    Args:
        model: as for `pooled_scores`, with a head on every token (a decoder).
        input_ids: [B, T] int64.
        attention_mask: [B, T], 1 or True = real token; padding on either side.

    Raises:
        ModelError: an encoder, whose head reads the whole sequence at once.
    """
    classifier = classifier_of(model)
    if head_name(classifier) != "score":
        raise ModelError(
            f"{type(classifier).__name__} scores whole sequences only; rewards a token need a decoder with a score head"
        )
    with _forward_replaced(
        unwrap(model), lambda ids, mask: apply_head(classifier.score, _hidden(classifier, ids, mask))
    ):
        return model(input_ids, attention_mask)


def _score_last_token(classifier: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    hidden_BTH = _hidden(classifier, input_ids, attention_mask)
    last_B = last_real_token(attention_mask)
    return apply_head(classifier.score, hidden_BTH[torch.arange(len(last_B), device=last_B.device), last_B])


def _hidden(classifier: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Last hidden states [B, T, H] of the trunk."""
    trunk = classifier.base_model
    inputs: dict[str, Any] = {
        "input_ids": input_ids,
        "attention_mask": attention_mask.long(),
        "use_cache": False,
    }
    if "position_ids" in inspect.signature(trunk.forward).parameters:
        inputs["position_ids"] = position_ids_of(attention_mask)
    return trunk(**inputs)[0]


def last_real_token(attention_mask: Tensor) -> Tensor:
    """int64 [B]: the index of the last real token in each row of [B, T]; 0 in a row without any."""
    positions_T = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return (attention_mask.long() * positions_T).argmax(dim=1)


def apply_head(head: nn.Module, pooled: Tensor) -> Tensor:
    """[..., H] to float32 [...]. Scores differ by little, so the product is always taken in float32."""
    linear = _linear_of(head)
    if linear is None:  # a head with an adapter of its own
        return head(pooled)[..., 0].float()
    with torch.autocast(pooled.device.type, enabled=False):
        bias = None if linear.bias is None else linear.bias.float()
        return F.linear(pooled.float(), linear.weight.float(), bias)[..., 0]


def _linear_of(head: Any) -> nn.Linear | None:
    if hasattr(head, "modules_to_save"):  # peft's trained copy of the head
        if head.disable_adapters or head.active_adapters[0] not in head.modules_to_save:
            head = head.original_module
        else:
            head = head.modules_to_save[head.active_adapters[0]]
    return head if isinstance(head, nn.Linear) and not hasattr(head, "base_layer") else None


def classifier_of(model: nn.Module) -> Any:
    """The `…ForSequenceClassification` inside any wrapper (DDP, torch.compile, PEFT).

    Raises:
        ModelError: a model without a classification head, or with more than one label.
    """
    inner = unwrap(model)
    if hasattr(inner, "peft_config") and hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    head_name(inner)
    labels = inner.config.num_labels
    if labels != 1:
        raise ModelError(
            f"a reward model must have num_labels=1 (one score), got {type(inner).__name__} with {labels}; "
            "load it with RewardModel.from_pretrained, or give num_labels=1 to "
            "AutoModelForSequenceClassification"
        )
    return inner


def head_name(classifier: Any) -> str:
    """`score` (decoders, one linear layer on every token) or `classifier` (encoders, pooled their own way).

    Raises:
        ModelError: neither is there.
    """
    for name in ("score", "classifier"):
        if isinstance(getattr(classifier, name, None), nn.Module):
            return name
    raise ModelError(
        f"{type(classifier).__name__} has neither a score nor a classifier head, so it gives no reward; load "
        "a reward model from a folder (a causal LM will do): RewardModel.from_pretrained(FOLDER)"
    )


@contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., Tensor]) -> Iterator[None]:
    """Within the block, calling `module`, or a wrapper around it, runs `forward`."""
    previous = vars(module).get("forward")
    module.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        if previous is None:
            del module.forward
        else:
            module.forward = previous  # type: ignore[method-assign]
