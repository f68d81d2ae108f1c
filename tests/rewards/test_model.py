"""Reward models: the last real token is scored whatever the padding, and folders are plain ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from rlsft.errors import ConfigError, ModelError
from rlsft.rewards import RewardModel, pooled_scores
from rlsft.rewards.pooling import last_real_token
from tests.support.models import FAMILIES, tiny_model
from tests.support.rewarding import tiny_classifier

EOS = PAD = 2


def padded(rows: list[list[int]], side: str, width: int) -> tuple[Tensor, Tensor]:
    ids, mask = torch.full((len(rows), width), PAD), torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        at = slice(width - len(row), width) if side == "left" else slice(0, len(row))
        ids[number, at], mask[number, at] = torch.tensor(row), 1
    return ids, mask


ROWS = [[1, 40, 50, 60, EOS], [1, 70, EOS], [1, 80, 90, 100, 110, 120, EOS]]


@pytest.mark.parametrize("family", [*FAMILIES, "bert"])
def test_padding_on_either_side_changes_no_score(family: str) -> None:
    model = RewardModel(tiny_classifier(family))
    with torch.no_grad():
        alone = torch.cat([model.score(torch.tensor([row]), torch.ones(1, len(row))) for row in ROWS])
        for side in ("right", "left") if family != "bert" else ("right",):  # BERT pools its first token
            torch.testing.assert_close(model.score(*padded(ROWS, side, 11)), alone, rtol=1e-5, atol=1e-6)
    assert alone.std() > 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_token_is_scored_although_it_is_the_pad_token(family: str) -> None:
    """score(x + EOS) is the head at EOS, with padding and without; transformers' own forward reads the token before."""
    backbone = tiny_classifier(family)
    ids, mask = padded(ROWS, "right", 9)
    with torch.no_grad():
        ours = pooled_scores(backbone, ids, mask)
        for number, row in enumerate(ROWS):
            hidden = backbone.base_model(input_ids=torch.tensor([row]), use_cache=False)[0][0, -1]
            torch.testing.assert_close(ours[number], backbone.score(hidden)[0], rtol=1e-5, atol=1e-6)
        theirs = backbone(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0]
    assert (ours - theirs).abs().max() > 1e-4


def test_last_real_token_by_mask() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1]])
    assert last_real_token(mask).tolist() == [1, 3, 2, 3]


@pytest.mark.parametrize("family", [*FAMILIES, "bert"])
def test_a_saved_folder_is_a_plain_one_with_the_same_scores(family: str, tmp_path: Path) -> None:
    model = RewardModel(tiny_classifier(family))
    model.set_normalizer(0.5, 2.0)
    model.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    again = RewardModel.from_pretrained(tmp_path)
    with torch.no_grad():
        for row in ROWS:
            ids, mask = torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long)
            expected = model.score(ids, mask)
            torch.testing.assert_close(
                plain(input_ids=ids, attention_mask=mask).logits[:, 0], expected, rtol=1e-5, atol=1e-6
            )
            assert torch.equal(again.eval().score(ids, mask), expected)
    assert again.normalizer == (0.5, 2.0)
    assert model.config.pad_token_id == PAD  # the model in memory keeps its own


def test_transformers_refuses_a_padded_batch_rather_than_reading_the_wrong_token(tmp_path: Path) -> None:
    RewardModel(tiny_classifier("llama")).save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="batch sizes > 1"):
        plain(*padded(ROWS, "right", 9))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_causal_lm_folder_becomes_a_reward_model_with_a_seeded_head(family: str, tmp_path: Path) -> None:
    causal = tiny_model(family, seed=4)
    causal.save_pretrained(tmp_path)
    first, again, other = (RewardModel.from_pretrained(tmp_path, seed=seed) for seed in (1, 1, 2))
    weight = first.backbone.score.weight
    assert torch.equal(weight, again.backbone.score.weight)
    assert not torch.equal(weight, other.backbone.score.weight)
    assert 0.05 < weight.std() < 0.5  # 1 / sqrt(33) = 0.17
    trunk = dict(first.backbone.base_model.named_parameters())
    assert all(torch.equal(trunk[name], p) for name, p in causal.base_model.named_parameters())


def test_dtype_is_as_asked_and_scores_are_float32(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path)
    model = RewardModel.from_pretrained(tmp_path, dtype="bfloat16", attn_implementation="eager")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "eager"
    exact = RewardModel.from_pretrained(tmp_path)
    with torch.no_grad():
        scores, reference = model.score(*padded(ROWS, "left", 8)), exact.score(*padded(ROWS, "left", 8))
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, reference, rtol=0.05, atol=0.05)


def test_an_adapter_is_merged_into_the_saved_copy_only(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "base")
    model = RewardModel.from_pretrained(tmp_path / "base", peft_config={"r": 2})
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert any("score" in name for name in trainable)  # the head is trained with the adapter
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
        before = model.score(*padded(ROWS, "right", 8))
        model.save_pretrained(tmp_path / "merged")
        model.backbone.save_pretrained(tmp_path / "adapter")
        merged, loaded = (RewardModel.from_pretrained(tmp_path / name) for name in ("merged", "adapter"))
        assert not (tmp_path / "merged" / "adapter_config.json").exists()
        assert torch.equal(model.score(*padded(ROWS, "right", 8)), before)
        torch.testing.assert_close(merged.score(*padded(ROWS, "right", 8)), before, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(loaded.score(*padded(ROWS, "right", 8)), before, rtol=1e-5, atol=1e-6)


def test_normaliser(tmp_path: Path) -> None:
    model = RewardModel(tiny_classifier("llama"))
    raw = model.score(*padded(ROWS, "right", 8))
    assert torch.equal(model.score(*padded(ROWS, "right", 8), normalized=True), raw)  # none set
    model.set_normalizer(0.25, 0.5)
    torch.testing.assert_close(model.score(*padded(ROWS, "right", 8), normalized=True), (raw - 0.25) / 0.5)
    for mean, std in ((0.0, 0.0), (float("nan"), 1.0), (0.0, -1.0)):
        with pytest.raises(ConfigError, match="the normaliser needs a finite mean and a positive std"):
            model.set_normalizer(mean, std)


def test_wrong_folders_and_models_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere does not exist"):
        RewardModel.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"has no config.json"):
        RewardModel.from_pretrained(tmp_path / "empty")
    with pytest.raises(ModelError, match="neither a score nor a classifier head"):
        RewardModel(tiny_model("llama"))
    with pytest.raises(ModelError, match=r"must have num_labels=1 .* with 3"):
        RewardModel(tiny_classifier("llama", num_labels=3))
    tiny_classifier("llama", num_labels=3).save_pretrained(tmp_path / "three")
    with pytest.raises(ModelError, match="is a classifier with 3 labels; a reward model has one"):
        RewardModel.from_pretrained(tmp_path / "three")


def test_a_folder_with_missing_trunk_weights_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny_model("llama").save_pretrained(tmp_path)
    weights: dict[str, Any] = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights .* \(first: model.layers.1.mlp.up_proj.weight\)"):
        RewardModel.from_pretrained(tmp_path)


def test_an_adapter_config_must_train_the_head() -> None:
    from peft import LoraConfig

    from rlsft.rewards.model import classification_config

    assert classification_config({"r": 2})["task_type"] == "SEQ_CLS"
    unnamed = LoraConfig(r=2)
    assert classification_config(unnamed).task_type == "SEQ_CLS"
    assert unnamed.task_type is None  # the caller's object is left alone
    with pytest.raises(ConfigError, match="must have task_type='SEQ_CLS', got 'CAUSAL_LM'"):
        classification_config(LoraConfig(r=2, task_type="CAUSAL_LM"))
