"""SFT: it learns, the loss is the textbook one, and how a step is cut up changes nothing."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from rlsft.errors import ConfigError, DataError, ModelError, RunError
from rlsft.trainers.base import last_checkpoint
from rlsft.trainers.sft import SFTConfig, SFTTrainer, trained_tokens
from tests.support.models import FAMILIES, tiny_model, tiny_tokenizer
from tests.support.training import demonstrations, equal_parameters, gradients, logged, sft_trainer

EOS = 2


def still_model(family: str, **changes: Any) -> Any:
    """Without the dropout that GPT-2 has by default."""
    off = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0) if family == "gpt2" else {}
    return tiny_model(family, **off, **changes)


def one_batch(trainer: SFTTrainer) -> dict[str, Tensor]:
    return trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])


def textbook_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy of the completion tokens from full logits, row by row without padding."""
    total, count = torch.zeros(()), 0
    for ids, mask, completion in zip(
        *(batch[n] for n in ("input_ids", "attention_mask", "completion_mask")), strict=True
    ):
        ids, completion = ids[mask.bool()], completion[mask.bool()]
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        kept = completion[1:]
        total = total + F.cross_entropy(logits[:-1][kept], ids[1:][kept], reduction="sum")
        count += int(kept.sum())
    return total / count


# ---- it learns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_memorises_eight_demonstrations_and_stops_where_they_stop(family: str, tmp_path: Path) -> None:
    model = still_model(family)
    trainer = sft_trainer(model, tmp_path, max_steps=120, learning_rate=1e-2, lr_scheduler_type="linear")
    trainer.train()
    assert logged(trainer, "loss")[-1] < 0.05
    assert logged(trainer, "mean_token_accuracy")[-1] == 1.0
    row = trainer.train_dataset[4]
    length = row["completion_mask"].index(True)
    prompt = torch.tensor([row["input_ids"][:length]])
    written = model.eval().generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=60,
        eos_token_id=EOS,
        pad_token_id=EOS,
    )
    assert written[0].tolist() == row["input_ids"]  # the end token is the last one: it was learnt


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_full_logits(family: str, tmp_path: Path) -> None:
    model = still_model(family, seed=3).train()
    trainer = sft_trainer(model, tmp_path)
    batch = one_batch(trainer)
    loss = trainer.compute_loss(model, batch)
    loss.backward()
    ours = gradients(model)
    model.zero_grad()
    expected = textbook_loss(model, batch)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5, msg=name)


class LargestTensor(TorchDispatchMode):
    """Watches every tensor that an operation creates."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(item, Tensor):
                self.numel = max(self.numel, item.numel())
        return out


def test_logits_of_all_positions_are_never_built(tmp_path: Path) -> None:
    model = tiny_model("llama").train()
    rows = [{"prompt": "Hello there! " * 9, "completion": f"Yes {i}."} for i in range(8)]
    trainer = sft_trainer(model, tmp_path, rows)
    batch = one_batch(trainer)
    with LargestTensor() as watch:
        trainer.compute_loss(model, batch).backward()
    assert watch.numel < batch["input_ids"].numel() * model.config.vocab_size / 2
    with LargestTensor() as full:
        model(batch["input_ids"])
    assert full.numel >= batch["input_ids"].numel() * model.config.vocab_size  # the watch does see such tensors


# ---- what is trained --------------------------------------------------------------------------------------


def test_end_token_is_trained_although_it_is_the_pad_token(tmp_path: Path) -> None:
    trainer = sft_trainer(tiny_model("llama"), tmp_path)
    assert trainer.processing_class.pad_token_id == trainer.processing_class.eos_token_id == EOS
    batch = one_batch(trainer)
    trained = trained_tokens(batch)
    assert batch["attention_mask"].sum() < batch["attention_mask"].numel()  # there is padding
    assert (batch["input_ids"][trained] == EOS).sum() == len(batch["input_ids"])
    assert not (trained & ~batch["attention_mask"].bool()).any()


def test_completion_only_by_default_and_everything_on_request(tmp_path: Path) -> None:
    rows = demonstrations(2)
    some = one_batch(sft_trainer(tiny_model("llama"), tmp_path, rows))
    everything = one_batch(sft_trainer(tiny_model("llama"), tmp_path, rows, completion_only_loss=False))
    decode = tiny_tokenizer().decode
    assert decode(some["input_ids"][0][trained_tokens(some)[0]]) == rows[0]["completion"] + "<|im_end|>"
    assert torch.equal(
        trained_tokens(everything).sum(dim=1), everything["attention_mask"].sum(dim=1) - 1
    )  # all but the first


def test_chat_and_text_rows_train_too(tmp_path: Path) -> None:
    chat = [{"messages": [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "I am fine."}]}]
    flat = [{"prompt": "Hello!", "completion": "I am fine."}]
    first, second = (one_batch(sft_trainer(tiny_model("llama"), tmp_path, rows)) for rows in (chat, flat))
    assert torch.equal(first["input_ids"], second["input_ids"])
    assert torch.equal(trained_tokens(first), trained_tokens(second))
    text = one_batch(
        sft_trainer(tiny_model("llama"), tmp_path, datasets.Dataset.from_list([{"text": "Hello! How are you?"}]))
    )
    assert trained_tokens(text).sum() == text["input_ids"].shape[1] - 1


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("completion_only", [True, False])
def test_left_padding_equals_right_padding(family: str, completion_only: bool, tmp_path: Path) -> None:
    results = []
    for side in ("right", "left"):
        model = still_model(family).train()
        trainer = sft_trainer(model, tmp_path, padding_side=side, completion_only_loss=completion_only)
        batch = one_batch(trainer)
        assert (batch["attention_mask"][:, 0] == 0).any() == (side == "left")
        loss = trainer.compute_loss(model, batch)
        loss.backward()
        results.append((loss.detach(), gradients(model)))
    (right, right_grads), (left, left_grads) = results
    torch.testing.assert_close(left, right, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(left_grads, right_grads, rtol=1e-4, atol=1e-5)


# ---- how a step is cut up ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 2), (2, 4), (3, 3)])
def test_micro_batches_change_neither_loss_nor_gradient_norm(
    batch_size: int, accumulation: int, tmp_path: Path
) -> None:
    whole = sft_trainer(still_model("gpt2"), tmp_path)
    cut = sft_trainer(
        still_model("gpt2"),
        tmp_path,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulation,
    )
    whole.train()
    cut.train()
    assert len(logged(whole, "loss")) == 3
    np.testing.assert_allclose(logged(cut, "loss"), logged(whole, "loss"), rtol=1e-6)
    np.testing.assert_allclose(logged(cut, "grad_norm"), logged(whole, "grad_norm"), rtol=5e-6)
    for name in ("entropy", "mean_token_accuracy", "num_tokens"):
        np.testing.assert_allclose(logged(cut, name), logged(whole, name), rtol=1e-5)


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain, checkpointed = tiny_model("llama"), tiny_model("llama")
    sft_trainer(plain, tmp_path).train()
    trainer = sft_trainer(checkpointed, tmp_path, gradient_checkpointing=True)
    trainer.train()
    assert checkpointed.is_gradient_checkpointing
    assert equal_parameters(plain, checkpointed)


# ---- adapters and types -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_lora_trains_the_adapter_alone(family: str, checkpointing: bool, tmp_path: Path) -> None:
    from peft import PeftModel

    base = tiny_model(family)
    trainer = sft_trainer(
        base, tmp_path, use_peft=True, lora_r=4, lora_dropout=0.0, learning_rate=2e-2, max_steps=15,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    trainer.train()
    losses = logged(trainer, "loss")
    assert losses[-1] < losses[0] - 0.1
    frozen = {
        n.replace(".base_layer", ""): p
        for n, p in trainer.model.get_base_model().named_parameters()
        if "lora_" not in n
    }
    original = dict(tiny_model(family).named_parameters())
    assert frozen.keys() == original.keys()
    assert all(torch.equal(frozen[name], original[name]) for name in original)
    trainer.save_model()
    reloaded = PeftModel.from_pretrained(tiny_model(family), tmp_path)
    ids = torch.tensor([[1, 5, 9]])
    torch.testing.assert_close(reloaded(ids).logits, trainer.model.eval()(ids).logits)


def test_peft_config_may_be_a_mapping_and_clashes_with_an_adapter(tmp_path: Path) -> None:
    trainer = sft_trainer(tiny_model("llama"), tmp_path, peft_config={"r": 2, "target_modules": ["q_proj"]})
    assert {n.split(".")[-4] for n, p in trainer.model.named_parameters() if p.requires_grad} == {"q_proj"}
    with pytest.raises(ConfigError, match="peft_config was given for a model that carries an adapter already"):
        sft_trainer(trainer.model, tmp_path, peft_config={"r": 2})


def test_bfloat16_weights_train(tmp_path: Path) -> None:
    model = tiny_model("llama", dtype=torch.bfloat16)
    trainer = sft_trainer(model, tmp_path, use_peft=True, lora_dropout=0.0, learning_rate=2e-2, max_steps=15)
    trainer.train()
    assert logged(trainer, "loss")[-1] < logged(trainer, "loss")[0] - 0.1
    assert {p.dtype for n, p in trainer.model.named_parameters() if "lora_" not in n} == {torch.bfloat16}


def test_bf16_mixed_precision_stays_close_to_float32(tmp_path: Path) -> None:
    exact, mixed = (sft_trainer(tiny_model("llama"), tmp_path, bf16=bf16, max_steps=2) for bf16 in (False, True))
    exact.train()
    mixed.train()
    np.testing.assert_allclose(logged(mixed, "loss"), logged(exact, "loss"), rtol=2e-2)
    assert logged(mixed, "loss") != logged(exact, "loss")
    assert {p.dtype for p in mixed.model.parameters()} == {torch.float32}


def test_dropout_goes_when_asked(tmp_path: Path) -> None:
    model = tiny_model("llama", attention_dropout=0.5).train()
    batch = one_batch(sft_trainer(model, tmp_path))
    noisy = sft_trainer(model, tmp_path)
    assert noisy.compute_loss(model, batch) != noisy.compute_loss(model, batch)
    still = sft_trainer(model, tmp_path, disable_dropout=True)
    assert still.compute_loss(model.train(), batch) == still.compute_loss(model, batch)


# ---- the same again ---------------------------------------------------------------------------------------


def noisy_model() -> nn.Module:
    """With dropout on, a resume is exact only if the random state comes back too."""
    return tiny_model("llama", attention_dropout=0.2)


def test_same_seed_gives_the_same_bits_and_another_seed_other_ones(tmp_path: Path) -> None:
    models = [noisy_model() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        sft_trainer(model, tmp_path, seed=seed, per_device_train_batch_size=2).train()
    assert equal_parameters(models[0], models[1])
    assert not equal_parameters(models[0], models[2])


def test_a_new_adapter_depends_on_the_seed_alone(tmp_path: Path) -> None:
    adapters = []
    for seed in (1, 1, 2):
        model = tiny_model("llama")
        torch.rand(len(adapters) + 1)  # whatever ran before
        adapters.append(sft_trainer(model, tmp_path, use_peft=True, seed=seed).model)
    assert equal_parameters(adapters[0], adapters[1])
    assert not equal_parameters(adapters[0], adapters[2])


RESUMABLE: dict[str, Any] = {
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 6, "lr_scheduler_type": "linear",
    "save_strategy": "steps", "save_steps": 3,
}  # fmt: skip


@pytest.mark.parametrize("lora", [False, True])
def test_three_steps_and_three_more_equal_six(lora: bool, tmp_path: Path) -> None:
    rows = demonstrations(10)  # a step has four rows: the cut falls inside the second epoch
    whole = sft_trainer(noisy_model(), tmp_path / "whole", rows, use_peft=lora, **RESUMABLE)
    whole.train()
    resumed = sft_trainer(noisy_model(), tmp_path / "resumed", rows, use_peft=lora, **RESUMABLE)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert equal_parameters(whole.model, resumed.model)
    assert logged(resumed, "num_tokens") == logged(whole, "num_tokens")
    assert logged(resumed, "loss") == logged(whole, "loss")


class SignalAt(TrainerCallback):
    """Sends a signal in the middle of one step, as a Ctrl-C would come."""

    def __init__(self, step: int):
        self.step = step

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        import os
        import signal

        if state.global_step == self.step - 1:
            os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_leaves_a_run_that_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    settings = {**RESUMABLE, "save_strategy": "no"}
    whole = sft_trainer(noisy_model(), tmp_path / "whole", **settings)
    whole.train()
    stopped = sft_trainer(noisy_model(), tmp_path / "run", callbacks=[SignalAt(4)], **settings)
    with pytest.raises(RunError, match=r"interrupted after step 4; everything is saved in .*checkpoint-4"):
        stopped.train()
    resumed = sft_trainer(noisy_model(), tmp_path / "run", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert equal_parameters(whole.model, resumed.model)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]


# ---- evaluation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_eval_loss_is_a_mean_over_tokens_whatever_the_batch(batch_size: int, tmp_path: Path) -> None:
    model = tiny_model("qwen2", seed=5)
    trainer = sft_trainer(model, tmp_path, eval_dataset=demonstrations(), per_device_eval_batch_size=batch_size)
    metrics = trainer.evaluate()
    with torch.no_grad():
        expected = textbook_loss(model, one_batch(trainer)).item()
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-6)
    assert metrics["eval_perplexity"] == pytest.approx(np.exp(expected), rel=1e-5)
    assert 0 <= metrics["eval_mean_token_accuracy"] <= 1
    assert 0 < metrics["eval_entropy"] <= np.log(400) + 1e-6


def test_several_eval_sets_and_own_metrics(tmp_path: Path) -> None:
    def own(prediction: Any) -> dict[str, float]:
        kept = prediction.label_ids != -100
        return {"nll": float(-prediction.predictions[kept].mean())}

    trainer = sft_trainer(
        tiny_model("llama"),
        tmp_path,
        eval_dataset={"a": demonstrations(3), "b": demonstrations(5)},
        compute_metrics=own,
    )
    metrics = trainer.evaluate()
    for name in ("a", "b"):
        assert metrics[f"eval_{name}_nll"] == pytest.approx(metrics[f"eval_{name}_loss"], rel=1e-5)
    assert metrics["eval_a_loss"] != metrics["eval_b_loss"]


def test_best_model_by_held_out_loss_comes_back(tmp_path: Path) -> None:
    trainer = sft_trainer(
        tiny_model("llama"), tmp_path, eval_dataset=demonstrations(3), max_steps=8, learning_rate=0.3,
        eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, save_total_limit=2,
        load_best_model_at_end=True, early_stopping_patience=2,
    )  # fmt: skip
    trainer.train()
    losses = logged(trainer, "eval_loss")
    assert len(losses) < 8  # such a learning rate makes things worse, and waiting ends early
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-6)


# ---- what is written --------------------------------------------------------------------------------------


def test_metrics_file_has_the_usual_names_and_the_folder_loads(tmp_path: Path) -> None:
    model = tiny_model("llama")
    trainer = sft_trainer(model, tmp_path, eval_dataset=demonstrations(2), eval_strategy="steps", eval_steps=3)
    trainer.train()
    trainer.save_model()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    wanted = {
        "stage",
        "step",
        "time",
        "loss",
        "grad_norm",
        "learning_rate",
        "entropy",
        "mean_token_accuracy",
        "num_tokens",
        "epoch",
    }
    assert wanted <= rows[0].keys()
    assert any("eval_loss" in row for row in rows)
    assert rows[1]["num_tokens"] == 2 * rows[0]["num_tokens"] > 0
    ids = torch.tensor([[1, 5, 9]])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(ids).logits, model.eval()(ids).logits)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == tiny_tokenizer().chat_template


def test_trains_from_a_folder_and_finds_its_tokenizer(tmp_path: Path) -> None:
    tiny_model("gpt2", dtype=torch.bfloat16).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    trainer = SFTTrainer(tmp_path / "model", SFTConfig(str(tmp_path), use_cpu=True), demonstrations())
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert trainer.processing_class.pad_token_id == EOS


def test_a_bad_batch_is_skipped_counted_and_dumped(tmp_path: Path) -> None:
    class PoisonedTrainer(SFTTrainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            if self.state.global_step == 1:
                self.before = [p.detach().clone() for p in self.model.parameters()]
                return loss * float("nan")
            if self.state.global_step == 2:
                self.after = [p.detach().clone() for p in self.model.parameters()]
            return loss

    donor = sft_trainer(tiny_model("llama"), tmp_path)
    trainer = PoisonedTrainer(tiny_model("llama"), donor.args, demonstrations(), processing_class=tiny_tokenizer())
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(trainer.before, trainer.after, strict=True))
    assert logged(trainer, "nonfinite_steps") == [1, 1, 1]  # steps 2 and 3, and the summary
    (dump,) = (tmp_path / "debug").glob("nonfinite_step_2_*.jsonl")
    assert "weekend" in dump.read_text()
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


# ---- messages ---------------------------------------------------------------------------------------------


def test_wrong_rows_are_named_by_their_number(tmp_path: Path) -> None:
    rows = [*demonstrations(2), {"prompt": "Hello?", "completion": ""}]
    with pytest.raises(DataError, match="train_dataset, row 3: column 'completion' is empty"):
        sft_trainer(tiny_model("llama"), tmp_path, rows)
    with pytest.raises(DataError, match="train_dataset has no rows"):
        sft_trainer(tiny_model("llama"), tmp_path, [])
    with pytest.raises(
        DataError, match=r"train_dataset must be one datasets.Dataset or a list of rows, got a DatasetDict"
    ):
        sft_trainer(tiny_model("llama"), tmp_path, datasets.DatasetDict())
    with pytest.raises(DataError, match="eval_dataset, row 1: row has no demonstration: its columns are 'question'"):
        sft_trainer(tiny_model("llama"), tmp_path, eval_dataset=[{"question": "?"}])


def test_a_prompt_longer_than_the_context_is_an_error_or_cut(tmp_path: Path) -> None:
    rows = [{"prompt": "Hello! " * 400, "completion": "Yes."}]
    with pytest.raises(DataError, match=r"row 1: prompt has .* tokens, which leaves no room .* max_length=256"):
        sft_trainer(tiny_model("gpt2"), tmp_path, rows, max_length=None)  # the model has 256 positions
    batch = one_batch(sft_trainer(tiny_model("gpt2"), tmp_path, rows, max_length=None, truncate_prompt=True))
    assert batch["input_ids"].shape == (1, 256)


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="processing_class is missing"):
        SFTTrainer(tiny_model("llama"), SFTConfig(str(tmp_path), use_cpu=True), demonstrations())
    with pytest.raises(ModelError, match="does not exist"):
        SFTTrainer(tmp_path / "nowhere", SFTConfig(str(tmp_path), use_cpu=True), demonstrations())
    trainer = sft_trainer(tiny_model("llama"), tmp_path)
    with pytest.raises(RunError, match=r"resume_from_checkpoint=True, but .* holds no whole checkpoint-N folder"):
        trainer.train(resume_from_checkpoint=True)
    with pytest.raises(RunError, match="resume_from_checkpoint must be a checkpoint-N folder"):
        trainer.train(resume_from_checkpoint=str(tmp_path))


def test_a_checkpoint_cut_off_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    for step, is_whole in ((3, True), (9, True), (12, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if is_whole:
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert last_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_says_so(failure: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = sft_trainer(tiny_model("llama"), tmp_path, save_strategy="steps", save_steps=2)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise failure

    monkeypatch.setattr(trainer, "_save", fail)
    with pytest.raises(RunError, match=r"no space left on the disk while writing under .*resume_from_checkpoint=True"):
        trainer.train()


# ---- the oracle -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_loss_is_that_of_trl(family: str, tmp_path: Path) -> None:
    import trl

    model = still_model(family, seed=2)
    ours = sft_trainer(model, tmp_path / "ours")
    batch = one_batch(ours)
    rows = datasets.Dataset.from_list([dict(row) for row in ours.train_dataset])
    settings = trl.SFTConfig(
        str(tmp_path / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, per_device_train_batch_size=8,
        report_to="none", save_strategy="no", max_length=128, completion_only_loss=True,
    )  # fmt: skip
    theirs = trl.SFTTrainer(model, settings, train_dataset=rows, processing_class=tiny_tokenizer())
    their_batch = theirs.data_collator([theirs.train_dataset[i] for i in range(len(rows))])
    assert torch.equal(their_batch["input_ids"], batch["input_ids"])
    their_loss = theirs.compute_loss(model, dict(their_batch))
    our_loss = ours.compute_loss(model, batch)
    torch.testing.assert_close(our_loss, their_loss, rtol=1e-5, atol=1e-5)


def test_row_weights_multiply_the_loss_and_nothing_else(tmp_path: Path) -> None:
    rows = demonstrations(3)
    weights = (0.0, 0.5, 2.0)
    weighted = [{**row, "weight": weight} for row, weight in zip(rows, weights, strict=True)]
    losses, tokens = [], []
    for row in rows:
        trainer = sft_trainer(tiny_model(), tmp_path / "one", [row])
        batch = next(iter(trainer.get_train_dataloader()))
        count = int(trainer.count_items(batch)[0])
        losses.append(float(trainer.compute_loss(trainer.model, batch).detach()) * count)
        tokens.append(count)
    expected = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(tokens)
    trainer = sft_trainer(tiny_model(), tmp_path / "all", weighted, eval_dataset=weighted)
    batch = next(iter(trainer.get_train_dataloader()))
    assert float(trainer.compute_loss(trainer.model, batch).detach()) == pytest.approx(expected, rel=1e-5)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(sum(losses) / sum(tokens), rel=1e-5)


def test_a_row_without_weight_is_not_trained_and_ones_change_nothing(tmp_path: Path) -> None:
    rows = demonstrations(8)
    ones = [{**row, "weight": 1.0} for row in rows]
    plain = sft_trainer(tiny_model(), tmp_path / "plain", rows)
    weighted = sft_trainer(tiny_model(), tmp_path / "ones", ones, per_device_train_batch_size=2,
                           gradient_accumulation_steps=4)  # fmt: skip
    for trainer in (plain, weighted):
        trainer.train()
    assert logged(plain, "loss") == pytest.approx(logged(weighted, "loss"), rel=1e-5)
    zeros = sft_trainer(tiny_model(), tmp_path / "zeros", [{**row, "weight": 0.0} for row in rows], weight_decay=0.0)
    before = {name: p.detach().clone() for name, p in zeros.model.named_parameters()}
    zeros.train()
    assert all(torch.equal(p, before[name]) for name, p in zeros.model.named_parameters())
