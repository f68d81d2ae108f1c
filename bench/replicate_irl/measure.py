"""What is measured of a policy on the sorting task, on prompts that it never saw."""

from __future__ import annotations

import statistics
from typing import Any

from bench.replicate_irl.sorting import DIGITS, held_out_logprobs, true_reward
from rlsft.evaluation import sample_answers
from rlsft.rollouts import SamplingParams, TransformersEngine

SAMPLES = 4


def measured(policy: Any, tokens: Any, held_out: list[dict[str, str]], *, seed: int) -> dict[str, float]:
    """True reward of drawn and of greedy answers, likelihood of right answers, log-probability gap, variety."""
    drawn = answers(policy, tokens, held_out, temperature=1.0, count=SAMPLES, seed=seed)
    greedy = answers(policy, tokens, held_out, temperature=0.0, count=1, seed=seed)
    chosen = held_out_logprobs(policy, tokens, held_out, "chosen")
    rejected = held_out_logprobs(policy, tokens, held_out, "rejected")
    prompts = [row["prompt"] for row in held_out]
    by_prompt = [drawn[i * SAMPLES : (i + 1) * SAMPLES] for i in range(len(prompts))]
    return {
        "reward": statistics.fmean(
            true_reward(p, a) for p, group in zip(prompts, by_prompt, strict=True) for a in group
        ),
        "exact": statistics.fmean(
            true_reward(p, a) == 1.0 for p, group in zip(prompts, by_prompt, strict=True) for a in group
        ),
        "greedy_reward": statistics.fmean(true_reward(p, a) for p, a in zip(prompts, greedy, strict=True)),
        "greedy_exact": statistics.fmean(true_reward(p, a) == 1.0 for p, a in zip(prompts, greedy, strict=True)),
        "nll": -float(chosen.mean()),
        "gap": float((chosen - rejected).mean()),
        "distinct": statistics.fmean(len(set(group)) / SAMPLES for group in by_prompt),
    }


def answers(
    policy: Any, tokens: Any, held_out: list[dict[str, str]], *, temperature: float, count: int, seed: int
) -> list[str]:
    """`count` answers a prompt, side by side."""
    engine = TransformersEngine(policy, tokens, batch_size=512)
    sampling = SamplingParams(temperature=temperature, max_new_tokens=2 * DIGITS, seed=seed)
    drawn = sample_answers(
        engine, tokens, [row["prompt"] for row in held_out], model="policy", sampling=sampling, num_samples=count
    )
    return [generation.completion for generation in drawn.generations]
