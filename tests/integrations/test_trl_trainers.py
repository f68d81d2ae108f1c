"""TRL's five trainers give the same numbers on our head as on their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rlsft.integrations.trl as bridge
from rlsft.integrations.trl.head_function import FusedHead
from tests.support import trl_runs
from tests.support.models import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # TRL's and peft's own

SELF_TEST = 1  # the call of the patch itself


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The outputs asked for in each call of our head."""
    seen: list[tuple[str, ...]] = []
    apply = FusedHead.apply

    def counted(self: FusedHead, *args: Any) -> Any:
        seen.append(tuple(args[-1]))
        return apply(self, *args)

    monkeypatch.setattr(FusedHead, "apply", counted)
    return seen


def assert_equal_histories(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    assert len(ours) == len(theirs) == trl_runs.STEPS
    for mine, wanted in zip(ours, theirs, strict=True):
        assert mine.keys() == wanted.keys()
        for key, value in wanted.items():
            assert mine[key] == pytest.approx(value, rel=1e-5, abs=1e-5), key


def assert_equal_weights(ours: nn.Module, theirs: nn.Module) -> None:
    wanted = dict(theirs.named_parameters())
    for name, value in ours.named_parameters():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=2e-6, msg=lambda text, name=name: name + text)


# what each asks for, and the forwards of three steps: DPO and KTO score a reference too, KTO its
# mismatched pairs by both, RLOO the policy that drew the answers and the reference
@pytest.mark.parametrize(
    ("name", "family", "num_calls", "changes"),
    [
        ("sft", "gemma2", 3, {}),  # a softcap
        ("sft", "gpt2", 3, {"loss_type": "dft", "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}),
        ("dpo", "llama", 6, {}),
        ("dpo", "qwen2", 6, {"use_weighting": True}),  # an untied head; log_sum_sq_probs
        ("kto", "llama", 12, {}),
        ("grpo", "gemma2", 3, {}),
        ("grpo", "llama", 3, {"top_entropy_quantile": 0.5}),  # the entropy chooses tokens
        ("rloo", "llama", 9, {"gradient_checkpointing": True}),
    ],
)
def test_losses_metrics_and_weights_are_those_of_trl(
    name: str, family: str, num_calls: int, changes: dict[str, Any], tmp_path: Path, calls: list[Any]
) -> None:
    model = trl_runs.saved_model(tmp_path / "model", family)
    make = trl_runs.RUNS[name]
    theirs = make(model, tmp_path / "theirs", **changes)
    expected = trl_runs.history(theirs)
    assert not calls
    with bridge.patched(quiet=True):
        ours = make(model, tmp_path / "ours", **changes)
        found = trl_runs.history(ours)
    accumulated = changes.get("gradient_accumulation_steps", 1)
    assert len(calls) - SELF_TEST == num_calls * accumulated
    assert_equal_histories(found, expected)
    assert_equal_weights(ours.model, theirs.model)
    assert any(row["grad_norm"] > 1e-3 for row in expected)


def test_logits_kept_for_the_backward_change_nothing(tmp_path: Path) -> None:
    model = trl_runs.saved_model(tmp_path / "model", "qwen2")
    expected = trl_runs.history(trl_runs.sft(model, tmp_path / "theirs"))
    with bridge.patched(quiet=True, memory_budget=2**20):
        assert_equal_histories(trl_runs.history(trl_runs.sft(model, tmp_path / "ours")), expected)


def test_bfloat16_trains_alike(tmp_path: Path) -> None:
    """Equal up to the rounding of bfloat16 itself: both products are in it."""
    model = trl_runs.saved_model(tmp_path / "model", "qwen2", dtype=torch.bfloat16)
    expected = trl_runs.history(trl_runs.sft(model, tmp_path / "theirs"))
    with bridge.patched(quiet=True):
        found = trl_runs.history(trl_runs.sft(model, tmp_path / "ours"))
    for mine, wanted in zip(found, expected, strict=True):
        assert mine["loss"] == pytest.approx(wanted["loss"], rel=5e-3)
        assert mine["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=2e-2)


@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_only_labelled_positions_reach_the_head(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL computes the head of prompts and padding as well on a CPU; nobody reads the result."""
    tokens: list[tuple[int, int]] = []  # (rows of the head, labels)
    apply = FusedHead.apply

    def counted(self: FusedHead, hidden: Any, *args: Any) -> Any:
        tokens[-1] = (len(hidden), *tokens[-1][1:])
        return apply(self, hidden, *args)

    monkeypatch.setattr(FusedHead, "apply", counted)
    tokens.append((0, 0))
    with bridge.patched(quiet=True):
        trainer = trl_runs.RUNS[name](trl_runs.saved_model(tmp_path / "model"), tmp_path / "ours")
        forward = trainer.model.forward

        def noted(*args: Any, **inputs: Any) -> Any:
            if inputs.get("fused_lm_head"):
                tokens.append((0, int((inputs["labels"][:, 1:] != -100).sum())))
            return forward(*args, **inputs)

        trainer.model.forward = noted
        trainer.train()
    assert len(tokens) > trl_runs.STEPS
    assert all(rows == labels > 0 for rows, labels in tokens[1:])


def test_a_trainer_made_before_the_patch_uses_our_head_too(tmp_path: Path, calls: list[Any]) -> None:
    model = trl_runs.saved_model(tmp_path / "model")
    expected = trl_runs.history(trl_runs.sft(model, tmp_path / "theirs"))
    trainer = trl_runs.sft(model, tmp_path / "ours")
    with bridge.patched(quiet=True):
        found = trl_runs.history(trainer)
    assert len(calls) - SELF_TEST == trl_runs.STEPS
    assert_equal_histories(found, expected)


def test_what_needs_full_logits_stays_trls(tmp_path: Path, calls: list[Any]) -> None:
    """A `compute_loss_func` gets full logits from TRL; our head then gives the metrics alone."""

    def loss_func(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        return nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())

    model = trl_runs.saved_model(tmp_path / "model")
    expected = trl_runs.history(trl_runs.sft(model, tmp_path / "theirs", compute_loss_func=loss_func))
    with bridge.patched(quiet=True):
        found = trl_runs.history(trl_runs.sft(model, tmp_path / "ours", compute_loss_func=loss_func))
    assert len(calls) - SELF_TEST == trl_runs.STEPS
    assert_equal_histories(found, expected)


@pytest.mark.parametrize("kind", ["lora", "modules_to_save", "prompt_tuning"])
@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_adapters_train_alike(name: str, kind: str, tmp_path: Path) -> None:
    from peft import LoraConfig, PromptTuningConfig

    def adapter() -> Any:
        if kind == "prompt_tuning":
            return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        saved = ["lm_head"] if kind == "modules_to_save" else None
        return LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], modules_to_save=saved)

    model = trl_runs.saved_model(tmp_path / "model", "qwen2")
    make = trl_runs.RUNS[name]
    settings = {"learning_rate": 2.0}  # or the rewards of DPO stay so near to 0 that rounding decides which is larger
    theirs = make(model, tmp_path / "theirs", peft_config=adapter(), **settings)
    expected = trl_runs.history(theirs)
    with bridge.patched(quiet=True):
        ours = make(model, tmp_path / "ours", peft_config=adapter(), **settings)
        found = trl_runs.history(ours)
    assert_equal_histories(found, expected)
    assert_equal_weights(ours.model, theirs.model)


@pytest.mark.parametrize("name", list(trl_runs.RUNS))
def test_trl_refuses_a_lora_adapter_on_the_head_under_the_patch_as_well(name: str, tmp_path: Path) -> None:
    """Its head reads the base weight alone, so an adapter there would never be trained."""
    from peft import LoraConfig

    model = trl_runs.saved_model(tmp_path / "model", "qwen2")
    adapter = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "lm_head"])
    with bridge.patched(quiet=True), pytest.raises(ValueError, match="adapter to `lm_head` is not supported"):
        trl_runs.RUNS[name](model, tmp_path / "ours", peft_config=adapter)


def test_fsdp2_heads_are_gathered_once_and_give_the_same_gradients(tmp_path: Path) -> None:
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, init_device_mesh
    from trl.trainer import add_fused_lm_head

    ids = torch.randint(3, 400, (2, 9), generator=torch.Generator().manual_seed(0))
    store = dist.FileStore(str(tmp_path / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        found = []
        for is_ours in (False, True):
            model = tiny_model("qwen2")
            add_fused_lm_head(model, outputs=("log_probs", "entropy"))
            fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
            assert isinstance(model.lm_head.weight, DTensor)
            if is_ours:
                bridge.patch(quiet=True)
            out = model(input_ids=ids, labels=ids, fused_lm_head=True)
            (out.loss + 0.1 * out.entropy.mean()).backward()
            found.append({name: p.grad.full_tensor() for name, p in model.named_parameters()})
    finally:
        bridge.unpatch()
        dist.destroy_process_group()
    for name, wanted in found[0].items():
        torch.testing.assert_close(found[1][name], wanted, rtol=1e-4, atol=1e-7, msg=name)
