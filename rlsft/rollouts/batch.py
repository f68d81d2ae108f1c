"""Rollouts as tensors: what travels together from the sampler to the loss and into a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from rlsft.rollouts.sampling import Completion
from rlsft.rollouts.transformers_engine import pad_left


@dataclass(frozen=True, kw_only=True)
class RolloutBatch:
    """S prompts with one completion each; prompts padded left, completions right, so that they meet at column Tp.

    Masks come from lengths, never from token ids: a padding token that is also the end token changes nothing.
    Fields of the second half are None until they are computed.
    """

    prompt_ids: Tensor  # [S, Tp] int64
    prompt_mask: Tensor  # [S, Tp] bool
    completion_ids: Tensor  # [S, Tc] int64
    completion_mask: Tensor  # [S, Tc] bool: the action tokens, a drawn stop token included
    ended: Tensor  # [S] bool: a stop token was drawn
    temperature: float  # of the sampler that drew them: scoring reads it here and nowhere else

    sampler_logprobs: Tensor | None = None  # [S, Tc] float32, what the engine said
    old_logprobs: Tensor | None = None  # [S, Tc] float32, ours, under the weights that drew them
    ref_logprobs: Tensor | None = None  # [S, Tc] float32
    entropy: Tensor | None = None  # [S, Tc] float32
    values: Tensor | None = None  # [S, Tc] float32
    scores: Tensor | None = None  # [S] float32, as they enter the reward (penalised, clipped, whitened)
    raw_scores: Tensor | None = None  # [S] float32, as the reward gave them
    token_rewards: Tensor | None = None  # [S, Tc] float32, the part of raw_scores that stands on its own tokens
    advantages: Tensor | None = None  # [S, Tc] float32
    returns: Tensor | None = None  # [S, Tc] float32
    weights: Tensor | None = None  # [S, Tc] float32, importance weights for draws of another distribution

    def __len__(self) -> int:
        return len(self.completion_ids)

    @property
    def input_ids(self) -> Tensor:
        """`[S, Tp + Tc]` int64"""
        return torch.cat([self.prompt_ids, self.completion_ids], dim=1)

    @property
    def attention_mask(self) -> Tensor:
        """`[S, Tp + Tc]` bool"""
        return torch.cat([self.prompt_mask, self.completion_mask], dim=1)

    @property
    def sequence_mask(self) -> Tensor:
        """`completion_mask` over the whole sequence, `[S, Tp + Tc]` bool"""
        return torch.cat([torch.zeros_like(self.prompt_mask), self.completion_mask], dim=1)

    @property
    def lengths(self) -> Tensor:
        """Action tokens a completion, `[S]` int64"""
        return self.completion_mask.sum(dim=1)

    def need(self, *names: str) -> tuple[Tensor, ...]:
        """The tensors of these fields.

        Raises:
            ValueError: one has not been computed yet.
        """
        for name in names:
            if getattr(self, name) is None:
                raise ValueError(f"RolloutBatch.{name} has not been computed yet")
        return tuple(getattr(self, name) for name in names)

    def with_(self, **tensors: Tensor | None) -> RolloutBatch:
        """A copy with some fields replaced."""
        return replace(self, **tensors)  # type: ignore[arg-type]

    def select(self, rows: Tensor) -> RolloutBatch:
        """The given rows, without the padding columns that none of them needs."""
        width_p = max(1, int(self.prompt_mask[rows].sum(dim=1).max()))
        width_c = max(1, int(self.completion_mask[rows].sum(dim=1).max()))
        picked: dict[str, Tensor] = {}
        for name, value in self.tensors().items():
            value = value[rows]
            if name.startswith("prompt_"):
                value = value[:, -width_p:]
            elif value.ndim == 2:
                value = value[:, :width_c]
            picked[name] = value
        return RolloutBatch(temperature=self.temperature, **picked)  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> RolloutBatch:
        """The same on another device."""
        moved = {name: value.to(device) for name, value in self.tensors().items()}
        return replace(self, **moved)  # type: ignore[arg-type]

    def tensors(self) -> dict[str, Tensor]:
        """The tensor fields that are set: with `temperature`, all there is to save."""
        named = ((item.name, getattr(self, item.name)) for item in fields(self))
        return {name: value for name, value in named if isinstance(value, Tensor)}

    def token_lists(self) -> list[list[int]]:
        """The completions without padding."""
        lengths = self.lengths.tolist()
        return [row[:length] for row, length in zip(self.completion_ids.tolist(), lengths, strict=True)]


def pad_rollouts(
    prompt_ids: Sequence[list[int]],
    completions: Sequence[Completion],
    *,
    pad_token_id: int,
    temperature: float,
    device: torch.device | str = "cpu",
) -> RolloutBatch:
    """One `RolloutBatch` from S prompts and their S completions (repeat a prompt for each of its samples).

    Args:
        prompt_ids: unpadded token ids, one list a sequence.
        completions: in the same order.
        pad_token_id: fills the gaps; may equal the end token.
        temperature: `SamplingParams.scoring_temperature` of the draw.
        device: where the tensors live.

    Raises:
        ValueError: the two lists differ in length, or a prompt or completion is empty.
    """
    if len(prompt_ids) != len(completions) or not completions:
        raise ValueError(
            f"prompt_ids and completions must be equally many and at least one, got {len(prompt_ids)} and "
            f"{len(completions)}"
        )
    for index, (prompt, completion) in enumerate(zip(prompt_ids, completions, strict=True)):
        if not prompt or not completion.token_ids:
            raise ValueError(f"prompt_ids[{index}] and completions[{index}] must each have at least one token")
    prompts, prompt_mask = pad_left(list(prompt_ids), pad_token_id, device)
    tokens = [torch.tensor(completion.token_ids, device=device) for completion in completions]
    lengths = torch.tensor([len(row) for row in tokens], device=device)
    ids = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True, padding_value=pad_token_id)
    logprobs = None
    if all(completion.logprobs is not None for completion in completions):
        rows = [torch.tensor(completion.logprobs, device=device) for completion in completions]
        logprobs = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return RolloutBatch(
        prompt_ids=prompts,
        prompt_mask=prompt_mask.bool(),
        completion_ids=ids,
        completion_mask=torch.arange(ids.shape[1], device=device) < lengths[:, None],
        ended=torch.tensor([completion.finish_reason == "stop" for completion in completions], device=device),
        temperature=temperature,
        sampler_logprobs=logprobs,
    )
