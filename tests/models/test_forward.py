"""Padding changes nothing, and completion log-probabilities are those of the full logits, for every family."""

from __future__ import annotations

from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from rlsft.data.collators import DemonstrationCollator
from rlsft.models import (
    add_lora,
    completion_logprobs,
    evaluation_mode,
    hidden_states,
    lm_head_of,
    position_ids_of,
    trunk_of,
)
from tests.support.models import FAMILIES, tiny_model

SEQUENCES = [[5, 17, 301, 40, 2], [9, 8, 7, 6, 5, 4, 3, 77, 2], [12, 2]]
PROMPT_LENGTHS = [2, 4, 1]


def batch(side: str = "right") -> dict[str, Tensor]:
    rows = [
        {"input_ids": ids, "completion_mask": [False] * n + [True] * (len(ids) - n)}
        for ids, n in zip(SEQUENCES, PROMPT_LENGTHS, strict=True)
    ]
    return DemonstrationCollator(pad_token_id=2, padding_side=side)(rows)  # type: ignore[arg-type]


def full_logprobs(model: Any, inputs: dict[str, Tensor], temperature: float = 1.0) -> Tensor:
    """[B, T], by way of the whole logits: log_softmax and gather, position 0 zero."""
    logits = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        position_ids=position_ids_of(inputs["attention_mask"]),
    ).logits.double()
    scored = torch.log_softmax(logits / temperature, -1)[:, :-1].gather(2, inputs["input_ids"][:, 1:, None])[..., 0]
    return nn.functional.pad(scored, (1, 0)) * inputs["completion_mask"]


def test_positions_count_real_tokens_only() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    expected = [[0, 0, 0, 1, 2], [0, 1, 2, 2, 2], [0, 0, 0, 0, 0]]
    assert position_ids_of(mask).tolist() == expected
    assert position_ids_of(mask.bool()).tolist() == expected


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_hidden_states(family: str, side: str) -> None:  # C05
    model, inputs = tiny_model(family), batch(side)
    with torch.no_grad():
        padded = hidden_states(model, inputs["input_ids"], inputs["attention_mask"])
        for row, ids in enumerate(SEQUENCES):
            alone = torch.tensor([ids])
            expected = trunk_of(model)(input_ids=alone)[0][0]
            real = inputs["attention_mask"][row].bool()
            torch.testing.assert_close(padded[row][real], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("side", ["left", "right"])
def test_completion_logprobs_equal_those_of_the_full_logits(family: str, temperature: float, side: str) -> None:
    model, inputs = tiny_model(family), batch(side)
    actual = completion_logprobs(model, **inputs, temperature=temperature).logprob
    expected = full_logprobs(model, inputs, temperature)
    assert (expected[inputs["completion_mask"]] < 0).all()
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)
    assert (actual[~inputs["completion_mask"]] == 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_those_of_the_full_logits(family: str) -> None:
    model, inputs = tiny_model(family), batch()
    weights = dict(model.named_parameters())
    direct = torch.autograd.grad(full_logprobs(model, inputs).sum(), list(weights.values()), allow_unused=True)
    fused = torch.autograd.grad(
        completion_logprobs(model, **inputs).logprob.sum(), list(weights.values()), allow_unused=True
    )
    for name, a, b in zip(weights, fused, direct, strict=True):
        assert (a is None) == (b is None), name
        if a is not None and b is not None:
            torch.testing.assert_close(a, b.to(a.dtype), atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_a_temperature_a_sequence() -> None:
    model, inputs = tiny_model(), batch()
    each = [0.5, 1.0, 2.0]
    actual = completion_logprobs(model, **inputs, temperature=torch.tensor(each)).logprob
    for row, temperature in enumerate(each):
        expected = full_logprobs(model, inputs, temperature)[row]
        torch.testing.assert_close(actual[row].double(), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"temperature must be a number or \[B\] = \[3\], got \[2\]"):
        completion_logprobs(model, **inputs, temperature=torch.ones(2))


def test_entropy_comes_on_request_and_hidden_states_are_reused() -> None:
    model, inputs = tiny_model("gemma2"), batch()
    hidden = hidden_states(model, inputs["input_ids"], inputs["attention_mask"])
    output = completion_logprobs(model, **inputs, outputs=("logprob", "entropy"), hidden=hidden)
    logp = torch.log_softmax(lm_head_of(model).logits(hidden[:, :-1]), -1)
    expected = nn.functional.pad(-(logp.exp() * logp).sum(-1), (1, 0)) * inputs["completion_mask"]
    torch.testing.assert_close(output.entropy, expected, atol=1e-5, rtol=1e-5)
    assert completion_logprobs(model, **inputs, hidden=hidden).entropy is None


def test_an_empty_mask_gives_zeros_and_no_nan() -> None:
    model, inputs = tiny_model(), batch()
    inputs["completion_mask"][:] = False
    output = completion_logprobs(model, **inputs).logprob
    assert output.shape == (3, 9)
    assert (output == 0).all()


def test_the_first_token_has_nothing_to_predict_it() -> None:
    model, inputs = tiny_model(), batch()
    inputs["completion_mask"][:, 0] = True
    assert (completion_logprobs(model, **inputs).logprob[:, 0] == 0).all()


def test_a_mask_of_another_shape_is_named() -> None:
    model, inputs = tiny_model(), batch()
    inputs["completion_mask"] = inputs["completion_mask"][:, 1:]
    with pytest.raises(ValueError, match=r"completion_mask must be \[B, T\] = \[3, 9\]"):
        completion_logprobs(model, **inputs)


def test_no_tensor_of_batch_times_length_times_vocabulary_is_made() -> None:  # C01
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                Largest.numel = max(Largest.numel, out.numel())
            return out

    model = tiny_model(vocab_size=20_000)
    ids = torch.randint(0, 20_000, (4, 64))
    mask = torch.ones_like(ids)
    completion_mask = torch.zeros_like(ids, dtype=torch.bool)
    completion_mask[:, 60:] = True
    with Largest():
        completion_logprobs(model, ids, mask, completion_mask).logprob.sum().backward()
    assert 0 < Largest.numel < 4 * 64 * 20_000


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_gives_the_same_gradients(family: str) -> None:
    inputs, gradients = batch(), []
    for checkpointing in (False, True):
        model: Any = tiny_model(
            family, **({"resid_pdrop": 0.0, "attn_pdrop": 0.0, "embd_pdrop": 0.0} if family == "gpt2" else {})
        )
        model.train()
        recomputed = 0
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            block = next(
                module
                for module in model.modules()
                if getattr(module, "gradient_checkpointing", False) is True and module is not trunk_of(model)
            )

            def count(*_: Any) -> None:
                nonlocal recomputed
                recomputed += 1

            next(iter(block.children())).register_forward_hook(count)
        completion_logprobs(model, **inputs).logprob.sum().backward()
        assert recomputed == (2 if checkpointing else 0)
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], atol=1e-6, rtol=1e-6)


def test_lora_weights_take_part_and_receive_gradients() -> None:
    model, inputs = tiny_model(), batch()
    before = completion_logprobs(model, **inputs).logprob.detach()
    lora = add_lora(model, {"r": 4, "lora_alpha": 8})
    for name, weight in lora.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.2)
    output = completion_logprobs(lora, **inputs).logprob
    assert (output - before).abs().max() > 1e-3
    torch.testing.assert_close(output.double(), full_logprobs(lora, inputs), atol=1e-5, rtol=1e-5)
    output.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in lora.parameters())


def test_data_parallel_and_autocast_wrappers_see_the_call() -> None:
    """A call of the trunk alone would skip DDP's gradient reduction and accelerate's autocast."""
    model: Any = tiny_model()
    inputs, calls = batch(), []

    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, **kwargs: Any) -> Any:
            calls.append(kwargs)
            return self.module(**kwargs)

    plain = completion_logprobs(model, **inputs).logprob
    wrapped = completion_logprobs(Wrapper(model), **inputs).logprob
    assert len(calls) == 1
    assert calls[0]["logits_to_keep"] == 1
    assert torch.equal(plain, wrapped)

    forward = model.forward.__func__
    with_autocast = torch.autocast("cpu", dtype=torch.bfloat16)(forward)
    model.forward = MethodType(with_autocast, model)
    assert hidden_states(model, inputs["input_ids"], inputs["attention_mask"]).dtype == torch.bfloat16
    low = completion_logprobs(model, **inputs).logprob
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, plain, atol=0.1, rtol=0.05)


def test_accelerate_mixed_precision_reaches_the_trunk() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier test of this process may have set another one
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    try:
        model = accelerator.prepare_model(tiny_model())
        inputs = batch()
        assert hidden_states(model, inputs["input_ids"], inputs["attention_mask"]).dtype == torch.bfloat16
        completion_logprobs(model, **inputs).logprob.sum().backward()
        assert all(p.grad is not None for p in model.parameters())
    finally:
        accelerator.free_memory()
        AcceleratorState._reset_state(reset_partial_state=True)


def test_distributed_data_parallel_reduces_the_gradients(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        inputs = batch()
        plain: Any = tiny_model()
        completion_logprobs(plain, **inputs).logprob.sum().backward()
        parallel = nn.parallel.DistributedDataParallel(tiny_model())
        reductions = 0

        def count(_state: Any, bucket: Any) -> Any:
            nonlocal reductions
            reductions += 1
            future: torch.futures.Future[Tensor] = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        count.__annotations__.clear()  # torch compares them with classes, and here they are strings
        parallel.register_comm_hook(None, count)
        completion_logprobs(parallel, **inputs).logprob.sum().backward()
        assert reductions >= 1
        for a, b in zip(plain.parameters(), parallel.module.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    finally:
        dist.destroy_process_group()


def test_scoring_in_evaluation_mode_equals_scoring_in_eval() -> None:
    model, inputs = tiny_model("gpt2"), batch()
    expected = completion_logprobs(model, **inputs).logprob
    model.train()
    with evaluation_mode(model), torch.no_grad():
        assert torch.equal(completion_logprobs(model, **inputs).logprob, expected)
