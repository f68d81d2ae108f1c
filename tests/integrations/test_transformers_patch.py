"""patch_model: every family's loss, gradients, logits and generation are those of the unpatched model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    LlamaForCausalLM,
    T5Config,
)

from rlsft.errors import ModelError
from rlsft.integrations.transformers import LogitsOnDemand, is_patched, patch_model, unpatch_model
from rlsft.models import add_lora
from tests.support.families import FAMILIES, family_model
from tests.support.models import tiny_config

VOCAB = 96


def batch(rows: int = 3, length: int = 7) -> dict[str, Tensor]:
    """Rows of uneven length padded on the right, prompts without labels."""
    ids = torch.randint(3, VOCAB, (rows, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    labels = ids.clone()
    for row in range(rows):
        labels[row, : row + 1] = -100
        mask[row, length - row :] = 0
    labels[mask == 0] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def loss_and_gradients(model: Any, **extra: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(**batch(), **extra).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_training(model: Any, reference: Any, **extra: Any) -> None:
    expected, expected_gradients = loss_and_gradients(reference, **extra)
    loss, gradients = loss_and_gradients(model, **extra)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected_gradients[name], atol=1e-5, rtol=1e-5, msg=name)


class Sizes(TorchDispatchMode):
    """The sizes of all tensors that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen |= {x.numel() for x in torch.utils._pytree.tree_leaves(out) if isinstance(x, Tensor)}
        return out


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_gradients_logits_and_generation_are_those_of_the_family(family: str) -> None:
    model, reference = patch_model(family_model(family)), family_model(family)
    assert_equal_training(model, reference)
    assert_equal_training(model, reference, num_items_in_batch=torch.tensor(29))
    model.eval(), reference.eval()
    with torch.no_grad():
        ours, theirs = model(**batch()), reference(**batch())
    torch.testing.assert_close(ours.loss, theirs.loss, atol=1e-5, rtol=1e-5)
    assert isinstance(ours.logits, LogitsOnDemand)
    assert not ours.logits.is_made
    torch.testing.assert_close(ours.logits.tensor(), theirs.logits, atol=1e-5, rtol=1e-5)
    prompt = {k: v[:, :4] for k, v in batch(1).items() if k != "labels"}
    drawn = [m.generate(**prompt, max_new_tokens=4, do_sample=False) for m in (model, reference)]  # type: ignore[operator]
    assert torch.equal(*drawn)


def test_labelled_calls_make_no_logits() -> None:
    inputs = batch(rows=3, length=7)
    model = patch_model(family_model("qwen2"))
    with Sizes() as sizes:
        model(**inputs).loss.backward()
        with torch.no_grad():
            outputs = model.eval()(**inputs)
    assert 3 * 7 * VOCAB not in sizes.seen
    assert 3 * 6 * VOCAB not in sizes.seen
    with Sizes() as sizes:
        outputs.logits.argmax(-1)
    assert 3 * 7 * VOCAB in sizes.seen


def test_shift_labels_and_a_step_with_nothing_to_learn() -> None:
    model, reference = patch_model(family_model("qwen2")), family_model("qwen2")
    inputs = batch()
    shifted = nn.functional.pad(inputs["labels"], (0, 1), value=-100)[:, 1:].contiguous()
    torch.testing.assert_close(model(**inputs, shift_labels=shifted).loss, reference(**inputs).loss)
    nothing = {**inputs, "labels": torch.full_like(inputs["labels"], -100)}
    loss = model(**nothing).loss
    assert loss.item() == 0.0  # the plain model gives NaN here
    loss.backward()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"skip_logits": False}, "somebody wants them now"),
        ({"return_dict": False}, "a tuple has no name to put them under"),
        ({"labels": None}, "label smoothing, generation"),
    ],
)
def test_calls_that_want_logits_get_them(arguments: dict[str, Any], why: str) -> None:
    model, reference = patch_model(family_model("gemma2-softcap")), family_model("gemma2-softcap")
    ours = model(**{**batch(), **arguments})
    theirs = reference(**{**batch(), **{k: v for k, v in arguments.items() if k != "skip_logits"}})
    at = 0 if arguments.get("return_dict", True) and "labels" in arguments else 1
    assert isinstance(ours[at], Tensor), why
    torch.testing.assert_close(ours[at], theirs[at])


def test_skip_logits_leaves_the_field_out() -> None:
    assert "logits" not in patch_model(family_model("qwen2"))(**batch(), skip_logits=True)


def test_logits_on_demand_act_as_the_tensor_and_carry_gradients() -> None:
    model, reference = patch_model(family_model("cohere-scale")), family_model("cohere-scale")
    ours, theirs = model(**batch()).logits, reference(**batch()).logits
    assert ours.shape == theirs.shape
    assert (ours.ndim, ours.device, len(ours)) == (theirs.ndim, theirs.device, len(theirs))
    assert ours.dtype == theirs.dtype
    assert ours.float().dtype == torch.float32
    assert ours.to(torch.float64).dtype == torch.float64
    assert "made=False" in repr(ours)
    torch.testing.assert_close(ours.double().sum(), theirs.double().sum())
    for ask in (
        lambda x: x[..., :-1, :].sum(),
        lambda x: torch.log_softmax(x, dim=-1)[0, 0, 5],
        lambda x: (2 * x - x / 4).mean(),
        lambda x: torch.stack(list(x)).sum(),
        lambda x: (x.detach() > 0).float().mean(),
    ):
        torch.testing.assert_close(ask(ours), ask(theirs))
    ours.square().mean().backward()
    theirs.square().mean().backward()
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = model.eval()(**batch()).logits
    assert low.detach().dtype == torch.bfloat16
    assert not low.tensor().requires_grad


def test_unpatch_gives_the_old_classes_back_and_patching_twice_is_patching_once() -> None:
    model: Any = family_model("qwen2")
    classes = type(model), type(model.lm_head)
    patch_model(patch_model(model))
    assert is_patched(model)
    assert type(model).__mro__.count(classes[0]) == 1
    assert type(model).__mro__[2] is classes[0]
    unpatch_model(model)
    assert (type(model), type(model.lm_head)) == classes
    assert not is_patched(model)
    assert isinstance(unpatch_model(model)(**batch()).logits, Tensor)
    assert not {name for name in vars(model) if "rlsft" in name}


def test_a_copy_uses_its_own_weights() -> None:
    model = patch_model(family_model("qwen2"))
    other = copy.deepcopy(model)
    other.lm_head.weight.data.zero_()  # type: ignore[union-attr]
    assert abs(other(**batch()).loss.item() - torch.tensor(float(VOCAB)).log().item()) < 1e-5
    assert_equal_training(model, family_model("qwen2"))


def test_what_is_saved_is_the_plain_model(tmp_path: Path) -> None:
    model: Any = patch_model(family_model("gpt-neox"))
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.architectures == ["GPTNeoXForCausalLM"]
    assert_equal_training(model, loaded.train())


def test_a_loss_of_the_users_own_keeps_its_logits() -> None:
    model: Any = patch_model(family_model("qwen2"))
    model.loss_function = lambda logits, labels, vocab_size, **_: logits.sum() * 0 + 7.0
    assert model(**batch()).loss.item() == 7.0
    with pytest.raises(ModelError, match="loss function other than"):
        patch_model(model)


def lora_model(patched_first: bool = False, **options: Any) -> Any:
    model = family_model("qwen2")
    model = patch_model(model) if patched_first else model
    torch.manual_seed(3)
    lora: Any = add_lora(model, {"r": 2, "lora_alpha": 3, **options})
    for name, p in lora.named_parameters():
        if "lora_B" in name:
            p.data.normal_(std=0.1)
    return lora.train()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"target_modules": ["q_proj"]}, "adapters in the trunk, a frozen head"),
        ({"target_modules": ["q_proj", "lm_head"]}, "an adapter on the head"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, "a trained copy of the head"),
    ],
)
def test_peft_models(options: dict[str, Any], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = patch_model(lora_model(**options))
    assert_equal_training(model, lora_model(**options))
    assert isinstance(model(**batch()).logits, LogitsOnDemand), why
    assert "as before" not in capsys.readouterr().err
    unpatch_model(model)
    assert isinstance(model(**batch()).logits, Tensor)


def test_prompt_tuning() -> None:
    from peft import PromptTuningConfig, get_peft_model

    def prompted() -> Any:
        torch.manual_seed(4)
        return get_peft_model(family_model("qwen2"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))

    model = patch_model(prompted())
    assert_equal_training(model, prompted())
    assert isinstance(model(**batch()).logits, LogitsOnDemand)


@pytest.mark.parametrize(
    ("options", "patched_first", "why"),
    [
        ({"target_modules": ["lm_head"]}, True, "call patch_model again"),
        ({"target_modules": ["lm_head"], "lora_dropout": 0.5}, False, "more than a linear layer"),
    ],
)
def test_a_head_that_changed_makes_logits_and_says_so_once(
    options: dict[str, Any], patched_first: bool, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = lora_model(patched_first, **options)
    model = model if patched_first else patch_model(model.eval()).train()
    capsys.readouterr()
    for _ in range(2):
        torch.manual_seed(5)  # the dropout of the adapter
        loss = model(**batch()).loss
    reference = lora_model(**options)
    torch.manual_seed(5)
    torch.testing.assert_close(loss, reference(**batch()).loss)
    said = capsys.readouterr().err
    assert said.count("makes its logits as before") == 1
    assert why in said


def refused(name: str) -> Any:
    if name == "classifier":
        return AutoModelForSequenceClassification.from_config(tiny_config("llama"))
    if name == "encoder-decoder":
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": VOCAB}
        return AutoModelForSeq2SeqLM.from_config(T5Config(**sizes, decoder_start_token_id=0))
    if name == "module":
        return nn.Linear(2, 2)
    model: Any = family_model("llama-tied")
    match name:
        case "replaced-forward":
            model.forward = model.forward
        case "compiled":
            return torch.compile(model)
        case "meta":
            return model.to("meta")
        case "lora-dropout":
            return lora_model(target_modules=["lm_head"], lora_dropout=0.5)
        case "two-layer-head":
            model.lm_head = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, VOCAB))
    return model


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("classifier", "must be a causal language model"),
        ("encoder-decoder", "must be a causal language model"),
        ("module", "must be a causal language model"),
        ("replaced-forward", "call patch_model.* first"),
        ("compiled", r"already compiled.*torch.compile\(patch_model"),
        ("meta", "pass patch_model.*verify=False"),
        ("lora-dropout", "one unquantised linear layer, with at most one LoRA adapter without dropout"),
        ("two-layer-head", "one unquantised linear layer.*got Sequential"),
    ],
)
def test_what_is_refused(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        patch_model(refused(name))


class SharperLlama(LlamaForCausalLM):  # type: ignore[misc]
    def forward(self, *args: Any, labels: Any = None, **kwargs: Any) -> Any:
        outputs = super().forward(*args, **kwargs)
        outputs.logits = outputs.logits * 1.01
        if labels is not None:
            outputs.loss = self.loss_function(outputs.logits, labels, self.vocab_size)
        return outputs


class OwnLossLlama(LlamaForCausalLM):  # type: ignore[misc]
    def forward(self, *args: Any, labels: Any = None, **kwargs: Any) -> Any:
        outputs = super().forward(*args, **kwargs)
        outputs.loss = None if labels is None else outputs.logits.square().mean()
        return outputs


class RelabellingLlama(LlamaForCausalLM):  # type: ignore[misc]
    def forward(self, *args: Any, labels: Any = None, **kwargs: Any) -> Any:
        labels = None if labels is None else labels.masked_fill(labels == 50, -100)
        return super().forward(*args, labels=labels, **kwargs)


@pytest.mark.parametrize(
    ("family", "message"),
    [(SharperLlama, "does more to its logits"), (OwnLossLlama, "does not take its loss from loss_function")],
)
def test_the_self_test_finds_unknown_families_and_leaves_them_alone(family: Any, message: str) -> None:
    model = family(tiny_config("llama", vocab_size=VOCAB))
    with pytest.raises(ModelError, match=message):
        patch_model(model)
    assert type(model) is family
    assert model(**batch()).loss is not None


def test_labels_changed_on_the_way_are_found_in_the_call() -> None:
    model = patch_model(RelabellingLlama(tiny_config("llama", vocab_size=VOCAB)))
    inputs = batch()
    inputs["labels"][0, 3] = 50
    with pytest.raises(ModelError, match="changes its labels before the loss"):
        model(**inputs)
    assert model(**inputs, skip_logits=False).loss is not None  # the failed call left nothing behind
