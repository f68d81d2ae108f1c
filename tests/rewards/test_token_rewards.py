"""Token rewards are the scaled log-ratio of two checkpoints, token by token, whatever the batch and the pad token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlsft.artifacts import read_jsonl
from rlsft.data.encoding import encode_demonstration
from rlsft.errors import ConfigError, DataError, ModelError, RunError
from rlsft.models import add_lora, merge_lora
from rlsft.rewards import ImplicitReward, export_token_rewards, token_rewards
from tests.support.models import FAMILIES, tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPTS = ["Hello!", [{"role": "user", "content": "Was it fun?"}], "What did you do?", "Hello!"]
COMPLETIONS = ["I am fine, thank you.", "No.", "We went to the park and played football.", "Rice, but also noodles."]
ROWS = [{"prompt": p, "completion": c} for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]


def models(family: str = "llama") -> tuple[Any, Any]:
    return tuple(tiny_model(family, seed=seed, initializer_range=0.2) for seed in (1, 2))  # type: ignore[return-value]


def by_hand(policy: Any, reference: Any, prompt: Any, completion: Any, beta: float) -> torch.Tensor:
    """From full logits of one unpadded row in float64."""
    row = encode_demonstration({"prompt": prompt, "completion": completion}, TOKENIZER, max_length=64)
    ids = torch.tensor([row["input_ids"]])
    kept = torch.tensor(row["completion_mask"])
    with torch.no_grad():
        logs = [
            model(ids).logits[0, :-1].double().log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
            for model in (policy, reference)
        ]
    return beta * (logs[0] - logs[1])[kept[1:]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_equals_the_log_ratio_of_full_logits(family: str, batch_size: int) -> None:
    policy, reference = models(family)
    found = token_rewards(
        policy, reference, TOKENIZER, PROMPTS, COMPLETIONS, beta=0.3, batch_size=batch_size, max_length=64
    )
    assert [row.dtype for row in found] == [np.float32] * len(ROWS)
    for row, prompt, completion in zip(found, PROMPTS, COMPLETIONS, strict=True):
        expected = by_hand(policy, reference, prompt, completion, 0.3)
        assert expected.abs().max() > 0.01  # the models do differ
        assert row.shape == tuple(expected.shape)
        np.testing.assert_allclose(row, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_token_rewards_sum_to_the_sequence_reward_exactly() -> None:
    """The identity of the implicit reward: the score is the float64 sum of its tokens, and the sequence log-ratio."""
    policy, reference = models()
    reward = ImplicitReward(policy, reference, TOKENIZER, beta=0.1, max_length=64)
    tokens, scores = reward.token_rewards(PROMPTS, COMPLETIONS), reward.score(PROMPTS, COMPLETIONS)
    assert scores.tolist() == [float(row.astype(np.float64).sum()) for row in tokens]
    for score, prompt, completion in zip(scores, PROMPTS, COMPLETIONS, strict=True):
        assert score == pytest.approx(float(by_hand(policy, reference, prompt, completion, 0.1).sum()), abs=1e-5)
    per_token = reward.score(PROMPTS, COMPLETIONS, per_token=True)
    np.testing.assert_allclose(per_token, scores / [len(row) for row in tokens])


def test_an_adapter_on_and_off_is_a_pair_of_checkpoints() -> None:
    base, other = tiny_model("llama", seed=1), tiny_model("llama", seed=1)
    policy = add_lora(other, {"r": 2})
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    options: dict[str, Any] = {"beta": 1.0, "max_length": 64}
    switched = token_rewards(policy, None, TOKENIZER, PROMPTS, COMPLETIONS, **options)
    apart = token_rewards(merge_lora(policy), base, TOKENIZER, PROMPTS, COMPLETIONS, **options)
    for one, two in zip(switched, apart, strict=True):
        assert abs(one).max() > 0.01
        np.testing.assert_allclose(one, two, atol=1e-4)


def test_a_model_in_training_is_scored_without_dropout_and_put_back() -> None:
    policy, reference = tiny_model("gpt2", seed=1).train(), tiny_model("gpt2", seed=2)
    first, second = (
        token_rewards(policy, reference, TOKENIZER, PROMPTS, COMPLETIONS, beta=1.0, max_length=64) for _ in range(2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert policy.training


def test_bad_input_is_named() -> None:
    policy, reference = models()
    with pytest.raises(ConfigError, match=r"beta must be a finite number > 0.* got 0"):
        token_rewards(policy, reference, TOKENIZER, PROMPTS, COMPLETIONS, beta=0.0)
    with pytest.raises(ConfigError, match=r"batch_size must be at least 1, got 0"):
        token_rewards(policy, reference, TOKENIZER, PROMPTS, COMPLETIONS, beta=1.0, batch_size=0)
    with pytest.raises(DataError, match="one length, got 4 and 1"):
        token_rewards(policy, reference, TOKENIZER, PROMPTS, COMPLETIONS[:1], beta=1.0)
    with pytest.raises(DataError, match="row 1: column 'completion' is empty"):
        token_rewards(policy, reference, TOKENIZER, PROMPTS, ["a", " ", "b", "c"], beta=1.0)
    with pytest.raises(ModelError, match="no adapter whose absence could be the reference"):
        token_rewards(policy, None, TOKENIZER, PROMPTS, COMPLETIONS, beta=1.0)
    with pytest.raises(ModelError, match="share one vocabulary, got 400 and 500"):
        token_rewards(policy, tiny_model("llama", vocab_size=500), TOKENIZER, PROMPTS, COMPLETIONS, beta=1.0)


# ---- files ------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoints(tmp_path: Path) -> tuple[Path, Path]:
    folders = (tmp_path / "policy", tmp_path / "reference")
    for folder, model in zip(folders, models(), strict=True):
        model.save_pretrained(folder)
        TOKENIZER.save_pretrained(folder)
    return folders


def test_the_export_holds_every_token_and_loads_as_the_same_reward(
    checkpoints: tuple[Path, Path], tmp_path: Path
) -> None:
    reward = ImplicitReward.from_checkpoints(*checkpoints, beta=0.25, token_level=True, max_length=64)
    finished: list[int] = []
    written = export_token_rewards(reward, ROWS, tmp_path / "out", on_batch=finished.append)
    assert sum(finished) == 2 * len(ROWS)
    lines = read_jsonl(tmp_path / "out" / "token_rewards.jsonl")
    for line, row in zip(lines, ROWS, strict=True):
        assert line["prompt"] == row["prompt"]
        assert line["token_ids"][-1] == TOKENIZER.eos_token_id
        assert "".join(line["tokens"]) == row["completion"] + TOKENIZER.eos_token
        assert len(line["token_rewards"]) == len(line["token_ids"])
        assert line["reward"] == pytest.approx(sum(line["token_rewards"]), abs=1e-9)
    manifest = json.loads((tmp_path / "out" / "token_reward.json").read_text())
    assert manifest["policy"] == str(checkpoints[0])
    assert manifest["reference"] == str(checkpoints[1])
    assert manifest["beta"] == 0.25
    assert manifest["rows"] == len(ROWS)
    assert manifest["mean_reward"] == pytest.approx(np.mean([line["reward"] for line in lines]))
    assert written["tokens"] == sum(len(line["token_ids"]) for line in lines)
    again = ImplicitReward.from_pretrained(tmp_path / "out")
    assert again.token_level
    assert again.score(PROMPTS, COMPLETIONS).tolist() == [line["reward"] for line in lines]


def test_a_manifest_that_no_longer_holds_is_refused(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    policy, reference = checkpoints
    ImplicitReward.from_checkpoints(policy, reference).save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "token_reward.json"
    whole = file.read_text()
    changed = tiny_tokenizer.__wrapped__()  # a tokenizer of its own, whose template may be touched
    changed.chat_template = changed.chat_template.replace("user", "human") + " "
    changed.save_pretrained(policy)
    with pytest.raises(ModelError, match=r"chat template of .* is not the one"):
        ImplicitReward.from_pretrained(tmp_path / "saved")
    file.write_text(whole.replace(str(reference), "/nowhere"))
    with pytest.raises(ModelError, match="names the reference checkpoint /nowhere, which is gone"):
        ImplicitReward.from_pretrained(tmp_path / "saved")
    file.write_text(whole.replace('"format": 1', '"format": 9'))
    with pytest.raises(ModelError, match="has format 9, this version reads 1"):
        ImplicitReward.from_pretrained(tmp_path / "saved")
    file.write_text("{")
    with pytest.raises(ModelError, match="is broken"):
        ImplicitReward.from_pretrained(tmp_path / "saved")
    with pytest.raises(ModelError, match=r"has no token_reward\.json"):
        ImplicitReward.from_pretrained(policy)


def test_models_in_memory_have_no_manifest(tmp_path: Path) -> None:
    reward = ImplicitReward(*models(), TOKENIZER)
    with pytest.raises(RunError, match="built from models in memory"):
        export_token_rewards(reward, ROWS, tmp_path)
    assert not list(tmp_path.iterdir())
