"""Policy and value model as the one module that a trainer wraps and optimises."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from rlsft.models import completion_logprobs, hidden_states
from rlsft.trainers.ppo.value import ValueModel


class PolicyOutputs(NamedTuple):
    """What one forward pass says about the action tokens; zero outside the mask."""

    logprobs: Tensor  # [B, Tc] float32
    entropy: Tensor  # [B, Tc] float32
    values: Tensor | None  # [B, Tc] float32


class ActorCritic(nn.Module):
    """Policy and value model behind one `forward`, so that data parallelism sees every gradient.

    Args:
        policy: a causal LM, plain or with an adapter.
        value: None where advantages need no value model.
        logits_budget: bytes of logits that an update keeps for its backward.
    """

    def __init__(self, policy: nn.Module, value: ValueModel | None, logits_budget: int = 0):
        super().__init__()
        self.logits_budget = logits_budget
        self.policy = policy
        self.value = value

    def forward(
        self,
        input_ids: Tensor,  # [B, Tp + Tc] int64
        attention_mask: Tensor,  # [B, Tp + Tc] bool
        sequence_mask: Tensor,  # [B, Tp + Tc] bool: the action tokens
        prompt_width: int,  # Tp
        temperature: float,
    ) -> PolicyOutputs:
        """Log-probability, entropy and value of every action token; one pass of a shared trunk."""
        hidden = hidden_states(self.policy, input_ids, attention_mask)
        scored = completion_logprobs(
            self.policy,
            input_ids,
            attention_mask,
            sequence_mask,
            temperature=temperature,
            outputs=("logprob", "entropy"),
            hidden=hidden,
            memory_budget=self.logits_budget,
        )
        values = None
        if self.value is not None:
            values = self.value(input_ids, attention_mask, hidden)[:, prompt_width:]
            values = torch.where(sequence_mask[:, prompt_width:], values, 0.0)
        return PolicyOutputs(scored.logprob[:, prompt_width:], scored.entropy[:, prompt_width:], values)  # type: ignore[index]

    @property
    def config(self) -> Any:
        """The policy's config: what transformers asks its models for."""
        return self.policy.config

    @property
    def generation_config(self) -> Any:
        """The policy's generation config."""
        return getattr(self.policy, "generation_config", None)

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Recompute activations of the policy and of a separate value model in the backward pass."""
        trunks: list[Any] = [self.policy, self.value.trunk if self.value is not None else None]
        for module in (trunk for trunk in trunks if trunk is not None):
            if hasattr(module, "activation_checkpointing_enable"):
                module.activation_checkpointing_enable(**kwargs)
            else:  # transformers before 5.23
                module.gradient_checkpointing_enable(kwargs.get("activation_checkpointing_kwargs"))

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """The older name of `activation_checkpointing_enable`."""
        self.activation_checkpointing_enable(activation_checkpointing_kwargs=gradient_checkpointing_kwargs)
