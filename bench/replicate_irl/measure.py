"""What is measured of a policy on prompts that it never saw: on the sorting task, and on dialogues."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import cache
from typing import Any

from bench.replicate_irl.likelihood import likelihoods
from bench.replicate_irl.sorting import true_reward
from bench.replicate_irl.task import Measured, Task

SAMPLES = 4
DIVERSE_SHARE = 4  # one prompt in four is answered several times


def of_sorting(task: Task, policy: Any) -> Measured:
    """True reward of drawn and of greedy answers, likelihood of right answers, log-probability gap, variety."""
    prompts = [row["prompt"] for row in task.held_out]
    drawn = answers(task, policy, prompts, count=SAMPLES)
    greedy = answers(task, policy, prompts, temperature=0.0)
    rewards = [true_reward(prompts[i // SAMPLES], answer) for i, answer in enumerate(drawn)]
    greedy_rewards = [true_reward(prompt, answer) for prompt, answer in zip(prompts, greedy, strict=True)]
    groups = [drawn[i : i + SAMPLES] for i in range(0, len(drawn), SAMPLES)]
    return Measured({
        "reward": statistics.fmean(rewards),
        "exact": statistics.fmean(reward == 1.0 for reward in rewards),
        "greedy_reward": statistics.fmean(greedy_rewards),
        "greedy_exact": statistics.fmean(reward == 1.0 for reward in greedy_rewards),
        "distinct": statistics.fmean(len(set(group)) / SAMPLES for group in groups),
        **likelihoods(policy, task),
    })  # fmt: skip


def of_dialogues(task: Task, policy: Any) -> Measured:
    """Likelihood of people's replies, overlap with them in per cent, variety; the answers go to the judge later."""
    prompts = [row["prompt"] for row in task.held_out]
    drawn = answers(task, policy, prompts, temperature=0.8, top_p=0.95)
    several = answers(
        task, policy, prompts[: len(prompts) // DIVERSE_SHARE], count=SAMPLES, temperature=0.8, top_p=0.95
    )
    numbers = likelihoods(policy, task) | overlap(drawn, [row["references"] for row in task.held_out])
    numbers |= variety(several)
    texts = [{"prompt": prompt, "answer": answer} for prompt, answer in zip(prompts, drawn, strict=True)]
    return Measured(numbers, texts)


def overlap(drawn: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU and METEOR against all replies that people gave, in per cent; length in words."""
    from rlsft.metrics import length_in_words, sentence_bleu

    meteor, pairs = the_meteor(), list(zip(references, drawn, strict=True))
    return {
        "bleu": 100 * statistics.fmean(sentence_bleu(reference, text) for reference, text in pairs),
        "meteor": 100 * statistics.fmean(meteor(reference, text) for reference, text in pairs),
        "words": statistics.fmean(length_in_words(text) for text in drawn),
    }


def variety(several: Sequence[str]) -> dict[str, float]:
    """distinct-2 over all answers, repetition of word pairs within one, in per cent."""
    from rlsft.metrics import distinct_n, repetition

    return {
        "distinct2": distinct_n(several, 2),
        "repetition": 100 * statistics.fmean(repetition(text, n=2) for text in several),
    }


@cache
def the_meteor() -> Any:
    """With WordNet where it is installed."""
    from rlsft.data import assets
    from rlsft.metrics import Meteor

    return Meteor(wordnet=assets.wordnet() or False)


def answers(
    task: Task, policy: Any, prompts: Sequence[str], *, count: int = 1, temperature: float = 1.0, top_p: float = 1.0
) -> list[str]:
    """`count` answers a prompt, side by side."""
    from rlsft.evaluation import sample_answers
    from rlsft.rollouts import SamplingParams, TransformersEngine

    sampling = SamplingParams(
        temperature=temperature, top_p=top_p, max_new_tokens=task.completion_tokens, seed=task.seed
    )
    engine = TransformersEngine(policy, task.tokenizer, batch_size=256)
    drawn = sample_answers(
        engine, task.tokenizer, list(prompts), model="policy", sampling=sampling, num_samples=count,
        max_prompt_length=task.max_length - task.completion_tokens, truncate_prompt=True,
    )  # fmt: skip
    return [generation.completion for generation in drawn.generations]
