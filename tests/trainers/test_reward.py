"""Reward training: it finds a planted order, the loss is Bradley-Terry, and how a step is cut up changes nothing."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from rlsft.errors import DataError, ModelError
from rlsft.rewards import RewardModel, score_texts
from rlsft.trainers.reward import RewardConfig, RewardTrainer
from tests.support.models import FAMILIES, tiny_model, tiny_tokenizer
from tests.support.rewarding import FOODS, planted_pairs, reward_trainer, tiny_classifier
from tests.support.training import equal_parameters, gradients, logged


def one_batch(trainer: RewardTrainer) -> dict[str, Tensor]:
    return trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])


# ---- it learns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_recovers_a_planted_bradley_terry_order(family: str, tmp_path: Path) -> None:
    clean = planted_pairs(40, seed=9, sharpness=50.0)  # held-out prompts, the better food always wins
    trainer = reward_trainer(
        tiny_classifier(family),
        tmp_path,
        planted_pairs(160),
        eval_dataset=clean,
        max_steps=160,
        per_device_train_batch_size=16,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_accuracy"] > 0.9
    assert after["eval_loss"] < 0.4 < before["eval_loss"]
    assert after["eval_margin"] > 1.0
    assert after["eval_brier"] < 0.15 < before["eval_brier"]
    answers = [f"I like {food}." for food in FOODS]
    scores = score_texts(trainer.reward_model, tiny_tokenizer(), ["What do you like?"] * len(FOODS), answers)
    assert (np.diff(scores) < 0).sum() >= len(FOODS) - 2  # the places themselves, one slip allowed


# ---- the loss ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["right", "left"])
def test_loss_and_gradients_are_bradley_terry_row_by_row(family: str, side: str, tmp_path: Path) -> None:
    rows = [{**row, "margin": 0.1 * i} for i, row in enumerate(planted_pairs(5))]
    model = tiny_classifier(family, seed=3).train()
    trainer = reward_trainer(model, tmp_path, rows, padding_side=side, center_rewards_coefficient=0.05)
    batch = one_batch(trainer)
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    ours = gradients(model)
    model.zero_grad()
    terms = []
    for row in trainer.train_dataset:
        hidden = [
            model.base_model(input_ids=torch.tensor([row[f"{name}_input_ids"]]), use_cache=False)[0][0, -1]
            for name in ("chosen", "rejected")
        ]
        chosen, rejected = (model.score(h)[0] for h in hidden)
        terms.append(-F.logsigmoid(chosen - rejected - row["margin"]) + 0.05 * (chosen + rejected) ** 2)
    expected = torch.stack(terms).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_end_token_is_the_one_that_is_scored(tmp_path: Path) -> None:
    batch = one_batch(reward_trainer(tiny_classifier("llama"), tmp_path))
    for side in ("chosen", "rejected"):
        last = batch[f"{side}_attention_mask"].sum(dim=1) - 1
        assert (batch[f"{side}_input_ids"][torch.arange(8), last] == tiny_tokenizer().eos_token_id).all()


@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 2), (3, 3)])
def test_micro_batches_change_neither_loss_nor_gradient_norm(
    batch_size: int, accumulation: int, tmp_path: Path
) -> None:
    whole = reward_trainer(tiny_classifier("llama"), tmp_path)
    cut = reward_trainer(
        tiny_classifier("llama"),
        tmp_path,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
    )
    whole.train()
    cut.train()
    for name in ("loss", "grad_norm"):
        assert len(logged(whole, name)) == 3
        np.testing.assert_allclose(logged(cut, name), logged(whole, name), rtol=5e-6)
    for name in ("accuracy", "margin", "min_reward", "mean_reward", "max_reward", "num_tokens"):
        np.testing.assert_allclose(logged(cut, name), logged(whole, name), rtol=1e-4, atol=1e-6)


def test_logged_numbers_are_those_of_the_pairs(tmp_path: Path) -> None:
    trainer = reward_trainer(tiny_classifier("llama"), tmp_path, max_steps=1)
    with torch.no_grad():
        chosen, rejected = trainer.both_rewards(trainer.model, one_batch(trainer))
    trainer.train()
    (row,) = [row for row in trainer.state.log_history if "accuracy" in row]
    both = torch.cat([chosen, rejected])
    assert row["accuracy"] == pytest.approx((chosen > rejected).float().mean().item())
    assert row["margin"] == pytest.approx((chosen - rejected).mean().item(), abs=1e-6)
    for name in ("min", "mean", "max"):
        assert row[f"{name}_reward"] == pytest.approx(getattr(both, name)().item(), abs=1e-6)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert (first["stage"], first["accuracy"]) == ("reward", row["accuracy"])


# ---- evaluation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 5])
def test_evaluation_is_over_all_pairs(batch_size: int, tmp_path: Path) -> None:
    rows = [{**row, "margin": 0.2 * i} for i, row in enumerate(planted_pairs(7, seed=2))]
    trainer = reward_trainer(
        tiny_classifier("qwen2"),
        tmp_path,
        eval_dataset=rows,
        per_device_eval_batch_size=batch_size,
        center_rewards_coefficient=0.1,
    )
    metrics = trainer.evaluate()
    model = RewardModel(trainer.model)
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (
        score_texts(model, tiny_tokenizer(), prompts, [row[s] for row in rows]) for s in ("chosen", "rejected")
    )
    margins = np.array([row["margin"] for row in rows])
    loss = np.mean(np.log1p(np.exp(-(chosen - rejected - margins))) + 0.1 * (chosen + rejected) ** 2)
    assert metrics["eval_loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["eval_accuracy"] == pytest.approx((chosen > rejected).mean())
    assert metrics["eval_margin"] == pytest.approx((chosen - rejected).mean(), abs=1e-6)
    assert metrics["eval_max_reward"] == pytest.approx(max(chosen.max(), rejected.max()), abs=1e-6)
    assert metrics["eval_brier"] == pytest.approx(np.mean((1 - 1 / (1 + np.exp(rejected - chosen))) ** 2), rel=1e-5)
    assert 0 <= metrics["eval_ece"] <= 0.5


def test_early_stopping_by_held_out_accuracy_keeps_the_best(tmp_path: Path) -> None:
    trainer = reward_trainer(
        tiny_classifier("llama"),
        tmp_path,
        planted_pairs(64),
        eval_dataset=planted_pairs(24, seed=5, sharpness=50),
        max_steps=60,
        learning_rate=5e-3,
        eval_strategy="steps",
        eval_steps=5,
        save_strategy="steps",
        save_steps=5,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        early_stopping_patience=3,
    )
    trainer.train()
    accuracies = logged(trainer, "eval_accuracy")
    assert trainer.state.best_metric == max(accuracies)
    assert trainer.evaluate()["eval_accuracy"] == max(accuracies) > 0.9
    assert trainer.state.global_step < 60


def test_own_metrics_get_both_rewards(tmp_path: Path) -> None:
    def own(prediction: Any) -> dict[str, float]:
        return {"right": float((prediction.predictions.argmax(axis=1) == prediction.label_ids).mean())}

    trainer = reward_trainer(tiny_classifier("llama"), tmp_path, eval_dataset=planted_pairs(9), compute_metrics=own)
    metrics = trainer.evaluate()
    assert metrics["eval_right"] == pytest.approx(metrics["eval_accuracy"])


# ---- adapters, resume, files ------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora_trains_adapter_and_head_and_exports_a_plain_folder(checkpointing: bool, tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    trainer = reward_trainer(
        str(tmp_path / "base"),
        tmp_path,
        planted_pairs(64),
        processing_class=None,
        use_peft=True,
        lora_r=4,
        lora_dropout=0.0,
        learning_rate=1e-2,
        max_steps=50,
        gradient_checkpointing=checkpointing,
    )
    frozen = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
    trainer.train()
    assert logged(trainer, "loss")[-1] < 0.45 < logged(trainer, "loss")[0]
    assert all(torch.equal(p, frozen[n]) for n, p in trainer.model.named_parameters() if n in frozen)
    trainer.reward_model.save_pretrained(tmp_path / "plain")
    trainer.save_model(str(tmp_path / "adapter"))
    batch = one_batch(trainer)
    ids, mask = batch["chosen_input_ids"], batch["chosen_attention_mask"]
    with torch.no_grad():
        expected = trainer.reward_model.eval().score(ids, mask)
        for name in ("plain", "adapter"):
            found = RewardModel.from_pretrained(tmp_path / name).eval().score(ids, mask)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lora", [False, True])
def test_three_steps_and_three_more_equal_six(lora: bool, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": 6,
        "lr_scheduler_type": "linear",
        "save_strategy": "steps",
        "save_steps": 3,
        "disable_dropout": False,
        "use_peft": lora,
    }
    runs = [
        reward_trainer(tiny_classifier("llama", attention_dropout=0.2), tmp_path / name, planted_pairs(10), **settings)
        for name in ("whole", "resumed")
    ]
    runs[0].train()
    runs[1].train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert equal_parameters(runs[0].model, runs[1].model)
    assert logged(runs[0], "margin") != []
    assert logged(runs[1], "loss") == logged(runs[0], "loss")


def test_saved_folder_scores_the_end_token_in_plain_transformers(tmp_path: Path) -> None:
    trainer = reward_trainer(tiny_classifier("llama"), tmp_path, save_strategy="steps", save_steps=3)
    trainer.train()
    trainer.save_model()
    row = trainer.train_dataset[0]["chosen_input_ids"]
    ids = torch.tensor([row])
    with torch.no_grad():
        expected = trainer.reward_model.eval().score(ids, torch.ones_like(ids))
        for folder in (tmp_path, tmp_path / "checkpoint-3"):
            plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
            torch.testing.assert_close(plain(ids).logits[:, 0], expected)
    assert (tmp_path / "tokenizer.json").exists()


def test_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "base")
    models = []
    for seed in (1, 1, 2):
        trainer = reward_trainer(str(tmp_path / "base"), tmp_path, seed=seed)
        trainer.train()
        models.append(trainer.model)
    assert equal_parameters(models[0], models[1])
    assert not equal_parameters(models[0], models[2])  # the new head and the order of the rows


def test_dropout_is_off_by_default(tmp_path: Path) -> None:
    model = tiny_classifier("gpt2", resid_pdrop=0.5, attn_pdrop=0.5).train()
    trainer = reward_trainer(model, tmp_path)
    batch = one_batch(trainer)
    assert trainer.compute_loss(model.train(), batch) == trainer.compute_loss(model, batch)


def test_encoders_train_too(tmp_path: Path) -> None:
    trainer = reward_trainer(tiny_classifier("bert"), tmp_path, planted_pairs(64), max_steps=40, learning_rate=3e-3)
    trainer.train()
    assert logged(trainer, "loss")[-1] < 0.5 < logged(trainer, "loss")[0]


# ---- messages ---------------------------------------------------------------------------------------------


def test_wrong_input_is_named(tmp_path: Path) -> None:
    same = [*planted_pairs(2), {"prompt": "Hello!", "chosen": "Yes.", "rejected": "Yes."}]
    with pytest.raises(DataError, match="train_dataset, row 3: chosen and rejected are the same answer"):
        reward_trainer(tiny_classifier("llama"), tmp_path, same)
    with pytest.raises(ModelError, match="neither a score nor a classifier head"):
        reward_trainer(tiny_model("llama"), tmp_path)
    with pytest.raises(ModelError, match="must have num_labels=1"):
        reward_trainer(tiny_classifier("llama", num_labels=2), tmp_path)
    with pytest.raises(ModelError, match="nowhere does not exist"):
        RewardTrainer(
            tmp_path / "nowhere",
            RewardConfig(str(tmp_path), use_cpu=True),
            planted_pairs(2),
            processing_class=tiny_tokenizer(),
        )


# ---- the oracle -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("center", [None, 0.05])
def test_the_loss_is_that_of_trl_where_pad_is_not_the_end_token(center: float | None, tmp_path: Path) -> None:
    import trl

    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.pad_token = "<|endoftext|>"
    model = tiny_classifier("llama", pad_token_id=tokenizer.pad_token_id)
    rows = [{**row, "margin": 0.1 * i} for i, row in enumerate(planted_pairs(6))]
    ours = reward_trainer(model, tmp_path / "ours", rows, processing_class=tokenizer, center_rewards_coefficient=center)
    table = datasets.Dataset.from_list(
        [
            {"chosen_ids": r["chosen_input_ids"], "rejected_ids": r["rejected_input_ids"], "margin": r["margin"]}
            for r in ours.train_dataset
        ]
    )
    settings = trl.RewardConfig(
        str(tmp_path / "trl"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        center_rewards_coefficient=center,
    )
    theirs = trl.RewardTrainer(model, settings, train_dataset=table, processing_class=tokenizer)
    their_loss = theirs.compute_loss(model, dict(theirs.data_collator([table[i] for i in range(len(table))])))
    torch.testing.assert_close(ours.compute_loss(model, one_batch(ours)), their_loss, rtol=1e-5, atol=1e-5)
