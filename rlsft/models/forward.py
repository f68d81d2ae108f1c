"""Positions from the mask, hidden states from the trunk, log-probabilities of the completion tokens only."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from rlsft.models.head import causal_lm_of, lm_head_of, trunk_of, unwrap
from rlsft_kernels import LogprobOutput, linear_logprob


def position_ids_of(attention_mask: Tensor) -> Tensor:
    """Positions that count real tokens only, so that padding on either side changes nothing: `cumsum(mask) - 1`.

    Args:
        attention_mask: [B, T], 1 or True = real token.

    Returns:
        int64 [B, T]; the first real token has position 0, left padding too.
    """
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def hidden_states(model: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Last hidden states of the trunk; the vocabulary-sized logits are never computed.

    Works on a plain model, inside PEFT, and through wrappers that must see the call (data parallelism, accelerate's
    autocast). Gradient checkpointing and dropout are whatever the model says.

    Args:
        model: a causal LM.
        input_ids: [B, T] int64.
        attention_mask: [B, T], 1 or True = real token; padding on either side.

    Returns:
        [B, T, H] in the model's compute dtype.
    """
    trunk = trunk_of(model)
    inputs: dict[str, Any] = {
        "input_ids": input_ids,
        "attention_mask": attention_mask.long(),  # some families add it to a float bias, which bool refuses
        "use_cache": False,
    }
    if "position_ids" in inspect.signature(trunk.forward).parameters:
        inputs["position_ids"] = position_ids_of(attention_mask)
    if _must_be_called_from_outside(model):
        return _captured_from_trunk(model, trunk, inputs)
    return trunk(**inputs)[0]


def _must_be_called_from_outside(model: nn.Module) -> bool:
    """Whether a call of the trunk alone would miss something: gradient reduction, unsharding or autocast.

    accelerate's mixed precision replaces `forward` on the instance, hence the look into `vars`.
    """
    return unwrap(model) is not model or "forward" in vars(model) or "forward" in vars(causal_lm_of(model))


def _captured_from_trunk(model: nn.Module, trunk: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """Call the whole wrapped model, with logits for one position at most, and keep what leaves its trunk."""
    captured: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        hidden = output[0]
        device = hidden.device.type
        # The head's matrix product would run in autocast's dtype too; outside the wrapper that dtype is forgotten.
        captured.append(hidden.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else hidden)

    handle = trunk.register_forward_hook(keep)
    if "logits_to_keep" in inspect.signature(type(causal_lm_of(model)).forward).parameters:
        inputs["logits_to_keep"] = 1
    try:
        model(**inputs)
    finally:
        handle.remove()
    return captured[-1]


def completion_logprobs(
    model: nn.Module,
    input_ids: Tensor,  # [B, T] int64
    attention_mask: Tensor,  # [B, T]
    completion_mask: Tensor,  # [B, T] bool
    *,
    temperature: float | Tensor = 1.0,  # or [B]
    outputs: tuple[str, ...] = ("logprob",),
    hidden: Tensor | None = None,  # [B, T, H]
    memory_budget: int = 0,
) -> LogprobOutput:
    """Log-probability of every completion token given what stands before it; differentiable.

    Equals `log_softmax(model(...).logits / temperature)[:, :-1].gather(input_ids[:, 1:])`, shifted so that position
    `t` scores `input_ids[:, t]`, without ever holding `[B, T, V]`: only rows of the mask reach the LM head.

    Args:
        model: a causal LM.
        input_ids: [B, T] int64.
        attention_mask: [B, T], 1 or True = real token.
        completion_mask: [B, T], True = score this token. Position 0 has no context and stays zero.
        temperature: one for the batch, or one a sequence `[B]`; that of the sampler.
        outputs: fields of `LogprobOutput` to fill; the others are None.
        hidden: the result of `hidden_states`, when it is at hand (a shared trunk); None = computed here.
        memory_budget: bytes of logits that the backward need not compute again.

    Returns:
        `LogprobOutput` of `[B, T]` tensors, zero outside the mask.

    Raises:
        ValueError: shapes that do not match.
    """
    for name, mask in (("attention_mask", attention_mask), ("completion_mask", completion_mask)):
        if mask.shape != input_ids.shape:
            raise ValueError(
                f"{name} must be [B, T] = {list(input_ids.shape)}, the shape of input_ids, got {list(mask.shape)}"
            )
    if hidden is None:
        hidden = hidden_states(model, input_ids, attention_mask)
    head = lm_head_of(model)
    scored_BT = completion_mask.bool().clone()
    scored_BT[:, 0] = False
    # The hidden state of position t-1 predicts the token at t.
    hidden_NH = hidden[:, :-1][scored_BT[:, 1:]]
    rows = linear_logprob(
        hidden_NH,
        head.weight.to(hidden.dtype),  # under autocast the trunk is bfloat16 and the stored weight float32
        input_ids[scored_BT],
        bias=None if head.bias is None else head.bias.to(hidden.dtype),
        temperature=_rows_of(temperature, scored_BT),
        softcap=head.softcap,
        logit_scale=head.logit_scale,
        outputs=outputs,
        memory_budget=memory_budget,
    )
    return LogprobOutput(*(None if values is None else _scatter(values, scored_BT) for values in rows))


def _rows_of(temperature: float | Tensor, scored_BT: Tensor) -> float | Tensor:
    if not isinstance(temperature, Tensor) or temperature.ndim == 0:
        return float(temperature)
    if temperature.shape != scored_BT.shape[:1]:
        raise ValueError(f"temperature must be a number or [B] = [{scored_BT.shape[0]}], got {list(temperature.shape)}")
    return temperature[:, None].expand_as(scored_BT)[scored_BT]


def _scatter(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    """`values_N` at the True positions of `mask_BT`, zero elsewhere; differentiable."""
    return torch.zeros(mask_BT.shape, dtype=values_N.dtype, device=values_N.device).masked_scatter(mask_BT, values_N)
