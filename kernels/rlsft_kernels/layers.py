"""Layers without state of their own, as the Hugging Face kernels hub wants them: a loss for trainers to swap in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlsft_kernels.linear_cross_entropy.op import linear_cross_entropy

__all__ = ["ForCausalLMLoss"]


class ForCausalLMLoss(nn.Module):
    """Next-token cross-entropy of a causal LM from hidden states and head weight, without the logits."""

    def forward(
        self,
        hidden_states: Tensor,  # [B, T, H]
        lm_head_weight: Tensor,  # [V, H]
        labels: Tensor | None,  # [B, T] int64, not shifted
        hidden_size: int | None = None,
        num_items_in_batch: Tensor | int | None = None,
        ignore_index: int = -100,
        shift_labels: Tensor | None = None,  # [B, T]
        final_logit_softcapping: float | None = None,
        **_unused: Any,
    ) -> Tensor:
        """`-sum_t log softmax(softcap(h_t W^T))[labels_{t+1}]` over `num_items_in_batch`, or over the labelled tokens.

        Args:
            hidden_states: last hidden states.
            lm_head_weight: weight of the output embedding.
            labels: token ids; `ignore_index` = does not count.
            hidden_size: H, for callers that pass it; not needed.
            num_items_in_batch: labelled tokens of the whole optimizer step.
            ignore_index: label of tokens to leave out.
            shift_labels: labels that are already shifted, instead of `labels`.
            final_logit_softcapping: cap of the logits.

        Returns:
            0-d loss, float32 (float64 for float64 input).

        Raises:
            ValueError: neither `labels` nor `shift_labels` is given.
        """
        if shift_labels is None:
            if labels is None:
                raise ValueError("labels or shift_labels is needed, got None for both")
            shift_labels = nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
        count = num_items_in_batch
        if isinstance(count, torch.Tensor):
            count = count.to(hidden_states.device).reshape(())
        loss, _ = linear_cross_entropy(
            hidden_states, lm_head_weight, shift_labels, ignore_index=ignore_index, softcap=final_logit_softcapping,
            normalizer=count,
        )  # fmt: skip
        return loss
