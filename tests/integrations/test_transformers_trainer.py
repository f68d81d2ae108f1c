"""A real transformers.Trainer with and without the patch: the same losses, weights and evaluation, and no logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from rlsft.errors import DataError
from rlsft.integrations.transformers import LogitsOnDemand, compute_loss_func, patch_model
from tests.integrations.test_transformers_patch import VOCAB, Sizes, batch
from tests.support.families import family_model


def rows(count: int = 12, length: int | None = None) -> list[dict[str, list[int]]]:
    """Token ids and labels whose labelled counts all differ, so that a mean of means is not the mean."""
    generator = torch.Generator().manual_seed(2)
    examples = []
    for i in range(count):
        ids = torch.randint(3, VOCAB, (length or 5 + i % 4,), generator=generator).tolist()
        examples.append({"input_ids": ids, "labels": [-100] * (1 + i % 3) + ids[1 + i % 3 :]})
    return examples


def pad(examples: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    length = max(len(x["input_ids"]) for x in examples)

    def padded(name: str, value: int) -> Tensor:
        return torch.tensor([x[name] + [value] * (length - len(x[name])) for x in examples])

    mask = torch.tensor([[i < len(x["input_ids"]) for i in range(length)] for x in examples]).long()
    return {"input_ids": padded("input_ids", 2), "labels": padded("labels", -100), "attention_mask": mask}


def train(
    model: Any, folder: Path, *, metrics: bool = False, loss: Any = None, train_rows: Any = None, eval_rows: Any = None,
    **settings: Any,
) -> Trainer:  # fmt: skip
    """Three steps of four rows by two micro-batches, then an evaluation on five rows."""
    arguments = TrainingArguments(
        str(folder),
        **{
            "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "per_device_eval_batch_size": 2,
            "max_steps": 3, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "logging_steps": 1,
            "save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True, **settings,
        },
    )  # fmt: skip
    trainer = Trainer(
        model,
        arguments,
        pad,
        train_rows or rows(),
        eval_rows or rows(5),
        compute_loss_func=loss,
        compute_metrics=accuracy if metrics else None,
    )
    trainer.train()
    trainer.evaluate()
    return trainer


def accuracy(prediction: Any) -> dict[str, float]:
    made, labels = prediction.predictions, prediction.label_ids
    logits = made if not isinstance(made, tuple) else next(x for x in made if x.ndim == 3)  # beside auxiliary losses
    right = logits[:, :-1].argmax(-1) == labels[:, 1:]
    return {"accuracy": float(right[labels[:, 1:] != -100].mean()), "spread": float(logits.std())}


def assert_same_run(ours: Trainer, theirs: Trainer) -> None:
    for a, b in zip(ours.state.log_history, theirs.state.log_history, strict=True):
        names = {k for k in a if "loss" in k or k in ("grad_norm", "eval_accuracy", "eval_spread")}
        assert {k: a[k] for k in names} == pytest.approx({k: b[k] for k in names}, rel=2e-5, abs=1e-6)
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)  # Adam enlarges the rounding of small gradients


@pytest.mark.parametrize("family", ["qwen2", "gemma2-softcap", "mixtral-aux-loss", "gpt2"])
def test_training_and_evaluation_with_metrics(family: str, tmp_path: Path) -> None:
    ours = train(patch_model(family_model(family)), tmp_path, metrics=True)
    theirs = train(family_model(family), tmp_path, metrics=True)
    assert_same_run(ours, theirs)
    assert "eval_accuracy" in ours.state.log_history[-1]


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"label_smoothing_factor": 0.1}, "the Trainer takes the labels away and wants logits"),
        ({"average_tokens_across_devices": False}, "num_items_in_batch of this process"),
        ({"bf16": True}, "accelerate wraps forward in autocast"),
        ({"gradient_checkpointing": True}, "the trunk runs twice, the head once"),
    ],
)
def test_settings_of_the_trainer(settings: dict[str, Any], why: str, tmp_path: Path) -> None:
    ours, theirs = (train(m, tmp_path, **settings) for m in (patch_model(family_model("qwen2")), family_model("qwen2")))
    if "bf16" not in settings:
        assert_same_run(ours, theirs)
        return
    losses = [[row["loss"] for row in t.state.log_history if "loss" in row] for t in (ours, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=5e-3), why


def test_training_and_a_plain_evaluation_make_no_logits(tmp_path: Path) -> None:
    """Of two rows of nine tokens at most 2 * 8 have a label, so a tile of all of them is smaller than the logits."""
    data = {"train_rows": rows(12, length=9), "eval_rows": rows(4, length=9)}
    for bf16 in (False, True):  # accelerate casts what a half-precision forward returns
        with Sizes() as sizes:
            train(patch_model(family_model("qwen2")), tmp_path, bf16=bf16, **data)
        assert 2 * 9 * VOCAB not in sizes.seen
    with Sizes() as sizes:
        train(family_model("qwen2"), tmp_path, **data)
    assert 2 * 9 * VOCAB in sizes.seen  # the check above can fail


def test_micro_batches_and_accumulation_do_not_change_the_step(tmp_path: Path) -> None:
    whole = train(
        patch_model(family_model("qwen2")), tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=1
    )
    parts = train(
        patch_model(family_model("qwen2")), tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    assert_same_run(parts, whole)


def test_compute_loss_func_in_the_trainer(tmp_path: Path) -> None:
    ours = train(family_model("gpt2"), tmp_path, loss=compute_loss_func)
    assert_same_run(ours, train(family_model("gpt2"), tmp_path))


def test_compute_loss_func_takes_dicts_tuples_and_logits_on_demand() -> None:
    inputs = batch()
    model = family_model("qwen2")
    outputs = model(**inputs)
    for form in (outputs, {"logits": outputs.logits}, (outputs.logits,)):
        torch.testing.assert_close(compute_loss_func(form, inputs["labels"]), outputs.loss)
    count = int((inputs["labels"][:, 1:] != -100).sum())
    for normalizer in (2 * count, torch.tensor(2 * count)):
        torch.testing.assert_close(compute_loss_func(outputs, inputs["labels"], normalizer) * 2, outputs.loss)
    lazy = patch_model(model)(**inputs)
    assert isinstance(lazy.logits, LogitsOnDemand)
    torch.testing.assert_close(compute_loss_func(lazy, inputs["labels"]), outputs.loss)
    with pytest.raises(DataError, match="needs labels"):
        compute_loss_func(outputs, None)
