"""The passes behind the head's ops: tiles of any shape, kept logits, rows left out, adapters, both orders of loops."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels import linear_cross_entropy, linear_logprob
from rlsft_kernels._backend import Backend
from rlsft_kernels._head import native_rows, torch_rows
from rlsft_kernels._head.head import Head
from rlsft_kernels._head.passes import compacting_order, live_rows
from rlsft_kernels._head.rows import RowGradients, finish_fold, start_fold
from rlsft_kernels.linear_logprob.reference import linear_logprob_reference
from tests.ops.head_cases import CASES, HeadCase, OpWatch
from tests.support.closeness import assert_as_accurate_as_eager

WANTED = frozenset(
    ("logprob", "entropy", "lse", "log_sum_sq_probs", "mean_logit", "is_top1", "row_max", "log_sum")
)  # fmt: skip
TINY = CASES[3]  # 33 rows, 24 wide, 400 tokens, with a bias
BOTH: Any = pytest.mark.parametrize("backend", ["native", "reference"])


def logprob_and_grads(tensors: dict[str, Tensor], **settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    out = linear_logprob(**tensors, outputs=("logprob", "entropy", "lse"), **settings)
    assert out.logprob is not None
    assert out.entropy is not None
    assert out.lse is not None
    torch.manual_seed(7)
    weights = torch.randn(3, len(out.logprob), dtype=torch.float64).to(out.logprob.dtype)
    loss = (weights * torch.stack((out.logprob, out.entropy, out.lse))).sum()
    leaves = {name: x for name, x in tensors.items() if x.requires_grad}
    return loss, dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


# --- rows of a tile --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocab", [1, 2, 15, 16, 17, 1000, 2047, 2048, 2049, 4099])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_folding_in_pieces_equals_log_softmax(vocab: int, dtype: torch.dtype) -> None:
    """Every way to cut the columns, targets at every edge; the maximum comes first, last and in between."""
    num_rows = 7
    logits_RV = (3 * torch.randn(num_rows, vocab)).to(dtype)
    targets = torch.tensor([0, vocab - 1, vocab // 2, min(15, vocab - 1), min(16, vocab - 1), vocab // 3, 0])
    head = Head((torch.zeros(vocab, 1, dtype=dtype),))
    cuts = sorted({0, 1, vocab // 2, min(16, vocab), vocab - 1, vocab})
    state = start_fold(num_rows, WANTED, device=torch.device("cpu"), dtype=native_rows.state_dtype(dtype))
    for start, stop in itertools.pairwise(cuts):
        native_rows.fold_(head, logits_RV[:, start:stop], slice(start, stop), targets, 1.0, state)
    found = finish_fold(state, targets, vocab, WANTED, torch.float32)
    exact = logits_RV.double().log_softmax(dim=-1)
    eager = logits_RV.float().log_softmax(dim=-1)
    pick = targets[:, None]
    assert_as_accurate_as_eager(found["logprob"], eager.gather(1, pick)[:, 0], exact.gather(1, pick)[:, 0])
    truth = torch.special.entr(exact.exp()).sum(-1)
    assert_as_accurate_as_eager(found["entropy"], torch.special.entr(eager.exp()).sum(-1), truth, name="entropy")
    assert torch.equal(found["row_max"], logits_RV.float().amax(-1))
    assert torch.equal(found["is_top1"], logits_RV.float().argmax(-1) == targets)


@pytest.mark.parametrize("offset", [-300.0, 150.0])
def test_folding_survives_logits_that_exp_does_not(offset: float) -> None:
    """All of them below -104, where exp() is 0, or above +88, where it is infinite."""
    logits_RV = torch.randn(3, 50) + offset
    targets = torch.tensor([0, 10, 49])
    head = Head((torch.zeros(50, 1),))
    for kernels in (native_rows, torch_rows):
        state = start_fold(3, WANTED, device=torch.device("cpu"), dtype=kernels.state_dtype(torch.float32))
        kernels.fold_(head, logits_RV.clone(), slice(0, 50), targets, 1.0, state)
        found = finish_fold(state, targets, 50, WANTED, torch.float32)
        exact = logits_RV.double().log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]
        torch.testing.assert_close(found["logprob"], exact.float(), rtol=1e-5, atol=1e-5)
        assert ((found["entropy"] >= 0) & (found["entropy"] <= 3.9121)).all()


def test_first_of_equal_maxima_wins_across_tiles() -> None:
    logits = torch.zeros(2, 40)
    logits[:, [5, 20, 39]] = 1.0
    head = Head((torch.zeros(40, 1),))
    for kernels in (native_rows, torch_rows):
        state = start_fold(2, WANTED, device=torch.device("cpu"), dtype=kernels.state_dtype(torch.float32))
        for start, stop in ((0, 10), (10, 30), (30, 40)):
            tile = logits[:, start:stop].clone()
            kernels.fold_(head, tile, slice(start, stop), torch.tensor([5, 20]), 1.0, state)
        assert state.first_largest is not None
        assert state.first_largest.tolist() == [5, 5]


@pytest.mark.parametrize("columns", [slice(0, 31), slice(31, 64), slice(0, 64)], ids=str)
@pytest.mark.parametrize("transform", ["plain", "capped", "biased", "all"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradient_of_a_tile_equals_autograd(dtype: torch.dtype, transform: str, columns: slice) -> None:
    """The columns of a tile alone, with the statistics of whole rows; targets inside, outside and at its edges."""
    vocab, num_rows = 64, 6
    torch.manual_seed(0)
    raw = (2 * torch.randn(num_rows, vocab)).to(dtype)
    bias = torch.randn(vocab).to(dtype) if transform in ("biased", "all") else None
    cap = 2.5 if transform in ("capped", "all") else None
    scale, temperature = (1.3, torch.rand(num_rows) + 0.5) if transform == "all" else (1.0, 1.0)
    targets = torch.tensor([0, 30, 31, 32, 63, 40])
    head = Head((torch.zeros(vocab, 1, dtype=dtype),), bias, cap, scale)
    by = torch.randn(3, num_rows)

    def outputs(a: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        wide = a.dtype
        z = a if bias is None else a + bias.to(wide)
        z = scale * z
        z = z if cap is None else cap * (z / cap).tanh()
        z = z / (temperature.to(wide)[:, None] if isinstance(temperature, Tensor) else temperature)
        logp = z.log_softmax(-1)
        entropy = -(logp.exp() * logp).sum(-1)
        out = torch.stack((logp.gather(1, targets[:, None])[:, 0], entropy, z.logsumexp(-1)))
        return (by.to(wide) * out).sum(), (z, logp, entropy)

    exact = raw.double().requires_grad_()
    (truth,) = torch.autograd.grad(outputs(exact)[0], exact)
    eager_in = raw.float().clone().requires_grad_()
    (eager,) = torch.autograd.grad(outputs(eager_in)[0], eager_in)
    with torch.no_grad():
        _, (z, logp, entropy) = outputs(raw.double())
        logp_target = logp.gather(1, targets[:, None])[:, 0]
        row_max = z.amax(-1)
        log_sum = z.logsumexp(-1) - row_max
    statistics = (x.float() for x in (row_max, log_sum, logp_target, entropy))
    gradients = RowGradients(targets, temperature, *statistics, *by)
    out = torch.empty(num_rows, columns.stop - columns.start, dtype=dtype)
    native_rows.gradient_(head, raw[:, columns], columns, gradients, None, out)
    assert_as_accurate_as_eager(out, eager[:, columns].to(dtype), truth[:, columns], name="gradient")
    in_place = raw[:, columns].clone()
    native_rows.gradient_(head, in_place, columns, gradients, None, in_place)
    assert torch.equal(in_place, out)
    plain = torch.empty_like(out)
    torch_rows.gradient_(head, raw[:, columns], columns, gradients, None, plain)
    assert_as_accurate_as_eager(plain, eager[:, columns].to(dtype), truth[:, columns], name="plain gradient")


def test_threads_do_not_change_a_bit() -> None:
    tensors = HeadCase("wide", 257, 16, 3001).tensors(torch.bfloat16)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(linear_logprob(**tensors, outputs=("logprob", "entropy", "lse")))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0][:3], other[:3], strict=True))


def test_native_refuses_what_would_read_out_of_bounds() -> None:
    from rlsft_kernels import _C

    tile, rows = torch.zeros(4, 6).numpy(), torch.zeros(4).numpy()
    ids, short = torch.zeros(4, dtype=torch.int64).numpy(), torch.zeros(3).numpy()
    for order, message in (([0, 9], "order must hold rows"), ([1, 0], "order would overwrite")):
        with pytest.raises(ValueError, match=message):
            _C.head_gradient_rows(
                tile, 0, None, 1.0, 0.0, 1.0, None, ids, rows, rows, rows, None, rows, None, None,
                torch.tensor(order).numpy(), tile[:2], 1,
            )  # fmt: skip
    with pytest.raises(ValueError, match="logprob must be"):
        _C.head_gradient_rows(
            tile, 0, None, 1.0, 0.0, 1.0, None, ids, rows, rows, short, None, rows, None, None, None, tile, 1
        )  # fmt: skip


# --- rows without a gradient -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "live", [[], [0], [5], [0, 1, 2], [3, 4, 5], [1, 4], [0, 2, 5], [0, 1, 2, 3, 4]], ids=lambda x: str(x)
)
def test_compacting_order_reads_no_row_after_it_was_written(live: list[int]) -> None:
    gradient = torch.zeros(6)
    gradient[live] = 1.0
    order = compacting_order(live_rows(gradient))
    assert order is not None
    assert sorted(order.tolist()) == live
    assert all(source == i or source >= len(live) for i, source in enumerate(order.tolist()))


def test_all_rows_live_need_no_order() -> None:
    assert compacting_order(live_rows(torch.ones(3), torch.zeros(3))) is None
    assert compacting_order(live_rows(torch.zeros(3), torch.ones(3))) is None


@BOTH
@pytest.mark.parametrize("memory_budget", [0, 10**9])
def test_rows_without_a_gradient_change_nothing_and_cost_no_product(backend: Backend, memory_budget: int) -> None:
    """Zero upstream gradients against the same rows ignored, to the bit in hidden, beyond rounding nowhere."""
    case = HeadCase("no bias", 40, 24, 400)
    tensors = case.tensors(torch.float32)
    tensors["targets"] = tensors["targets"].clamp(min=0)
    dead = torch.arange(40) % 3 == 1
    upstream = torch.where(dead, 0, torch.randn(40))
    out = linear_logprob(**tensors, backend=backend, memory_budget=memory_budget).logprob
    assert out is not None
    leaves = [tensors["hidden"], tensors["weight"]]
    grad_hidden, grad_weight = torch.autograd.grad(out, leaves, upstream)
    without = tensors | {"targets": torch.where(dead, -100, tensors["targets"])}
    kept = linear_logprob(**without, backend=backend, memory_budget=memory_budget).logprob
    assert kept is not None
    expected_hidden, expected_weight = torch.autograd.grad(kept, leaves, upstream)
    assert (grad_hidden[dead] == 0).all()
    torch.testing.assert_close(grad_hidden, expected_hidden)
    torch.testing.assert_close(grad_weight, expected_weight)
    with OpWatch() as watch:
        loss = linear_logprob(**tensors, backend=backend).logprob
        assert loss is not None
        (loss * 0).sum().backward()
    assert watch.matmuls == 1, "the backward of rows that have no gradient multiplied something"


# --- the memory dial -------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0, 5.0])
def test_memory_budget_changes_cost_not_results(share: float, dtype: torch.dtype, backend: Backend) -> None:
    tensors = TINY.tensors(dtype)
    budget = int(share * 33 * 400 * dtype.itemsize)
    tile_bytes = 33 * 50 * dtype.itemsize
    settings = {"temperature": torch.rand(33) + 0.5, "softcap": 3.0, "tile_bytes": tile_bytes, "backend": backend}
    plain, plain_grads = logprob_and_grads(tensors, **settings)
    dialled, dialled_grads = logprob_and_grads(tensors, **settings, memory_budget=budget)
    assert torch.equal(plain, dialled)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(dialled_grads, plain_grads, **tolerance)


def test_budget_for_everything_saves_the_second_product() -> None:
    tensors = TINY.tensors(torch.float32)
    for budget, matmuls in ((0, 4), (10**9, 3)):
        with OpWatch() as watch:
            out = linear_logprob(**tensors, memory_budget=budget).logprob
            assert out is not None
            out.sum().backward()
        assert watch.matmuls == matmuls


def test_kept_logits_survive_a_second_backward() -> None:
    tensors = TINY.tensors(torch.float32)
    out = linear_logprob(**tensors, memory_budget=10**9).logprob
    assert out is not None
    first, second = (torch.autograd.grad(out.sum(), tensors["hidden"], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_without_gradients_nothing_is_kept() -> None:
    tensors = {name: x.detach() for name, x in TINY.tensors(torch.float32).items()}
    with OpWatch() as watch:
        linear_logprob(**tensors, memory_budget=10**9, tile_bytes=33 * 50 * 4)
    assert watch.largest <= max(400 * 24, 33 * 50)


@BOTH
@pytest.mark.parametrize("memory_budget", [0, 10**9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tiles_of_fewer_rows_than_there_are(dtype: torch.dtype, memory_budget: int, backend: Backend) -> None:
    """Seven rows and one column a tile: the gradient of a block of columns is a sum over five blocks of rows."""
    tensors = TINY.tensors(dtype)
    leaves = [tensors[name] for name in ("hidden", "weight", "bias")]
    exact = {n: x.detach().double().requires_grad_() if x.is_floating_point() else x for n, x in tensors.items()}
    upstream = torch.randn(33)
    tiled = linear_logprob(**tensors, tile_bytes=7 * dtype.itemsize, memory_budget=memory_budget, backend=backend)
    assert tiled.logprob is not None
    results = []
    for given in (tensors, exact):
        out = linear_logprob_reference(**given).logprob
        assert out is not None
        wanted = [given[name] for name in ("hidden", "weight", "bias")]
        results.append((out, torch.autograd.grad(out, wanted, upstream.to(out.dtype))))
    (eager, eager_grads), (truth, truth_grads) = results
    assert_as_accurate_as_eager(tiled.logprob, eager, truth, name="logprob")
    found = torch.autograd.grad(tiled.logprob, leaves, upstream)
    for name, a, e, t in zip(("hidden", "weight", "bias"), found, eager_grads, truth_grads, strict=True):
        assert_as_accurate_as_eager(a, e, t, name=f"grad {name}")


# --- both orders of loops --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens_per_tile", [2, 7, 100])
def test_cross_entropy_in_half_precision_takes_the_cheaper_order(tokens_per_tile: int) -> None:
    """bfloat16 over several tiles goes by columns on the native backend, by rows on the reference: same results."""
    case = HeadCase("several tiles", 50, 24, 401, with_bias=True)
    tensors = case.tensors(torch.bfloat16)
    leaves = [tensors[name] for name in ("hidden", "weight", "bias")]
    exact = {n: x.detach().double().requires_grad_() if x.is_floating_point() else x for n, x in tensors.items()}
    truth_loss, _ = linear_cross_entropy(**exact)
    truth = torch.autograd.grad(truth_loss, [exact[name] for name in ("hidden", "weight", "bias")])
    eager_logprob = linear_logprob_reference(**tensors).logprob
    assert eager_logprob is not None
    eager_loss = -eager_logprob.sum() / (tensors["targets"] >= 0).sum()
    eager = torch.autograd.grad(eager_loss, leaves)
    for backend in ("native", "reference"):
        loss, _ = linear_cross_entropy(**tensors, tile_bytes=tokens_per_tile * 401 * 2, backend=backend)
        for name, a, e, t in zip(
            ("hidden", "weight", "bias"), torch.autograd.grad(loss, leaves), eager, truth, strict=True
        ):
            assert_as_accurate_as_eager(a, e, t, name=f"{backend} grad {name}")


# --- adapters --------------------------------------------------------------------------------------------------------


def adapter(rank: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    lora_a = (torch.randn(rank, 24) / 5).to(dtype).requires_grad_()
    lora_b = (torch.randn(400, rank) / 5).to(dtype).requires_grad_()
    return lora_a, lora_b


@BOTH
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("memory_budget", [0, 20_000])
def test_adapter_on_the_head_equals_merging_it(backend: Backend, frozen: bool, memory_budget: int) -> None:
    tensors = TINY.tensors(torch.float32)
    tensors["weight"].requires_grad_(not frozen)
    lora_a, lora_b = adapter(5)
    leaves = [tensors["hidden"], lora_a, lora_b, *([] if frozen else [tensors["weight"]])]
    upstream = torch.randn(33)
    out = linear_logprob(
        **tensors, lora=(lora_a, lora_b, 0.7), tile_bytes=6000, memory_budget=memory_budget, backend=backend
    ).logprob
    assert out is not None
    merged = tensors | {"weight": tensors["weight"] + 0.7 * lora_b @ lora_a}
    expected = linear_logprob_reference(**merged).logprob
    assert expected is not None
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        torch.autograd.grad(out, leaves, upstream),
        torch.autograd.grad(expected, leaves, upstream),
        rtol=1e-3,
        atol=1e-4,
    )


@BOTH
def test_adapter_in_the_loss(backend: Backend) -> None:
    tensors = TINY.tensors(torch.float32)
    tensors["weight"].requires_grad_(False)
    lora_a, lora_b = adapter(3)
    loss, _ = linear_cross_entropy(**tensors, lora=(lora_a, lora_b, 2.0), tile_bytes=6000, backend=backend)
    merged = tensors | {"weight": tensors["weight"] + 2.0 * lora_b @ lora_a}
    expected, _ = linear_cross_entropy(**merged)
    leaves = [tensors["hidden"], lora_a, lora_b]
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), rtol=1e-3, atol=1e-5
    )


def test_adapter_of_rank_zero_is_the_base() -> None:
    tensors = TINY.tensors(torch.float32)
    lora = (torch.zeros(0, 24), torch.zeros(400, 0), 1.0)
    assert torch.equal(linear_logprob(**tensors, lora=lora)[0], linear_logprob(**tensors)[0])  # type: ignore[arg-type]


def test_float32_adapter_beside_a_half_precision_head() -> None:
    tensors = TINY.tensors(torch.bfloat16)
    lora_a, lora_b = adapter(4)
    out = linear_logprob(**tensors, lora=(lora_a, lora_b, 1.0)).logprob
    assert out is not None
    grads = torch.autograd.grad(out.sum(), [lora_a, lora_b])
    assert [grad.dtype for grad in grads] == [torch.float32, torch.float32]
    assert all((grad != 0).any() for grad in grads)
