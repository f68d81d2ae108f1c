"""linear_pair_loss: against autograd through its definition, layouts, first-step identities, memory, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels import linear_cross_entropy, linear_logprob, linear_pair_loss
from rlsft_kernels._backend import Backend
from rlsft_kernels.linear_pair_loss.reference import linear_pair_loss_reference
from tests.ops.head_cases import OpWatch
from tests.support.closeness import assert_as_accurate_as_eager

P, T, H, V = 3, 6, 8, 37
KINDS = ("logistic", "linear", "hinge", "bernoulli", "kliep")
LENGTHS = torch.tensor([6, 3, 5, 2, 6, 0])


def batch(dtype: torch.dtype) -> dict[str, Any]:
    """Answers of 6, 3, 5 and 2, 6, 0 tokens; what the mask hides is NaN or no token id."""
    torch.manual_seed(4)
    mask = torch.arange(T) < LENGTHS[:, None]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    hidden = torch.randn(2 * P, T, H).to(dtype)
    targets = torch.randint(0, V, (2 * P, T))
    weight = torch.randn(V, H).to(dtype)
    logprob = linear_logprob(hidden, weight, torch.where(mask, targets, -100)).logprob
    assert logprob is not None
    hidden[~mask] = torch.nan
    targets[~mask] = 10**6
    return {
        "hidden": hidden.requires_grad_(),
        "weight": weight.requires_grad_(),
        "targets": targets,
        "mask": mask,
        "ref_logprob_sums": (logprob.sum(1) + torch.randn(2 * P).to(wide)).to(wide),
    }


def clean(tensors: dict[str, Any]) -> dict[str, Any]:
    return tensors | {"targets": torch.where(tensors["mask"], tensors["targets"], 0)}


def grads(loss: Tensor, tensors: dict[str, Any]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, [tensors["hidden"], tensors["weight"]])


@pytest.mark.parametrize("normalize_length", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_autograd_through_its_definition(kind: str, normalize_length: bool) -> None:
    tensors = batch(torch.float64)
    settings: dict[str, Any] = {"beta": 0.3, "kind": kind, "normalize_length": normalize_length}
    loss, stats = linear_pair_loss(**tensors, **settings, tile_bytes=800)
    expected, expected_stats = linear_pair_loss_reference(**clean(tensors), **settings)
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close({name: stats[name] for name in expected_stats}, expected_stats)
    torch.testing.assert_close(grads(loss, tensors), grads(expected, tensors), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_is_as_accurate_as_eager(dtype: torch.dtype, backend: Backend) -> None:
    tensors = batch(dtype)
    exact = {
        n: x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x
        for n, x in tensors.items()
    }
    loss, _ = linear_pair_loss(**tensors, beta=0.1, backend=backend)
    eager, _ = linear_pair_loss_reference(**clean(tensors), beta=0.1)
    truth, _ = linear_pair_loss_reference(**clean(exact), beta=0.1)
    for name, a, e, t in zip(
        ("hidden", "weight"), grads(loss, tensors), grads(eager, tensors), grads(truth, exact), strict=True
    ):
        assert_as_accurate_as_eager(a, e, t, name=name)


@pytest.mark.parametrize("normalize_length", [False, True])
def test_packed_equals_padded(normalize_length: bool) -> None:
    tensors = batch(torch.float64)
    padded, padded_stats = linear_pair_loss(**tensors, beta=0.2, normalize_length=normalize_length)
    kept = tensors["mask"]
    packed = {n: tensors[n][kept] for n in ("hidden", "targets", "mask")}
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64), LENGTHS.cumsum(0)))
    loss, stats = linear_pair_loss(
        **packed, weight=tensors["weight"], ref_logprob_sums=tensors["ref_logprob_sums"], beta=0.2,
        cu_seqlens=offsets, normalize_length=normalize_length,
    )  # fmt: skip
    torch.testing.assert_close(loss, padded)
    torch.testing.assert_close(stats, padded_stats)
    torch.testing.assert_close(grads(loss, tensors), grads(padded, tensors))


def test_first_loss_is_log_two_and_its_gradient_half_beta_of_the_difference() -> None:
    """Policy = reference: loss log 2, and minus beta/2 times the gradient of (real - generated) log-likelihood."""
    tensors = batch(torch.float64)
    marked = torch.where(tensors["mask"], tensors["targets"], -100)
    logprob = linear_logprob(tensors["hidden"], tensors["weight"], marked).logprob
    assert logprob is not None
    sums = logprob.sum(1)
    loss, stats = linear_pair_loss(**tensors | {"ref_logprob_sums": sums.detach()}, beta=0.4)
    assert loss.item() == pytest.approx(math.log(2), rel=1e-12)
    assert stats["margin"] == 0
    torch.testing.assert_close(stats["logprobs/real"], sums[:P].mean().detach())
    torch.testing.assert_close(stats["logprobs/generated"], sums[P:].mean().detach())
    expected = -0.4 / 2 * (sums[:P] - sums[P:]).mean()
    torch.testing.assert_close(grads(loss, tensors), grads(expected, tensors))


def test_linear_kind_on_real_answers_alone_is_sft() -> None:
    """With empty generated answers the linear loss is beta times the summed cross-entropy of the demonstrations."""
    tensors = batch(torch.float64)
    tensors["mask"][P:] = False
    tensors["ref_logprob_sums"] = None
    loss, _ = linear_pair_loss(**tensors, beta=0.5, kind="linear")
    marked = torch.where(tensors["mask"], tensors["targets"], -100)
    nll, _ = linear_cross_entropy(tensors["hidden"], tensors["weight"], marked, normalizer=float(P))
    torch.testing.assert_close(loss, 0.5 * nll)
    torch.testing.assert_close(grads(loss, tensors), grads(0.5 * nll, tensors))


def test_masked_pairs_change_nothing() -> None:
    tensors = batch(torch.float64)
    loss, stats = linear_pair_loss(**tensors, beta=0.2, pair_mask=torch.tensor([True, False, True]))
    kept = torch.tensor([0, 2, 3, 5])
    fewer = {n: x[kept] if n != "weight" else x for n, x in tensors.items()}
    expected, expected_stats = linear_pair_loss(**fewer, beta=0.2)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(stats, expected_stats)
    assert (grads(loss, tensors)[0][[1, 4]] == 0).all()


@pytest.mark.parametrize("length", [64, 256])
def test_memory_does_not_grow_with_the_length_of_the_answers(length: int) -> None:
    """The largest tensor is the weight or a tile, however many tokens there are."""
    hidden = torch.randn(2, length, 4, requires_grad=True)
    weight = torch.randn(512, 4, requires_grad=True)
    targets, mask = torch.randint(0, 512, (2, length)), torch.ones(2, length, dtype=torch.bool)
    with OpWatch() as watch:
        linear_pair_loss(hidden, weight, targets, mask, beta=0.1, tile_bytes=4 * 2048)[0].backward()
    assert watch.largest <= 2048


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_compiles_to_one_graph(layout: str) -> None:
    tensors = batch(torch.float32)
    settings: dict[str, Any] = {"beta": 0.2}
    if layout == "packed":
        kept = tensors["mask"]
        tensors |= {n: tensors[n][kept].detach() for n in ("hidden", "targets", "mask")}
        settings["cu_seqlens"] = torch.cat((torch.zeros(1, dtype=torch.int64), LENGTHS.cumsum(0)))

    def step(weight: Tensor) -> Tensor:
        return linear_pair_loss(**tensors | {"weight": weight}, **settings)[0]

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(tensors["weight"])
    torch.testing.assert_close(compiled, step(tensors["weight"]))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"ref_logprob_sums": torch.zeros(3)}, ValueError, r"ref_logprob_sums must be \[S\] = \[6\], got \[3\]"),
        ({"mask": torch.ones(2 * P, T)}, TypeError, "mask must be bool or integer"),
        ({"beta": 0.0}, ValueError, "beta must be finite and > 0, got 0.0"),
        ({"kind": "sigmoid"}, ValueError, "kind must be one of 'logistic'"),
        ({"cu_seqlens": torch.tensor([0, 4])}, ValueError, "cu_seqlens must start at 0 and end at the 36 tokens"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        linear_pair_loss(**({"beta": 0.1} | batch(torch.float32) | changed))


def test_odd_number_of_sequences_is_refused() -> None:
    tensors = {n: x[:5] if n != "weight" else x for n, x in batch(torch.float32).items()}
    with pytest.raises(ValueError, match="as many real as generated answers, got 5 sequences"):
        linear_pair_loss(**tensors, beta=0.1)
