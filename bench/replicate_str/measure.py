"""What is measured of a policy on prompts that it never saw. Text is scored as drawn; consistency of greedy answers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import cache
from typing import Any

from bench.replicate.judge import wins
from bench.replicate_str.methods import Outcome
from bench.replicate_str.paraphrase import contradiction_rate, self_consistency
from bench.replicate_str.task import Rows, Task

DIVERSITY_PROMPTS, DIVERSITY_SAMPLES = 64, 4
CONSISTENCY_PROMPTS = 128
PREFERENCE_PROMPTS = 256


def measured(task: Task, outcome: Outcome, baseline: list[str] | None) -> tuple[dict[str, float], list[str]]:
    """Every number of a row that the task has, and the drawn answers, one a prompt.

    Args:
        task: with its held-out prompts.
        outcome: the policy and its reward model, if it has one.
        baseline: full fine-tuning's answers to the same prompts, which the reward model has to tell from a person's;
            None for that method itself.
    """
    prompts = [row["prompt"] for row in task.held_out]
    references = [row["references"] for row in task.held_out]
    drawn = answers(task, outcome.policy, prompts)
    found = text_measures(drawn, references)
    several = answers(task, outcome.policy, prompts[:DIVERSITY_PROMPTS], count=DIVERSITY_SAMPLES)
    found |= diversity(several, DIVERSITY_SAMPLES)
    found |= consistency(task, outcome.policy, prompts[:CONSISTENCY_PROMPTS])
    if task.true_reward is not None:
        found |= true_rewards(task, outcome.policy, prompts, drawn)
    if outcome.reward is not None:
        found["pair_accuracy"] = outcome.reward.accuracy
        found["ranked_share"] = outcome.reward.ranked_share
        found |= human_accuracy(task, outcome.reward.model, baseline or drawn)
    return found | outcome.notes, drawn


def answers(task: Task, policy: Any, prompts: Sequence[str], *, count: int = 1, greedy: bool = False) -> list[str]:
    """`count` answers a prompt, side by side; drawn as STR's own evaluation draws them, or greedy."""
    from rlsft.evaluation import sample_answers
    from rlsft.rollouts import SamplingParams, TransformersEngine

    sampling = SamplingParams(
        temperature=0.0 if greedy else 0.8, top_p=1.0 if greedy else 0.95, max_new_tokens=task.completion_tokens,
        seed=task.seed,
    )  # fmt: skip
    drawn = sample_answers(
        TransformersEngine(policy, task.tokenizer, batch_size=512), task.tokenizer, list(prompts), model="policy",
        sampling=sampling, num_samples=count, max_prompt_length=task.max_length - task.completion_tokens,
        truncate_prompt=True,
    )  # fmt: skip
    return [generation.completion for generation in drawn.generations]


def text_measures(drawn: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Overlap with the references in per cent, repetition, length in words."""
    from rlsft.metrics import exact_match, length_in_words, repetition, sentence_bleu, sentence_gleu

    pairs = list(zip(references, drawn, strict=True))
    meteor = the_meteor()
    return {
        "bleu": 100 * statistics.fmean(sentence_bleu(reference, text) for reference, text in pairs),
        "gleu": 100 * statistics.fmean(sentence_gleu(reference, text) for reference, text in pairs),
        "meteor": 100 * statistics.fmean(meteor(reference, text) for reference, text in pairs),
        "em": 100 * statistics.fmean(exact_match(reference, text) for reference, text in pairs),
        "repetition": 100 * statistics.fmean(repetition(text, n=2) for text in drawn),
        "words": statistics.fmean(length_in_words(text) for text in drawn),
    }


@cache
def the_meteor() -> Any:
    """With WordNet where it is installed."""
    from rlsft.data import assets
    from rlsft.metrics import Meteor

    return Meteor(wordnet=assets.wordnet() or False)


def diversity(texts: Sequence[str], count: int) -> dict[str, float]:
    """distinct-2 over all answers, self-BLEU among the answers to one prompt."""
    from rlsft.metrics import distinct_n, self_bleu

    groups = [texts[i : i + count] for i in range(0, len(texts), count)]
    return {"distinct2": distinct_n(texts, 2), "self_bleu": statistics.fmean(self_bleu(group) for group in groups)}


def consistency(task: Task, policy: Any, prompts: Sequence[str]) -> dict[str, float]:
    """Greedy answers to paraphrases against the greedy answer to the prompt itself."""
    others = [task.paraphrases(prompt) for prompt in prompts]
    first = answers(task, policy, prompts, greedy=True)
    flat = iter(answers(task, policy, [text for group in others for text in group], greedy=True))
    grouped = [[next(flat) for _ in group] for group in others]
    if not task.is_language:
        same = [a == b for a, group in zip(first, grouped, strict=True) for b in group]
        return {"consistency": statistics.fmean(same)}
    return {
        "consistency": self_consistency(first, grouped),
        "contradiction": 100 * contradiction_rate(first, grouped),
    }


def true_rewards(task: Task, policy: Any, prompts: Sequence[str], drawn: Sequence[str]) -> dict[str, float]:
    """The task's own reward of drawn and of greedy answers."""
    assert task.true_reward is not None
    greedy = answers(task, policy, prompts, greedy=True)
    return {
        "true_reward": statistics.fmean(map(task.true_reward, prompts, drawn)),
        "greedy_reward": statistics.fmean(map(task.true_reward, prompts, greedy)),
    }


def human_accuracy(task: Task, reward_model: Any, drawn: Sequence[str]) -> dict[str, float]:
    """How often the reward model puts a right (a person's) answer above a drawn one of the fine-tuned policy.

    Prompts whose drawn answer is a reference, or empty, are left out.
    """
    from rlsft.rewards import score_texts

    rows: Rows = [
        {"prompt": row["prompt"], "right": row["references"][0], "drawn": text}
        for row, text in zip(task.held_out, drawn, strict=True)
        if text.strip() and text.strip() not in row["references"]
    ][:PREFERENCE_PROMPTS]
    if not rows:
        return {}
    scores = {
        side: score_texts(
            reward_model, task.tokenizer, [row["prompt"] for row in rows], [row[side] for row in rows],
            max_length=task.max_length, truncate_prompt=True, batch_size=128,
        )
        for side in ("right", "drawn")
    }  # fmt: skip
    return {"human_accuracy": wins(scores["right"], scores["drawn"])}
