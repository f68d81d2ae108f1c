"""compute_loss_func: the next-token loss of `transformers.Trainer` from logits that are already there, in one pass."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from rlsft.errors import DataError
from rlsft.integrations.transformers.logits import LogitsOnDemand
from rlsft_kernels import logprob_from_logits


def compute_loss_func(
    outputs: Any,
    labels: Tensor | None,  # [B, T] int64
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    """Next-token cross-entropy from logits: `-sum_t log softmax(logits_t)[labels_{t+1}] / num_items_in_batch`.

    For `Trainer(compute_loss_func=compute_loss_func)`: the numbers of its own loss without its copies of the logits
    (float32, shifted, log-softmax); one gradient of their size remains. `patch_model` needs no logits at all.

    Args:
        outputs: what the model returned: a dict or `ModelOutput` with `logits [B, T, V]`, or a tuple that starts so.
        labels: token ids, not shifted, -100 = does not count.
        num_items_in_batch: labelled tokens of the whole optimizer step; None = those of this batch (at least 1).

    Returns:
        0-d loss, float32 (float64 for float64 logits).

    Raises:
        DataError: there are no labels.
    """
    if labels is None:
        raise DataError("compute_loss_func needs labels in the batch, got None; add a `labels` column or a collator")
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
    logits = logits.tensor() if isinstance(logits, LogitsOnDemand) else logits
    targets = nn.functional.pad(labels, (0, 1), value=-100)[..., 1:].to(logits.device)
    logprobs = logprob_from_logits(logits, targets).logprob
    assert logprobs is not None
    total = -logprobs.sum()
    if num_items_in_batch is None:
        return total / (targets != -100).sum().clamp(min=1)
    return total / (
        num_items_in_batch.to(total.device) if isinstance(num_items_in_batch, Tensor) else num_items_in_batch
    )
