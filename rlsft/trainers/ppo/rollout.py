"""One iteration's experience: draw answers, score them, compare them with the reference."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlsft.data.encoding import encode_prompt
from rlsft.errors import DataError
from rlsft.models import evaluation_mode, release_freed_memory
from rlsft.rollouts import RolloutBatch, RolloutEngine, SamplingParams, pad_rollouts
from rlsft.trainers.ppo.actor_critic import ActorCritic
from rlsft.trainers.ppo.config import PPOConfig
from rlsft.trainers.ppo.reference import Reference
from rlsft.trainers.ppo.scoring import Answers, Scorer
from rlsft.trainers.ppo.shaping import RewardShaper


@dataclass(frozen=True)
class Rollouts:
    """Answers with their texts, and what each reward said."""

    batch: RolloutBatch
    answers: Answers
    by_reward: dict[str, NDArray[np.float64]]


class ExperienceMaker:
    """Draws and judges answers with the current policy; the loss only ever reads what this class wrote.

    Args:
        args: settings.
        actor_critic: policy and value model.
        reference: for the KL.
        engine: draws the answers.
        scorer: the reward.
        tokenizer: the policy's.
        context: positions that the model has, or None; a prompt and its answer must fit.
        autocast: a context manager for forward passes under mixed precision.
        gather: concatenates a tensor over all ranks along its first dimension.
        rank: which part of what `gather` gives is ours.
    """

    def __init__(
        self,
        args: PPOConfig,
        actor_critic: ActorCritic,
        reference: Reference,
        engine: RolloutEngine,
        scorer: Scorer,
        tokenizer: Any,
        *,
        max_length: int,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        gather: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        rank: int = 0,
    ) -> None:
        self.args = args
        self.actor_critic = actor_critic
        self.reference = reference
        self.engine = engine
        self.scorer = scorer
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.autocast = autocast
        self.shaper = RewardShaper(args, gather, rank)
        self.seconds = {"generation": 0.0, "scoring": 0.0}  # of this process, since it was built

    def sampling(self, seed: int, prompt_offset: int) -> SamplingParams:
        """How answers are drawn; the record of it travels with them."""
        return SamplingParams(
            temperature=self.args.temperature,
            top_p=self.args.top_p,
            top_k=self.args.top_k,
            max_new_tokens=self.args.max_completion_length,
            seed=seed,
            prompt_offset=prompt_offset,
        )

    @torch.no_grad()
    def draw(self, rows: Sequence[dict[str, Any]], sampling: SamplingParams, num_samples: int) -> Rollouts:
        """Answers to `rows` (`num_samples` in a row for each) with raw scores; no log-probabilities yet."""
        prompt_ids = [self._encode(number, row) for number, row in enumerate(rows)]
        with self._timed("generation"), self.autocast():
            release_freed_memory()  # of the last update
            groups = self.engine.generate(prompt_ids, sampling, num_samples)
            release_freed_memory()
        flat = [completion for group in groups for completion in group]
        device = next(self.actor_critic.parameters()).device
        batch = pad_rollouts(
            [ids for ids in prompt_ids for _ in range(num_samples)],
            flat,
            pad_token_id=self.tokenizer.pad_token_id,
            temperature=sampling.scoring_temperature,
            device=device,
        )
        answers = self._answers(rows, prompt_ids, [completion.token_ids for completion in flat], num_samples)
        with self._timed("scoring"):
            scored = self.scorer.judge(answers)
        batch = batch.with_(raw_scores=torch.tensor(scored.total, dtype=torch.float32, device=device))
        if scored.token_rewards is not None:
            padded = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(row) for row in scored.token_rewards], True)
            batch = batch.with_(token_rewards=padded.to(device))
        return Rollouts(batch, answers, scored.by_reward)

    @contextlib.contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        """Add the wall seconds of the block to `seconds[what]`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[what] += time.perf_counter() - begun

    def _encode(self, number: int, row: dict[str, Any]) -> list[int]:
        limit = self.max_length - self.args.max_completion_length
        try:
            return encode_prompt(
                row["prompt"],
                self.tokenizer,
                max_length=limit,
                system_prompt=self.args.system_prompt,
                truncate_prompt=self.args.truncate_prompt,
            )
        except DataError as error:
            raise DataError(f"prompt {number} of the batch: {error}") from None

    def _answers(
        self,
        rows: Sequence[dict[str, Any]],
        prompt_ids: list[list[int]],
        token_ids: list[list[int]],
        num_samples: int,
    ) -> Answers:
        repeated = [row for row in rows for _ in range(num_samples)]
        return Answers(
            prompts=[row["prompt"] for row in repeated],
            completions=[self.tokenizer.decode(ids, skip_special_tokens=True) for ids in token_ids],
            completion_ids=token_ids,
            columns={name: [row[name] for row in repeated] for name in rows[0] if name != "prompt"},
            prompt_ids=[ids for ids in prompt_ids for _ in range(num_samples)],
        )

    @torch.no_grad()
    def score_policy(self, batch: RolloutBatch, chunks: Sequence[Tensor]) -> RolloutBatch:
        """Fill in log-probabilities of policy and reference, entropy and values, chunk by chunk.

        Old log-probabilities are ours, not the sampler's: the loss compares like with like.
        """
        shape, device = batch.completion_ids.shape, batch.completion_ids.device
        names = ("old_logprobs", "ref_logprobs", "entropy", "values")
        filled = {name: torch.zeros(shape, dtype=torch.float32, device=device) for name in names}
        with self._timed("scoring"), evaluation_mode(self.actor_critic), self.autocast():
            for rows in chunks:
                part = batch.select(rows)
                width = part.completion_ids.shape[1]
                out = self.actor_critic(**forward_inputs(part))
                found = (out.logprobs, self.reference.logprobs(part), out.entropy, out.values)
                for name, value in zip(names, found, strict=True):
                    if value is not None:
                        filled[name][rows, :width] = value.float()
        return batch.with_(**filled)

    def shape_rewards(self, batch: RolloutBatch, kl_coef: float) -> RolloutBatch:
        """See `RewardShaper.shape`."""
        return self.shaper.shape(batch, kl_coef)


def forward_inputs(batch: RolloutBatch) -> dict[str, Any]:
    """The arguments of `ActorCritic.forward` for a batch."""
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "sequence_mask": batch.sequence_mask,
        "prompt_width": batch.prompt_ids.shape[1],
        "temperature": batch.temperature,
    }
