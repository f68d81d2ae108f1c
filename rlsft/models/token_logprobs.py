"""Log-probabilities of whole sets of encoded answers, batched by length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlsft.data.collators import DemonstrationCollator
from rlsft.models.forward import completion_logprobs
from rlsft.models.modes import evaluation_mode


def token_logprobs(
    model: nn.Module,
    rows: Sequence[Mapping[str, Any]],
    *,
    pad_token_id: int,
    batch_size: int = 32,
    on_batch: Callable[[int], None] | None = None,
) -> list[NDArray[np.float32]]:
    """`log p(token | what stands before it)` of every completion token of every row, without gradient.

    Rows go longest first, so that memory runs out in the first batch or not at all, and padding is little.

    Args:
        model: a causal LM in any mode; it is scored in eval mode and put back.
        rows: `input_ids` and `completion_mask` of equal length, as `encode_demonstration` gives them.
        pad_token_id: fills the gaps of a batch; may equal the end token.
        batch_size: rows a forward.
        on_batch: called with the number of rows of each finished batch (progress).

    Returns:
        One float32 array a row, as long as its completion, in the order given.

    Raises:
        ValueError: `batch_size` below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]["input_ids"]))
    collate = DemonstrationCollator(pad_token_id)
    device = next(model.parameters()).device
    found: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(rows)
    with torch.no_grad(), evaluation_mode(model):
        for start in range(0, len(order), batch_size):
            chunk = order[start : start + batch_size]
            batch = {name: tensor.to(device) for name, tensor in collate([rows[i] for i in chunk]).items()}
            scored = completion_logprobs(model, batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
            assert scored.logprob is not None  # it is the default output
            logprobs_BT = scored.logprob.float().cpu()
            for i, logprobs_T in zip(chunk, logprobs_BT, strict=True):
                mask_T = torch.as_tensor(rows[i]["completion_mask"], dtype=torch.bool)
                found[i] = logprobs_T[: len(mask_T)][mask_T].numpy().copy()
            if on_batch is not None:
                on_batch(len(chunk))
    return found
