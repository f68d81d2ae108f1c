"""Sampling held-out answers through an engine, and the KL of what was drawn."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from rlsft.errors import DataError
from rlsft.evaluation import sample_answers, sequence_kl
from rlsft.rollouts import Completion, SamplingParams, TransformersEngine
from tests.support.models import tiny_model, tiny_tokenizer

PROMPTS = ["Hello! How are you?", "What is your favourite food?", "Did it rain?"]


class FixedEngine:
    """Answers every prompt with fixed texts and remembers what it was asked."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.asked: list[tuple[list[list[int]], SamplingParams, int]] = []

    def generate(self, prompt_ids: list[list[int]], sampling: SamplingParams, num_samples: int = 1) -> list:
        self.asked.append((prompt_ids, sampling, num_samples))
        tokenizer = tiny_tokenizer()
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in self.texts[:num_samples]]
        return [
            [Completion([*i, 2] if j == 0 else i, "stop" if j == 0 else "length", None) for j, i in enumerate(ids)]
            for _ in prompt_ids
        ]


def test_answers_become_records() -> None:
    engine = FixedEngine([" I am fine.", "We went to"])
    sampling = SamplingParams(max_new_tokens=8, seed=5)
    drawn = sample_answers(
        engine,
        tiny_tokenizer(),
        PROMPTS,
        model="SFT",
        sampling=sampling,
        references=["good", ["pizza", "rice"], []],
        groups=["a", "b", None],
        num_samples=2,
    )
    assert len(drawn) == 6
    first, second = drawn.generations[:2]
    assert (first.completion, first.ended, first.sample) == ("I am fine.", True, 0)
    assert (second.completion, second.ended, second.sample) == ("We went to", False, 1)
    assert first.length == len(drawn.completions[0].token_ids)
    assert [g.references for g in drawn.generations[::2]] == [("good",), ("pizza", "rice"), ()]
    assert [g.group for g in drawn.generations[::2]] == ["a", "b", None]
    assert [g.prompt for g in drawn.generations[::2]] == PROMPTS
    assert engine.asked[0][1] is sampling
    assert list(drawn.prompt_ids[::2]) == engine.asked[0][0]


def test_values_are_filled_in_by_position() -> None:
    drawn = sample_answers(FixedEngine(["a"]), tiny_tokenizer(), PROMPTS, model="SFT", sampling=SamplingParams())
    filled = drawn.with_values(reward=[1.0, 2.0, 3.0]).with_values(kl=np.array([0.1, 0.2, 0.3]))
    assert [(g.reward, g.kl) for g in filled.generations] == [(1.0, 0.1), (2.0, 0.2), (3.0, 0.3)]
    assert drawn.generations[0].reward is None
    with pytest.raises(DataError, match=r"reward must hold one number an answer, 3, got \[2\]"):
        drawn.with_values(reward=[1.0, 2.0])


def test_lists_of_another_length_are_refused() -> None:
    for name in ("references", "groups"):
        with pytest.raises(DataError, match=f"{name} must have one entry a prompt, 3, got 1"):
            sample_answers(
                FixedEngine(["a"]), tiny_tokenizer(), PROMPTS, model="m", sampling=SamplingParams(), **{name: ["x"]}
            )


@pytest.fixture
def policy() -> torch.nn.Module:
    return tiny_model("llama").eval()


def draw(policy: torch.nn.Module):
    engine = TransformersEngine(policy, tiny_tokenizer(), batch_size=2)
    sampling = SamplingParams(max_new_tokens=6, seed=1)
    return sample_answers(engine, tiny_tokenizer(), PROMPTS, model="STR", sampling=sampling, num_samples=2)


def test_same_seed_draws_the_same_answers(policy: torch.nn.Module) -> None:
    assert draw(policy) == draw(policy)


def test_kl_to_itself_is_zero_and_to_another_model_is_the_log_ratio(policy: torch.nn.Module) -> None:
    drawn = draw(policy)
    reference = copy.deepcopy(policy)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert np.abs(sequence_kl(policy, drawn, reference=policy, pad_token_id=2)).max() == 0.0
    found = sequence_kl(policy, drawn, reference=reference, pad_token_id=2, batch_size=4)
    for i, completion in enumerate(drawn.completions):
        ids = torch.tensor([drawn.prompt_ids[i] + completion.token_ids])
        expected = 0.0
        for sign, model in ((1, policy), (-1, reference)):
            with torch.no_grad():
                logps = model(ids).logits[0].double().log_softmax(-1)
            start = len(drawn.prompt_ids[i])
            expected += sign * sum(float(logps[start + t - 1, token]) for t, token in enumerate(completion.token_ids))
        assert found[i] == pytest.approx(expected, abs=2e-4)
    assert np.abs(found).max() > 0.01


def test_kl_without_adapter_is_zero_for_a_fresh_one(policy: torch.nn.Module) -> None:
    from rlsft.models import add_lora

    wrapped = add_lora(policy, {"r": 2})
    drawn = draw(wrapped)
    assert np.abs(sequence_kl(wrapped, drawn, pad_token_id=2)).max() == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.1)
    assert np.abs(sequence_kl(wrapped, drawn, pad_token_id=2)).max() > 1e-3
