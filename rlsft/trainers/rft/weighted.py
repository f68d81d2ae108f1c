"""Weighted fine-tuning as a policy step: demonstrations and own answers, each with weight exp(reward / beta)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlsft.data import encode_demonstration, encode_prompt
from rlsft.models import completion_logprobs, evaluation_mode
from rlsft.objectives import exponential_weights
from rlsft.rollouts import Completion, pad_rollouts
from rlsft.trainers.rft.scores import prompt_key


def weighted_rows(
    samples: Sequence[Mapping[str, Any]],
    scores: Sequence[Mapping[str, Any]],
    log_ratios: Sequence[Sequence[float]] | None,
    tokenizer: Any,
    *,
    args: Any,
    max_prompt_length: int,
) -> list[dict[str, Any]]:
    """Encoded rows for `SFTTrainer` with their weights.

    The log-weight of an answer is `reward / beta + log pi_ref - log pi_drew`; the second part is 0 where the answers
    come from the reference itself. That of a demonstration is `reward / beta`. Own answers keep the very tokens that
    were drawn: one that was cut off gets no end token that it did not have.

    Args:
        samples: rows of samples.jsonl with their token_ids.
        scores: rows of scores.jsonl, in the same order.
        log_ratios: `log pi_ref - log pi_drew` of every answer, or None for zeros.
        tokenizer: of the policy.
        args: `RFTConfig`.
        max_prompt_length: most tokens of a prompt, as when the answers were drawn.
    """
    options = {"system_prompt": args.system_prompt, "truncate_prompt": args.truncate_prompt}
    rows: list[dict[str, Any]] = []
    log_weights: list[float] = []
    groups: list[str] = []
    for place, (sample, score) in enumerate(zip(samples, scores, strict=True)):
        if args.weight_demonstrations:
            demonstration = {"prompt": sample["prompt"], "completion": sample["demonstration"]}
            rows.append(encode_demonstration(demonstration, tokenizer, max_length=args.max_length or 1024, **options))
            log_weights.append(score["demonstration_reward"] / args.kl_coef)
        prompt = encode_prompt(sample["prompt"], tokenizer, max_length=max_prompt_length, **options)
        for answer, token_ids in enumerate(sample["token_ids"]):
            rows.append(
                {"input_ids": prompt + token_ids, "completion_mask": [False] * len(prompt) + [True] * len(token_ids)}
            )
            reward = score["response_rewards"][answer]
            if args.missing_eos_penalty is not None and sample["finish_reasons"][answer] == "length":
                reward -= args.missing_eos_penalty
            ratio = 0.0 if log_ratios is None else log_ratios[place][answer]
            log_weights.append(reward / args.kl_coef + ratio)
        groups += [prompt_key(sample["prompt"])] * (len(rows) - len(groups))
    by_prompt = groups if args.weight_normalization == "prompt" else None
    weights = exponential_weights(log_weights, groups=by_prompt, cap=args.weight_cap)
    return [row | {"weight": float(weight)} for row, weight in zip(rows, weights, strict=True)]


def effective_share(weights: Sequence[float]) -> float:
    """`(sum w)^2 / (n sum w^2)`: which share of the rows the weights leave in effect; 1 = all alike."""
    w = np.asarray(weights, dtype=np.float64)
    return float(w.sum() ** 2 / (len(w) * np.square(w).sum())) if len(w) and w.any() else 0.0


def log_ratios_of(
    samples: Sequence[Mapping[str, Any]],
    policy: nn.Module,
    reference: nn.Module,
    tokenizer: Any,
    *,
    args: Any,
    max_prompt_length: int,
) -> list[list[float]]:
    """`log pi_ref(z|x) - log pi(z|x)` of every answer of every row, in nats."""
    sums = [
        _logprob_sums(samples, model, tokenizer, args=args, max_prompt_length=max_prompt_length)
        for model in (reference, policy)
    ]
    flat = iter((sums[0] - sums[1]).tolist())
    return [[next(flat) for _ in row["token_ids"]] for row in samples]


@torch.no_grad()
def _logprob_sums(
    samples: Sequence[Mapping[str, Any]], model: nn.Module, tokenizer: Any, *, args: Any, max_prompt_length: int
) -> NDArray[np.float64]:
    prompts: list[list[int]] = []
    answers: list[Completion] = []
    for row in samples:
        ids = encode_prompt(
            row["prompt"],
            tokenizer,
            max_length=max_prompt_length,
            system_prompt=args.system_prompt,
            truncate_prompt=args.truncate_prompt,
        )
        for token_ids, reason in zip(row["token_ids"], row["finish_reasons"], strict=True):
            prompts.append(ids)
            answers.append(Completion(token_ids, reason))
    size = args.per_device_eval_batch_size
    device = next(model.parameters()).device
    found: list[float] = []
    with evaluation_mode(model):
        for start in range(0, len(answers), size):
            part = slice(start, start + size)
            batch = pad_rollouts(
                prompts[part],
                answers[part],
                pad_token_id=tokenizer.pad_token_id,
                temperature=args.sample_temperature or 1.0,
                device=device,
            )
            scored = completion_logprobs(
                model, batch.input_ids, batch.attention_mask, batch.sequence_mask, temperature=batch.temperature
            )
            assert scored.logprob is not None
            found += scored.logprob.double().sum(dim=1).cpu().tolist()
    return np.asarray(found, dtype=np.float64)
