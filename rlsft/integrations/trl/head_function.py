"""The head of TRL's trainers computed by our op: what stands in for TRL's `ChunkedLogProbFunction`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from rlsft_kernels import LogprobOutput, linear_logprob

# TRL's name of a statistic -> ours, in the order in which TRL unpacks them
FIELDS = {
    "log_probs": "logprob",
    "entropy": "entropy",
    "log_sum_sq_probs": "log_sum_sq_probs",
    "mean_logits": "mean_logit",
    "is_top1": "is_top1",
}
Slots = tuple[Tensor | None, ...]


class FusedHead:
    """What `trl.trainer.utils` calls by `apply`, with the arguments and results of TRL's autograd function.

    Args:
        memory_budget: bytes of logits that a forward may keep for its backward, see `linear_logprob`.
    """

    def __init__(self, memory_budget: int = 0):
        self.memory_budget = memory_budget

    def apply(
        self,
        hidden: Tensor,  # [N, H]
        weight: Tensor,  # [V, H]
        bias: Tensor | None,  # [V]
        targets: Tensor,  # [N] int64, every one of them in the vocabulary
        temperature: float,
        chunk_size: int,
        final_logit_softcapping: float | None = None,
        logit_scale: float = 1.0,
        outputs: Sequence[str] = tuple(FIELDS),
    ) -> Slots:
        """Statistics of `softmax(softcap(logit_scale * (hidden @ weight.T + bias)) / temperature)`.

        `chunk_size` is TRL's hint for its own tiles; ours are limited by bytes.

        Returns:
            Log-probability, entropy, log of the sum of squared probabilities, mean logit and whether the target is
            the first largest, [N] each; None where not asked for, but for the first.
        """
        settings: dict[str, Any] = {
            "temperature": temperature,
            "softcap": final_logit_softcapping,
            "logit_scale": logit_scale,
            "outputs": tuple(FIELDS[name] for name in dict.fromkeys(("log_probs", *outputs))),
            "memory_budget": self.memory_budget,
        }
        if is_partitioned(weight):
            return _GatheredHead.apply(hidden, weight, bias, targets, settings)
        return _slots(_scores(hidden, weight, bias, targets, settings))


def is_partitioned(weight: Tensor) -> bool:
    """Whether DeepSpeed's ZeRO-3 takes this weight away again after the forward."""
    return hasattr(weight, "ds_id")


def _scores(hidden: Any, weight: Any, bias: Tensor | None, targets: Tensor, settings: dict[str, Any]) -> LogprobOutput:
    if not torch.is_autocast_enabled(hidden.device.type):  # TRL's products run in the dtype of the hidden states
        weight = weight.to(hidden.dtype)
    bias = None if bias is None else bias.to(weight.dtype)
    return linear_logprob(hidden, weight, targets, bias=bias, **settings)


def _slots(scored: LogprobOutput) -> Slots:
    return tuple(getattr(scored, name) for name in FIELDS.values())


def _gathered(weight: Tensor, bias: Tensor | None) -> AbstractContextManager[Any]:
    from trl.trainer import utils  # looked up at each call: TRL owns the gather

    return utils.maybe_gather_lm_head_ctx(weight, bias)


class _GatheredHead(torch.autograd.Function):
    """The same under ZeRO-3, where the weight is whole only inside a gather: the backward gathers it once more.

    What autograd would save of the forward is an empty shard by then, so the backward starts from the parameter and
    computes the head again, one product more than with a weight that stays.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, settings: dict[str, Any]
    ) -> Slots:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.settings = settings
        ctx.autocast = _autocast_state(hidden)
        found = _slots(_scores(hidden, weight, bias, targets, {**settings, "memory_budget": 0}))
        ctx.mark_non_differentiable(*(x for x in found[2:] if x is not None))
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        names = [name for name, grad in zip(("logprob", "entropy"), grads, strict=False) if grad is not None]
        if not names:
            return (None,) * 5
        with _gathered(weight, bias), torch.enable_grad(), torch.autocast(**ctx.autocast):
            leaves = [
                None if x is None else x.detach().requires_grad_(need)
                for x, need in zip((hidden, weight, bias), ctx.needs_input_grad[:3], strict=True)
            ]
            scored = _scores(leaves[0], leaves[1], leaves[2], targets, {**ctx.settings, "outputs": names})
            values = [x for x in (scored.logprob, scored.entropy) if x is not None]
            upstream = [grad for grad in grads[:2] if grad is not None]
            wanted = [x for x in leaves if x is not None and x.requires_grad]
            found = iter(torch.autograd.grad(values, wanted, upstream))
        return *(next(found) if x is not None and x.requires_grad else None for x in leaves), None, None


def _autocast_state(x: Tensor) -> dict[str, Any]:
    device_type = x.device.type
    return {
        "device_type": device_type,
        "dtype": torch.get_autocast_dtype(device_type),
        "enabled": torch.is_autocast_enabled(device_type),
    }
