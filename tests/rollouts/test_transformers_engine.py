"""The engine against `model.generate`, its one prefill a prompt, its stops, its manners."""

from __future__ import annotations

import pytest
import torch

from rlsft.errors import ConfigError, DataError, ModelError, RunError
from rlsft.models import add_lora, completion_logprobs
from rlsft.rollouts import Completion, RolloutEngine, SamplingParams, TransformersEngine, pad_rollouts
from tests.support.models import FAMILIES, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
TEXTS = ["Hello! How are you", "I", "We went to the park and played football with"]
PROMPTS = [TOKENIZER(text)["input_ids"] for text in TEXTS]
GREEDY = SamplingParams(temperature=0, max_new_tokens=12)
WIDE = {"initializer_range": 0.5}  # weights large enough for answers to differ and to end


def flat(groups: list[list[Completion]]) -> list[Completion]:
    return [completion for group in groups for completion in group]


def lively(family: str = "llama", **changes: object) -> torch.nn.Module:
    return tiny_model(family, **changes) if family == "gpt2" else tiny_model(family, **{**WIDE, **changes})


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_generate_prompt_by_prompt(family: str) -> None:
    """Left padding with positions from the mask: absolute positions (gpt2) and sliding windows (gemma2) included."""
    model = tiny_model(family, initializer_range=0.5)
    drawn = TransformersEngine(model, TOKENIZER).generate(PROMPTS, GREEDY)
    for prompt, (completion,) in zip(PROMPTS, drawn, strict=True):
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=12,
            pad_token_id=2,
        )
        assert completion.token_ids == expected[0, len(prompt) :].tolist()


def test_gemma_window_shorter_than_the_prompt() -> None:
    model = tiny_model("gemma2", initializer_range=0.5, sliding_window=4)
    (completion,) = TransformersEngine(model, TOKENIZER).generate([PROMPTS[2], PROMPTS[0]], GREEDY)[0]
    expected = model.generate(torch.tensor([PROMPTS[2]]), do_sample=False, max_new_tokens=12, pad_token_id=2)
    assert completion.token_ids == expected[0, len(PROMPTS[2]) :].tolist()


def test_samples_of_a_prompt_share_one_prefill() -> None:
    model = lively()
    lengths: list[tuple[int, int]] = []
    handle = model.register_forward_pre_hook(
        lambda _m, _a, kwargs: lengths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    TransformersEngine(model, TOKENIZER, batch_size=64).generate(PROMPTS, SamplingParams(max_new_tokens=4), 5)
    handle.remove()
    assert lengths[0] == (3, max(map(len, PROMPTS)))  # three prompts, not fifteen
    assert len(lengths) <= 4
    assert all(shape[1] == 1 and shape[0] <= 15 for shape in lengths[1:])


def test_more_samples_than_a_batch_still_prefill_once() -> None:
    model, widths = lively(), []
    handle = model.register_forward_pre_hook(
        lambda _m, _a, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    drawn = TransformersEngine(model, TOKENIZER, batch_size=2).generate(
        PROMPTS[:1], SamplingParams(max_new_tokens=3), 5
    )
    handle.remove()
    assert len(drawn[0]) == 5
    assert sum(width > 1 for width in widths) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_batch_size_does_not_change_the_answers(batch_size: int) -> None:
    sampling = SamplingParams(temperature=0.8, top_p=0.9, max_new_tokens=10, seed=3)
    model = lively()
    whole = TransformersEngine(model, TOKENIZER, batch_size=15).generate(PROMPTS, sampling, 5)
    parts = TransformersEngine(model, TOKENIZER, batch_size=batch_size).generate(PROMPTS, sampling, 5)
    assert [[c.token_ids for c in row] for row in whole] == [[c.token_ids for c in row] for row in parts]


def test_two_runs_are_equal_and_seeds_differ() -> None:
    engine = TransformersEngine(lively(), TOKENIZER)
    runs = [engine.generate(PROMPTS, SamplingParams(seed=seed, max_new_tokens=8), 2) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    samples = runs[0][0]
    assert samples[0].token_ids != samples[1].token_ids


def test_a_piece_drawn_apart_equals_the_whole() -> None:
    engine = TransformersEngine(lively(), TOKENIZER)
    whole = engine.generate(PROMPTS, SamplingParams(max_new_tokens=6, seed=4), 2)
    part = engine.generate(PROMPTS[1:], SamplingParams(max_new_tokens=6, seed=4, prompt_offset=1), 2)
    assert [[c.token_ids for c in row] for row in whole[1:]] == [[c.token_ids for c in row] for row in part]


def test_stop_token_is_kept_and_rows_end_early() -> None:
    """With half of the vocabulary as stop tokens rows end at different times; the others go on undisturbed."""
    model, stops = lively(), range(0, 400, 2)
    sampling = SamplingParams(max_new_tokens=12, seed=1)
    stopping = TransformersEngine(model, TOKENIZER, stop_token_ids=stops).generate(PROMPTS, sampling, 6)
    endless = TransformersEngine(model, TOKENIZER, stop_token_ids=[]).generate(PROMPTS, sampling, 6)
    lengths = set()
    for completion, full in zip(flat(stopping), flat(endless), strict=True):
        ids = completion.token_ids
        assert ids == full.token_ids[: len(ids)]
        assert all(token % 2 for token in ids[:-1])
        assert (completion.finish_reason == "stop") == (ids[-1] % 2 == 0)
        assert full.finish_reason == "length"
        assert len(full.token_ids) == len(full.logprobs) == 12
        lengths.add(len(ids))
    assert len(lengths) > 2


def test_ended_rows_leave_the_batch() -> None:
    model, rows = lively(), []
    handle = model.register_forward_pre_hook(
        lambda _m, _a, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    TransformersEngine(model, TOKENIZER, stop_token_ids=range(0, 400, 2)).generate(
        PROMPTS, SamplingParams(max_new_tokens=12, seed=1), 8
    )
    handle.remove()
    assert rows[1] < 24
    assert rows[1:] == sorted(rows[1:], reverse=True)
    assert rows[-1] < rows[1]


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_rescoring_at_the_rollout_temperature_gives_the_sampled_logprobs(family: str) -> None:
    """C03: T = 0.7 travels with the rollout; scoring at another temperature does not agree."""
    model = tiny_model(family, initializer_range=0.3)
    sampling = SamplingParams(temperature=0.7, max_new_tokens=9, seed=2)
    drawn = TransformersEngine(model, TOKENIZER).generate(PROMPTS, sampling, 2)
    batch = pad_rollouts(
        [prompt for prompt in PROMPTS for _ in range(2)],
        flat(drawn),
        pad_token_id=TOKENIZER.pad_token_id,
        temperature=sampling.scoring_temperature,
    )

    def scored(temperature: float) -> torch.Tensor:
        with torch.no_grad():
            out = completion_logprobs(
                model, batch.input_ids, batch.attention_mask, batch.sequence_mask, temperature=temperature
            )
        return out.logprob[:, batch.prompt_ids.shape[1] :]

    assert torch.allclose(scored(batch.temperature), batch.sampler_logprobs, atol=2e-5)
    assert not torch.allclose(scored(1.0), batch.sampler_logprobs, atol=1e-2)


def test_lora_policy_draws_with_its_adapter() -> None:
    model = add_lora(lively(), {"r": 4})
    engine = TransformersEngine(model, TOKENIZER)
    before = engine.generate(PROMPTS, GREEDY)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    after = engine.generate(PROMPTS, GREEDY)
    assert before != after
    with model.disable_adapter():
        assert [c[0].token_ids for c in engine.generate(PROMPTS, GREEDY)] == [c[0].token_ids for c in before]


@pytest.mark.parametrize("fails", [False, True])
def test_flags_inside_and_after_a_rollout(fails: bool) -> None:
    """C15: eval mode, cache on, checkpointing off; put back, also after an exception."""
    model = lively()
    model.gradient_checkpointing_enable()
    model.config.use_cache = False
    model.train()
    seen: list[tuple[bool, bool, bool]] = []

    def look(_module: object, _args: object) -> None:
        seen.append((model.training, model.config.use_cache, model.model.layers[0].gradient_checkpointing))
        if fails:
            raise KeyboardInterrupt

    handle = model.register_forward_pre_hook(look)
    try:
        TransformersEngine(model, TOKENIZER).generate(PROMPTS, SamplingParams(max_new_tokens=2))
    except KeyboardInterrupt:
        assert fails
    handle.remove()
    assert set(seen) == {(False, True, False)}
    assert model.training
    assert not model.config.use_cache
    assert model.model.layers[0].gradient_checkpointing


def test_progress_is_reported_to_the_end() -> None:
    seen: list[tuple[int, int]] = []
    engine = TransformersEngine(
        lively(), TOKENIZER, batch_size=2, on_progress=lambda done, total: seen.append((done, total))
    )
    engine.generate(PROMPTS, SamplingParams(max_new_tokens=2), 2)
    assert seen == [(2, 6), (4, 6), (6, 6)]


def test_default_stop_tokens_are_those_of_tokenizer_and_model() -> None:
    model = lively()
    model.generation_config.eos_token_id = [7, 2]
    engine = TransformersEngine(model, TOKENIZER)
    assert engine.stop_token_ids == [2, 7]
    assert isinstance(engine, RolloutEngine)
    model.generation_config.eos_token_id = None
    with pytest.raises(ModelError, match="names an end token"):
        TransformersEngine(model, None)


def test_bad_prompts_are_named() -> None:
    engine = TransformersEngine(lively(), TOKENIZER)
    with pytest.raises(DataError, match=r"prompt_ids\[1\] is empty"):
        engine.generate([[5], []], GREEDY)
    with pytest.raises(DataError, match=r"prompt_ids\[0\] has 250 tokens, and with max_new_tokens=12 .* 256 tokens"):
        engine.generate([[5] * 250], GREEDY)
    with pytest.raises(ConfigError, match="num_samples must be >= 1"):
        engine.generate(PROMPTS, GREEDY, 0)
    with pytest.raises(ConfigError, match="batch_size must be >= 1"):
        TransformersEngine(engine.model, TOKENIZER, batch_size=0)
    assert engine.generate([], GREEDY) == []


@pytest.mark.parametrize("sampling", [GREEDY, SamplingParams(), SamplingParams(top_p=0.9)])
def test_broken_weights_are_said_not_sampled(sampling: SamplingParams) -> None:
    model = lively()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(RunError, match="logits are NaN or infinite"):
        TransformersEngine(model, TOKENIZER).generate(PROMPTS, sampling)


def test_completion_record_is_plain_data() -> None:
    completion = TransformersEngine(lively(), TOKENIZER).generate(PROMPTS[:1], SamplingParams(max_new_tokens=3))[0][0]
    assert isinstance(completion, Completion)
    assert all(type(token) is int for token in completion.token_ids)
    assert all(type(logprob) is float and logprob <= 0 for logprob in completion.logprobs)
