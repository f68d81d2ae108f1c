"""Answers of a model to held-out prompts, drawn alike before and after, and their KL to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlsft.errors import DataError
from rlsft.evaluation.records import Generation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rlsft.rollouts import Completion, RolloutBatch, RolloutEngine, SamplingParams


@dataclass(frozen=True)
class SampledAnswers:
    """Answers as records, with the token ids they were drawn as (text encoded anew may differ)."""

    generations: tuple[Generation, ...]
    prompt_ids: tuple[list[int], ...]  # one an answer
    completions: tuple[Completion, ...]

    def __len__(self) -> int:
        return len(self.generations)

    def with_values(
        self,
        *,
        reward: ArrayLike | None = None,  # [answers]
        kl: ArrayLike | None = None,  # [answers]
    ) -> SampledAnswers:
        """The same answers with their rewards and KL filled in.

        Raises:
            DataError: a row of values has another length than the answers.
        """
        rows = list(self.generations)
        for name, values in (("reward", reward), ("kl", kl)):
            if values is None:
                continue
            numbers = np.asarray(values, dtype=np.float64)
            if numbers.shape != (len(rows),):
                raise DataError(f"{name} must hold one number an answer, {len(rows)}, got {list(numbers.shape)}")
            rows = [_with(row, name, float(number)) for row, number in zip(rows, numbers, strict=True)]
        return replace(self, generations=tuple(rows))


def sample_answers(
    engine: RolloutEngine,
    tokenizer: Any,
    prompts: Sequence[Any],
    *,
    model: str,
    sampling: SamplingParams,
    references: Sequence[str | Sequence[str]] | None = None,
    groups: Sequence[str | None] | None = None,
    num_samples: int = 1,
    max_prompt_length: int | None = None,
    system_prompt: str | None = None,
    truncate_prompt: bool = False,
) -> SampledAnswers:
    """Draw `num_samples` answers to each prompt; the same `sampling.seed` makes before and after comparable.

    Args:
        engine: draws completions of the model in question.
        tokenizer: of that model.
        prompts: strings or chat lists.
        model: label of the answers in tables.
        sampling: how to draw.
        references: for each prompt, its human answer or answers; None when there are none.
        groups: for each prompt, what it belongs to (its conversation), so that intervals are honest.
        num_samples: answers a prompt.
        max_prompt_length: most tokens of a prompt; None = no limit.
        system_prompt: as in training.
        truncate_prompt: drop the oldest tokens of a prompt that is too long; False = it is an error.

    Raises:
        DataError: `references` or `groups` do not pair up with the prompts, or a prompt cannot be encoded.
    """
    from rlsft.data import encode_prompt, prompt_text

    for name, values in (("references", references), ("groups", groups)):
        if values is not None and len(values) != len(prompts):
            raise DataError(f"{name} must have one entry a prompt, {len(prompts)}, got {len(values)}")
    ids = [
        encode_prompt(
            prompt,
            tokenizer,
            max_length=max_prompt_length,
            system_prompt=system_prompt,
            truncate_prompt=truncate_prompt,
        )
        for prompt in prompts
    ]
    drawn = engine.generate(ids, sampling, num_samples)
    generations, repeated_ids, completions = [], [], []
    for i, answers in enumerate(drawn):
        for sample, completion in enumerate(answers):
            generations.append(
                Generation(
                    prompt=prompt_text(prompts[i]),
                    completion=tokenizer.decode(completion.token_ids, skip_special_tokens=True).strip(),
                    model=model,
                    references=_as_tuple(references[i] if references is not None else ()),
                    sample=sample,
                    group=groups[i] if groups is not None else None,
                    length=len(completion.token_ids),
                    ended=completion.finish_reason == "stop",
                )
            )
            repeated_ids.append(ids[i])
            completions.append(completion)
    return SampledAnswers(tuple(generations), tuple(repeated_ids), tuple(completions))


def sequence_kl(
    policy: nn.Module,
    answers: SampledAnswers,
    *,
    pad_token_id: int,
    reference: nn.Module | None = None,
    batch_size: int = 8,
) -> NDArray[np.float64]:
    """`sum_t log pi(y_t) - log pi_ref(y_t)` of each answer, in nats: [answers].

    Its mean over answers drawn from the policy itself (temperature 1, whole vocabulary) is an unbiased
    estimate of the sequence KL; over tempered or truncated draws it measures the same log-ratio on those
    answers.

    Args:
        policy: the model that drew the answers.
        answers: what it drew.
        pad_token_id: fills the gaps of a batch; may equal the end token.
        reference: the model to compare with; None = `policy` without its LoRA adapter.
        batch_size: answers scored together.
    """
    from rlsft.models import evaluation_mode, without_adapter
    from rlsft.rollouts import pad_rollouts

    device = next(policy.parameters()).device
    found: list[float] = []
    for start in range(0, len(answers), batch_size):
        rows = slice(start, start + batch_size)
        batch = pad_rollouts(
            list(answers.prompt_ids[rows]),
            list(answers.completions[rows]),
            pad_token_id=pad_token_id,
            temperature=1.0,
            device=device,
        )
        with evaluation_mode(policy):
            ours = _logprob_sums(policy, batch)
        as_reference: AbstractContextManager[Any] = without_adapter(policy) if reference is None else nullcontext()
        other = policy if reference is None else reference
        with as_reference, evaluation_mode(other):
            theirs = _logprob_sums(other, batch)
        found += (ours - theirs).tolist()
    return np.asarray(found, dtype=np.float64)


def _with(row: Generation, name: str, value: float) -> Generation:
    changed: dict[str, Any] = {name: value}
    return replace(row, **changed)


def _logprob_sums(model: nn.Module, batch: RolloutBatch) -> Tensor:
    """Log-probability of each completion, [S] float64."""
    import torch

    from rlsft.models import completion_logprobs

    with torch.no_grad():
        output = completion_logprobs(model, batch.input_ids, batch.attention_mask, batch.sequence_mask)
    assert output.logprob is not None  # it was asked for by default
    return output.logprob.double().sum(dim=1).cpu()


def _as_tuple(references: str | Sequence[str]) -> tuple[str, ...]:
    return (references,) if isinstance(references, str) else tuple(references)
