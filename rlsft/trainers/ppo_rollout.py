"""One iteration's experience: draw answers, score them, compare with the reference, turn scores into advantages."""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlsft.data.encoding import encode_prompt
from rlsft.errors import DataError
from rlsft.models import completion_logprobs, evaluation_mode, is_lora, release_freed_memory, without_adapter
from rlsft.objectives import penalize_missing_eos, whiten_scores
from rlsft.rollouts import RolloutBatch, RolloutEngine, SamplingParams, pad_rollouts
from rlsft.trainers.ppo_config import PPOConfig
from rlsft.trainers.ppo_scoring import Answers, Scorer
from rlsft.trainers.ppo_value import ActorCritic
from rlsft_kernels import kl_shaped_gae

logger = logging.getLogger(__name__)


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
        self.gather = gather
        self.rank = rank
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
        """Penalise, clip and whiten the scores; then advantages, returns and importance weights."""
        batch = batch.with_(scores=self._shaped_scores(batch))
        batch = self._with_rloo(batch, kl_coef) if self.args.advantage == "rloo" else self._with_gae(batch, kl_coef)
        weights = importance_weights(batch, self.args.importance_correction, self.args.importance_cap)
        if weights is None:
            return batch
        (advantages,) = batch.need("advantages")
        # a weight >= 0 in the advantage multiplies the clipped policy loss of its token
        return batch.with_(weights=weights, advantages=advantages * weights)

    def _shaped_scores(self, batch: RolloutBatch) -> Tensor:
        (scores,) = batch.need("raw_scores")
        if self.args.missing_eos_penalty is not None:
            scores = penalize_missing_eos(scores, batch.ended, self.args.missing_eos_penalty)
        if self.args.score_clip is not None:
            scores = scores.clamp(-self.args.score_clip, self.args.score_clip)
        if self.args.whiten_scores:
            group = self.args.samples_per_prompt if self.args.whiten_by_prompt else None
            everyone = whiten_scores(self.gather(scores).double(), group_size=group)
            scores = everyone[self.rank * len(scores) : (self.rank + 1) * len(scores)].float()
        return scores

    def _with_gae(self, batch: RolloutBatch, kl_coef: float) -> RolloutBatch:
        scores, old_logprobs, values = batch.need("scores", "old_logprobs", "values")
        if batch.token_rewards is not None:
            scores = placed_scores(batch)
        scale = self._reward_scale(batch, kl_coef) if self.args.whiten_rewards else 1.0
        out = kl_shaped_gae(
            scores * scale,
            old_logprobs,
            batch.ref_logprobs,
            values,
            batch.completion_mask,
            kl_coef=kl_coef * float(scale),
            kl_estimator=self.args.kl_estimator,
            gamma=self.args.gamma,
            lam=self.args.lam,
            whiten=False,
        )
        advantages = self._whitened(out.advantages, batch.completion_mask)
        return batch.with_(advantages=advantages, returns=out.returns)

    def _with_rloo(self, batch: RolloutBatch, kl_coef: float) -> RolloutBatch:
        """`A_i = r_i - mean of the prompt's other r_j`, r the score minus the summed KL (arXiv 2402.14740)."""
        (scores,) = batch.need("scores")
        rewards = scores - kl_coef * token_kl(batch, self.args.kl_estimator).sum(dim=1)
        groups = rewards.view(-1, self.args.samples_per_prompt)
        size = groups.shape[1]
        advantages = ((groups - groups.mean(dim=1, keepdim=True)) * size / (size - 1)).view(-1, 1)
        mask = batch.completion_mask
        per_token = torch.where(mask, advantages.expand(mask.shape), 0.0)
        return batch.with_(advantages=self._whitened(per_token, mask), values=None, returns=None)

    def _whitened(self, advantages: Tensor, mask: Tensor) -> Tensor:
        """Mean 0 and deviation 1 over the action tokens of all ranks, as `kl_shaped_gae` whitens those of one."""
        if not self.args.whiten_advantages:
            return advantages
        mean, variance, count = self._moments(advantages, mask)
        if count < 2:
            return advantages
        return torch.where(mask, (advantages - mean) * (variance + 1e-8).rsqrt(), 0.0).float()

    def _reward_scale(self, batch: RolloutBatch, kl_coef: float) -> float:
        """What brings the token rewards to deviation 1 without moving their mean (TRL's `whiten_rewards`)."""
        rewards = placed_scores(batch) - kl_coef * token_kl(batch, self.args.kl_estimator)
        _, variance, _ = self._moments(rewards, batch.completion_mask)
        return float((variance + 1e-8).rsqrt())

    def _moments(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, int]:
        """Mean, unbiased variance and count over the unmasked of all ranks, in float64."""
        sums = torch.stack([torch.where(mask, x, 0).double().sum(), mask.sum().double()])
        total, count = self.gather(sums[None]).sum(dim=0)
        mean = total / count.clamp(min=1)
        squares = torch.where(mask, x.double() - mean, 0).square().sum()
        variance = self.gather(squares[None]).sum() / (count - 1).clamp(min=1)
        return mean, variance, int(count)


def forward_inputs(batch: RolloutBatch) -> dict[str, Any]:
    """The arguments of `ActorCritic.forward` for a batch."""
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "sequence_mask": batch.sequence_mask,
        "prompt_width": batch.prompt_ids.shape[1],
        "temperature": batch.temperature,
    }


def placed_scores(batch: RolloutBatch) -> Tensor:
    """`[S, Tc]`: each token's own reward, and on the last action token what the score holds beyond their sum.

    Without token rewards that is the whole score; with them it is a penalty or another reward's share. Rows sum to
    the scores either way.
    """
    (scores,) = batch.need("scores")
    placed = torch.zeros(batch.completion_ids.shape, dtype=torch.float64, device=scores.device)
    if batch.token_rewards is not None:
        placed = torch.where(batch.completion_mask, batch.token_rewards.double(), 0.0)
    rows = torch.arange(len(batch), device=scores.device)
    placed[rows, batch.lengths - 1] += scores.double() - placed.sum(dim=1)
    return placed.float()


def token_kl(batch: RolloutBatch, estimator: str) -> Tensor:
    """Estimate `[S, Tc]` of KL(policy || reference) at the drawn tokens, 0 outside the mask (Schulman 2020)."""
    old_logprobs, ref_logprobs = batch.need("old_logprobs", "ref_logprobs")
    log_ratio = (old_logprobs - ref_logprobs).clamp(-20, 20)
    if estimator == "k2":
        log_ratio = log_ratio.square() / 2
    elif estimator == "k3":
        log_ratio = (torch.expm1(-log_ratio) + log_ratio).clamp(max=10)
    return torch.where(batch.completion_mask, log_ratio, 0.0)


def importance_weights(batch: RolloutBatch, correction: str, cap: float) -> Tensor | None:
    """`w = exp(ours - sampler's)` a token for draws of an engine that computes otherwise; None without correction.

    truncate: `min(w, cap)` (truncated importance sampling); mask: w where `w <= cap`, else 0.
    """
    if correction == "none" or batch.sampler_logprobs is None:
        return None
    (old_logprobs,) = batch.need("old_logprobs")
    weights = (old_logprobs - batch.sampler_logprobs).clamp(-20, 20).exp()
    weights = weights.clamp(max=cap) if correction == "truncate" else torch.where(weights <= cap, weights, 0.0)
    return torch.where(batch.completion_mask, weights, 0.0)
