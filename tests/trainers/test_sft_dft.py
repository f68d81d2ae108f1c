"""Dynamic fine-tuning: each token's loss times its own probability, against the plain formula and TRL's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor

from rlsft.errors import ConfigError
from tests.support.models import FAMILIES, tiny_model, tiny_tokenizer
from tests.support.training import gradients, logged, sft_settings, sft_trainer
from tests.trainers.test_sft import one_batch, still_model


def plain_dft(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """`-sum sg(p) log p / n` from full logits, row by row without padding."""
    total, count = torch.zeros(()), 0
    for ids, mask, completion in zip(
        *(batch[n] for n in ("input_ids", "attention_mask", "completion_mask")), strict=True
    ):
        ids, kept = ids[mask.bool()], completion[mask.bool()][1:]
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1][kept]
        logprob = logits.log_softmax(-1).gather(-1, ids[1:][kept][:, None])[:, 0]
        total = total - (logprob.exp().detach() * logprob).sum()
        count += int(kept.sum())
    return total / count


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_the_formula(family: str, tmp_path: Path) -> None:
    model = still_model(family, seed=3, initializer_range=0.3).train()
    trainer = sft_trainer(model, tmp_path, loss_type="dft")
    batch = one_batch(trainer)
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    ours = gradients(model)
    model.zero_grad()
    expected = plain_dft(model, batch)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-7)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.filterwarnings("ignore")
def test_the_loss_is_that_of_trl(tmp_path: Path) -> None:
    import trl

    model = tiny_model("llama", seed=3, initializer_range=0.3)
    ours = sft_trainer(model, tmp_path / "ours", loss_type="dft")
    rows = datasets.Dataset.from_list([dict(row) for row in ours.train_dataset])
    settings = trl.SFTConfig(
        str(tmp_path / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, per_device_train_batch_size=8,
        report_to="none", save_strategy="no", max_length=128, completion_only_loss=True, loss_type="dft",
    )  # fmt: skip
    theirs = trl.SFTTrainer(model, settings, train_dataset=rows, processing_class=tiny_tokenizer())
    their_batch = theirs.data_collator([theirs.train_dataset[i] for i in range(len(rows))])
    their_loss = theirs.compute_loss(model, dict(their_batch))
    torch.testing.assert_close(ours.compute_loss(model, one_batch(ours)), their_loss, rtol=1e-4, atol=1e-7)


def test_micro_batches_change_nothing_and_the_rows_say_the_cross_entropy_too(tmp_path: Path) -> None:
    whole, cut = (
        sft_trainer(tiny_model("llama", seed=1), tmp_path / str(size), loss_type="dft", max_steps=2,
                    per_device_train_batch_size=size, gradient_accumulation_steps=8 // size)
        for size in (8, 2)
    )  # fmt: skip
    plain = sft_trainer(tiny_model("llama", seed=1), tmp_path / "nll", max_steps=1)
    for trainer in (whole, cut, plain):
        trainer.train()
    assert logged(whole, "loss") == pytest.approx(logged(cut, "loss"), abs=1e-6)
    assert logged(whole, "nll")[0] == pytest.approx(logged(plain, "loss")[0], abs=1e-5)
    assert logged(whole, "loss")[0] < 0.1 * logged(whole, "nll")[0]  # random weights: p is about 1 / 400
    assert not logged(plain, "nll")


def test_eval_loss_stays_the_cross_entropy(tmp_path: Path) -> None:
    model = tiny_model("llama", seed=1)
    rows = [{"prompt": "Hello!", "completion": "I am fine."}]
    losses = [
        sft_trainer(model, tmp_path / kind, loss_type=kind, eval_dataset=rows).evaluate()["eval_loss"]
        for kind in ("nll", "dft")
    ]
    assert losses[0] == losses[1] > 1


def test_another_loss_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss_type must be .*nll.*dft.* got 'focal'"):
        sft_settings(tmp_path, loss_type="focal")
