"""A reward at every token of an answer, read off two checkpoints of one model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from rlsft.data.encoding import encode_demonstration
from rlsft.errors import ConfigError, DataError, ModelError
from rlsft.models import is_lora, token_logprobs, without_adapter

TokenRewards = list[NDArray[np.float32]]


def token_rewards(
    policy: nn.Module,
    reference: nn.Module | None,
    tokenizer: Any,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    beta: float,
    batch_size: int = 32,
    max_length: int = 1024,
    system_prompt: str | None = None,
    truncate_prompt: bool = False,
    on_batch: Callable[[int], None] | None = None,
) -> TokenRewards:
    """`r_t = beta * (log pi_theta(y_t | x, y_<t) - log pi_ref(y_t | x, y_<t))` for every completion token.

    The sum over an answer is the implicit reward of IRFT and DPO (arXiv 2405.17888, 2305.18290). Any two
    checkpoints with one vocabulary will do: two IRFT rounds, the end and the middle of an SFT run (as in arXiv
    2510.02493), an adapter on and off.

    Args:
        policy: pi_theta, in any mode.
        reference: pi_ref; None = `policy` without its LoRA adapter.
        tokenizer: of both models, with a pad token.
        prompts: strings or chat lists, [n].
        completions: strings or chat lists, [n]; the end token belongs to each and is rewarded as well.
        beta: scale of the reward, above 0.
        batch_size: answers a forward.
        max_length: tokens of prompt and completion together; a completion loses what is beyond it.
        system_prompt: as in training.
        truncate_prompt: drop the oldest prompt tokens when there is no room; False = such a prompt is an error.
        on_batch: called with the number of answers of each finished batch, once for each model (progress).

    Returns:
        One float32 array an answer, in the order given, as long as its completion in tokens.

    Raises:
        ConfigError: `beta` or `batch_size` out of range.
        DataError: lengths differ, or a row cannot be encoded (named by its number).
        ModelError: the models have other vocabularies, or `reference` is None without an adapter.
    """
    rows = encode_rows(
        tokenizer, prompts, completions, max_length=max_length, system_prompt=system_prompt,
        truncate_prompt=truncate_prompt,
    )  # fmt: skip
    return rewards_of_rows(
        policy, reference, rows, pad_token_id=tokenizer.pad_token_id, beta=beta, batch_size=batch_size,
        on_batch=on_batch,
    )  # fmt: skip


def rewards_of_rows(
    policy: nn.Module,
    reference: nn.Module | None,
    rows: Sequence[Mapping[str, Any]],
    *,
    pad_token_id: int,
    beta: float,
    batch_size: int = 32,
    on_batch: Callable[[int], None] | None = None,
) -> TokenRewards:
    """`token_rewards` of rows of `input_ids` + `completion_mask` at hand, such as the tokens a policy has drawn."""
    check_beta(beta)
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    check_pair(policy, reference)
    options: dict[str, Any] = {"pad_token_id": pad_token_id, "batch_size": batch_size, "on_batch": on_batch}
    ours = token_logprobs(policy, rows, **options)
    with without_adapter(policy) if reference is None else nullcontext():
        theirs = token_logprobs(policy if reference is None else reference, rows, **options)
    return [np.float32(beta) * (a - b) for a, b in zip(ours, theirs, strict=True)]


def encode_rows(
    tokenizer: Any, prompts: Sequence[Any], completions: Sequence[Any], **options: Any
) -> list[dict[str, list[Any]]]:
    """`encode_demonstration` of every pair; a row that cannot be encoded is named by its number, from 0."""
    if len(prompts) != len(completions):
        raise DataError(f"prompts and completions must have one length, got {len(prompts)} and {len(completions)}")
    rows = []
    for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        try:
            rows.append(encode_demonstration({"prompt": prompt, "completion": completion}, tokenizer, **options))
        except DataError as error:
            raise DataError(f"row {number}: {error}") from None
    return rows


def check_beta(beta: float) -> None:
    """Raise a ConfigError unless `beta` is a finite number above 0."""
    if not 0 < beta < float("inf"):
        raise ConfigError(f"beta must be a finite number > 0, it scales the log-ratio, got {beta!r}")


def check_pair(policy: nn.Module, reference: nn.Module | None) -> None:
    """Raise a ModelError unless the two models can be compared token by token."""
    if reference is None:
        if not is_lora(policy):
            raise ModelError(
                f"reference is missing, and {type(policy).__name__} has no adapter whose absence could be the "
                "reference; give the checkpoint that the policy came from"
            )
        return
    sizes = [_vocabulary(model) for model in (policy, reference)]
    if sizes[0] != sizes[1]:
        raise ModelError(
            f"policy and reference must share one vocabulary, got {sizes[0]} and {sizes[1]} entries: their "
            "log-probabilities would be of other tokens. Take two checkpoints of one model"
        )


def _vocabulary(model: Any) -> int:
    config = model.config
    return int((config.get_text_config() if hasattr(config, "get_text_config") else config).vocab_size)
