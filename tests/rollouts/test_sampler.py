"""The sampler: kept sets known by hand, frequencies, the shortcut against the full sort, independence of rows."""

from __future__ import annotations

import math

import pytest
import torch

from rlsft.errors import ConfigError
from rlsft.rollouts import SamplingParams, sampler
from rlsft.rollouts.sampler import invert_cdf, kept_weights, sample_tokens, uniforms_of

PROBS = (0.5, 0.25, 0.125, 0.0625, 0.0625)  # exact in binary, so that sums are too


def logits_of(probs: tuple[float, ...], temperature: float = 1.0) -> torch.Tensor:
    return torch.tensor(probs).log() * temperature


def drawn(sampling: SamplingParams, draws: int = 4000, temperature: float = 1.0) -> torch.Tensor:
    """Relative frequencies over a fine grid of uniform numbers, which stands for many draws."""
    uniforms = (torch.arange(draws) + 0.5) / draws
    logits = logits_of(PROBS, temperature).expand(draws, -1)
    tokens, _ = sample_tokens(logits, uniforms, sampling)
    return torch.bincount(tokens, minlength=5) / draws


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, PROBS),
        ({"top_p": 0.74}, (2 / 3, 1 / 3, 0, 0, 0)),
        ({"top_p": 0.76}, (4 / 7, 2 / 7, 1 / 7, 0, 0)),
        ({"top_p": 0.1}, (1, 0, 0, 0, 0)),  # the likeliest token always stays
        ({"top_k": 2}, (2 / 3, 1 / 3, 0, 0, 0)),
        ({"top_k": 3, "top_p": 0.8}, (2 / 3, 1 / 3, 0, 0, 0)),  # nucleus of the renormalised three: 4/7 + 2/7 > 0.8
        ({"top_k": 9}, PROBS),
    ],
)
def test_kept_set_and_frequencies_of_five_tokens(settings: dict, expected: tuple[float, ...]) -> None:
    """C04: a hand-made vocabulary whose kept set is known."""
    assert torch.allclose(drawn(SamplingParams(**settings)), torch.tensor(expected).float(), atol=5e-4)


def test_a_nucleus_that_reaches_top_p_exactly_is_complete() -> None:
    assert kept_weights(torch.tensor([PROBS]), 0.75)[0].tolist() == [0.5, 0.25, 0, 0, 0]
    assert kept_weights(torch.tensor([PROBS]), 0.7500001)[0].tolist() == [0.5, 0.25, 0.125, 0, 0]


def test_temperature_comes_before_the_nucleus() -> None:
    """At T = 2 these logits are PROBS; at T = 1 they are much sharper and the nucleus would be smaller."""
    sampling = SamplingParams(temperature=2.0, top_p=0.76)
    assert torch.allclose(drawn(sampling, temperature=2.0), torch.tensor((4 / 7, 2 / 7, 1 / 7, 0, 0)), atol=5e-4)


@pytest.mark.parametrize("width", [1, 3, 64])
def test_prefix_equals_the_full_sort(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    logits = (
        torch.randn(64, 97) * torch.linspace(0.1, 4, 64)[:, None]
    )  # flat rows need the fall-back, sharp ones do not
    uniforms, sampling = torch.rand(64), SamplingParams(top_p=0.9)
    monkeypatch.setattr(sampler, "PREFIX_WIDTH", 97)
    full = sample_tokens(logits, uniforms, sampling)[0]
    monkeypatch.setattr(sampler, "PREFIX_WIDTH", width)
    assert torch.equal(sample_tokens(logits, uniforms, sampling)[0], full)


def test_logprobs_are_those_of_the_tempered_untruncated_policy() -> None:
    logits, sampling = torch.randn(8, 50), SamplingParams(temperature=0.7, top_p=0.5)
    tokens, logprobs = sample_tokens(logits, torch.rand(8), sampling)
    expected = (logits / 0.7).log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    assert torch.allclose(logprobs, expected, atol=1e-6)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    logits, uniforms, sampling = torch.randn(6, 300), torch.rand(6), SamplingParams(top_p=0.9)
    together, _ = sample_tokens(logits, uniforms, sampling)
    alone = [sample_tokens(logits[i : i + 1], uniforms[i : i + 1], sampling)[0] for i in range(6)]
    assert torch.equal(together, torch.cat(alone))


def test_zero_weight_is_never_chosen_not_even_at_the_ends() -> None:
    weights = torch.tensor([[0.0, 1.0, 0.0, 2.0, 0.0]]).expand(3, -1)
    below_one = math.nextafter(1.0, 0.0)
    places = invert_cdf(weights, torch.tensor([0.0, 1 / 3, below_one], dtype=torch.float32))
    assert places.tolist() == [1, 3, 3]


def test_greedy_is_the_argmax_with_its_plain_logprob() -> None:
    logits = torch.randn(4, 30)
    tokens, logprobs = sample_tokens(logits, torch.rand(4), SamplingParams(temperature=0))
    assert torch.equal(tokens, logits.argmax(-1))
    assert torch.allclose(logprobs, logits.log_softmax(-1).amax(-1), atol=1e-6)


def test_uniforms_of_a_part_are_that_part_of_the_whole() -> None:
    whole = uniforms_of(SamplingParams(seed=3, max_new_tokens=5), 4, 2)
    part = uniforms_of(SamplingParams(seed=3, max_new_tokens=5, prompt_offset=2), 2, 2)
    assert torch.equal(whole[2:], part)
    assert len(whole.unique()) == whole.numel()
    assert not torch.equal(whole, uniforms_of(SamplingParams(seed=4, max_new_tokens=5), 4, 2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -0.1}, "temperature must be a finite number >= 0"),
        ({"temperature": math.nan}, "temperature must be a finite number"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\]"),
        ({"top_k": -1}, "top_k must be >= 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be >= 1"),
        ({"seed": -1}, "seed and prompt_offset must be >= 0"),
    ],
)
def test_bad_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SamplingParams(**settings)


def test_describe_says_which_identities_break() -> None:
    assert SamplingParams(temperature=0.8, top_p=0.95, seed=5).describe() == {
        "temperature": 0.8,
        "top_p": 0.95,
        "top_k": 0,
        "max_new_tokens": 64,
        "seed": 5,
        "greedy": False,
        "tempered": True,
        "truncated": True,
    }
    assert not SamplingParams().describe()["truncated"]
