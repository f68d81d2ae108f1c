"""The frozen policy that the KL is measured to."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator

from torch import Tensor, nn

from rlsft.models import completion_logprobs, is_lora, without_adapter
from rlsft.rollouts import RolloutBatch


class Reference:
    """The frozen policy that the KL is measured to.

    Args:
        policy: the policy as training begins.
        ref_model: another reference; None takes the policy itself: its weights below a fresh adapter, or a copy.
    """

    def __init__(self, policy: nn.Module, ref_model: nn.Module | None = None):
        self.policy = policy
        self.equals_policy = ref_model is None  # at the start, so that the first KL must be 0
        if ref_model is None and not is_fresh_adapter(policy):
            ref_model = copy.deepcopy(policy)
        self.model = None if ref_model is None else ref_model.eval().requires_grad_(False)

    @contextlib.contextmanager
    def _active(self) -> Iterator[nn.Module]:
        if self.model is not None:
            yield self.model
        else:
            with without_adapter(self.policy):
                yield self.policy

    def logprobs(self, batch: RolloutBatch) -> Tensor:
        """Log-probabilities `[S, Tc]` of the action tokens under the reference, at the sampler's temperature."""
        with self._active() as model:
            scored = completion_logprobs(
                model, batch.input_ids, batch.attention_mask, batch.sequence_mask, temperature=batch.temperature
            )
        assert scored.logprob is not None
        return scored.logprob[:, batch.prompt_ids.shape[1] :]


def is_fresh_adapter(model: nn.Module) -> bool:
    """Whether `model` has a LoRA adapter that changes nothing yet, so that switching it off gives the model back."""
    if not is_lora(model):
        return False
    up = [p for name, p in model.named_parameters() if "lora_B" in name or "lora_embedding_B" in name]
    return bool(up) and not any(bool(p.any()) for p in up)
