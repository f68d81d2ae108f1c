"""The loss of any `transformers.Trainer` without the `[tokens, vocabulary]` logits: one line before training starts."""

from __future__ import annotations

from rlsft.integrations.transformers.logits import LogitsOnDemand
from rlsft.integrations.transformers.loss import compute_loss_func
from rlsft.integrations.transformers.patch import is_patched, patch_model, unpatch_model

__all__ = ["LogitsOnDemand", "compute_loss_func", "is_patched", "patch_model", "unpatch_model"]
