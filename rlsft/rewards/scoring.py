"""Scores of texts, encoded exactly as the reward model was trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlsft.data.collators import DemonstrationCollator
from rlsft.data.encoding import encode_demonstration
from rlsft.errors import DataError
from rlsft.models import evaluation_mode
from rlsft.rewards.model import RewardModel


def score_texts(
    reward_model: RewardModel,
    tokenizer: Any,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    *,
    batch_size: int = 32,
    max_length: int = 1024,
    system_prompt: str | None = None,
    truncate_prompt: bool = False,
    normalized: bool = False,
    on_batch: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """Reward of every prompt with its completion, in the order given.

    Chat template, end token and length limit are those of training. Sequences are scored longest first, so
    that memory runs out in the first batch or not at all, and padding is little.

    Args:
        reward_model: in any mode; it is scored in eval mode and put back.
        tokenizer: with a pad token.
        prompts: strings or chat lists, [n].
        completions: strings or chat lists, [n].
        batch_size: sequences a forward.
        max_length: tokens of prompt and completion together.
        system_prompt: as in training.
        truncate_prompt: drop the oldest prompt tokens when there is no room; False = such a prompt is an
            error.
        normalized: subtract the stored mean and divide by the stored standard deviation.
        on_batch: called with the number of sequences of each finished batch (progress).

    Returns:
        float64 [n].

    Raises:
        DataError: lengths differ, or a row cannot be encoded (named by its number).
    """
    if len(prompts) != len(completions):
        raise DataError(f"prompts and completions must have one length, got {len(prompts)} and {len(completions)}")
    if batch_size < 1:
        raise DataError(f"batch_size must be at least 1, got {batch_size}")
    options = {"max_length": max_length, "system_prompt": system_prompt, "truncate_prompt": truncate_prompt}
    rows = [
        _encoded(number, prompt, completion, tokenizer, options)
        for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
    ]
    return score_rows(
        reward_model, rows, pad_token_id=tokenizer.pad_token_id, batch_size=batch_size, normalized=normalized,
        on_batch=on_batch,
    )  # fmt: skip


def score_rows(
    reward_model: RewardModel,
    rows: Sequence[Mapping[str, Any]],
    *,
    pad_token_id: int,
    batch_size: int = 32,
    normalized: bool = False,
    on_batch: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """`score_texts` of rows of `input_ids` + `completion_mask` at hand; float64 [n]."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))
    collate = DemonstrationCollator(pad_token_id)
    device = next(reward_model.parameters()).device
    scores = np.full(len(rows), np.nan)
    with torch.no_grad(), evaluation_mode(reward_model):
        for start in range(0, len(order), batch_size):
            chunk = order[start : start + batch_size]
            batch = {name: tensor.to(device) for name, tensor in collate([rows[i] for i in chunk]).items()}
            values = reward_model.score(batch["input_ids"], batch["attention_mask"], normalized=normalized)
            scores[chunk] = values.double().cpu().numpy()
            if on_batch is not None:
                on_batch(len(chunk))
    return scores


def _encoded(number: int, prompt: Any, completion: Any, tokenizer: Any, options: dict[str, Any]) -> dict[str, Any]:
    try:
        return encode_demonstration({"prompt": prompt, "completion": completion}, tokenizer, **options)
    except DataError as error:
        raise DataError(f"row {number}: {error}") from None
