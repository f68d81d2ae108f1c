"""linear_cross_entropy: by hand, against F.cross_entropy in float64, ignored rows, normalizer, memory, registration."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rlsft_kernels import linear_cross_entropy, linear_logprob
from rlsft_kernels._backend import Backend
from rlsft_kernels.linear_cross_entropy.reference import linear_cross_entropy_reference
from tests.ops.head_cases import CASES, DTYPES, ON_CPU, SMALL, HeadCase, OpWatch
from tests.support.closeness import assert_as_accurate_as_eager

LEAVES = ("hidden", "weight", "bias")
PLAIN = [case for case in CASES if case.temperature == "one"]
FULL = HeadCase("bias, softcap and scale", 13, 9, 97, True, 2.0, 1.5, "one", 2.0)


def grads(loss: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    wanted = {name: tensors[name] for name in LEAVES if name in tensors}
    return dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))


def as_double(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.detach().double().requires_grad_() if x.is_floating_point() else x for name, x in tensors.items()}


def test_two_tokens_by_hand() -> None:
    """Logits (0, ln 3) are p = (1/4, 3/4); the target 1 is right, the target 0 wrong, the third row does not count."""
    hidden = torch.tensor([[1.0], [1.0], [7.0]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[0.0], [math.log(3)]], dtype=torch.float64, requires_grad=True)
    loss, stats = linear_cross_entropy(hidden, weight, torch.tensor([1, 0, -100]))
    assert loss.item() == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2, rel=1e-14)
    assert {name: x.item() for name, x in stats.items()} == pytest.approx(
        {
            "num_tokens": 2,
            "sum_nll": -(math.log(0.75) + math.log(0.25)),
            "accuracy": 0.5,
            "entropy": -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)),
        }
    )
    # by the logits softmax - onehot: (1/4, -1/4) and (-3/4, 3/4), halved by the mean
    grad_hidden, grad_weight = torch.autograd.grad(loss, [hidden, weight])
    expected = torch.tensor([-math.log(3) / 8, 3 * math.log(3) / 8, 0]).double()[:, None]
    torch.testing.assert_close(grad_hidden, expected)
    torch.testing.assert_close(grad_weight, torch.tensor([[-0.25], [0.25]]).double())


@pytest.mark.parametrize(("dtype", "backend"), ON_CPU, ids=str)
@pytest.mark.parametrize("case", [*PLAIN, FULL], ids=lambda c: c.name)
def test_loss_and_gradients_are_as_accurate_as_eager(case: HeadCase, dtype: torch.dtype, backend: Backend) -> None:
    tensors = case.tensors(dtype)
    assert tensors["hidden"].dtype == dtype
    exact = as_double(tensors)
    actual, stats = linear_cross_entropy(
        **tensors, **case.settings(), tile_bytes=case.small_tile(dtype), backend=backend
    )
    eager, eager_stats = linear_cross_entropy_reference(**tensors, **case.settings())
    truth, truth_stats = linear_cross_entropy_reference(**exact, **case.settings())
    assert_as_accurate_as_eager(actual, eager, truth, name="loss")
    for name in ("sum_nll", "entropy"):
        assert_as_accurate_as_eager(stats[name], eager_stats[name], truth_stats[name], name=name)
    assert (stats["accuracy"], stats["num_tokens"]) == (eager_stats["accuracy"], eager_stats["num_tokens"])
    eager_grads, truth_grads = grads(eager, tensors), grads(truth, exact)
    for name, grad in grads(actual, tensors).items():
        assert_as_accurate_as_eager(grad, eager_grads[name], truth_grads[name], name=f"grad {name}")


def test_equals_torch_cross_entropy() -> None:
    tensors = CASES[2].tensors(torch.float64)
    loss, _ = linear_cross_entropy(**tensors)
    expected = F.cross_entropy(tensors["hidden"] @ tensors["weight"].T, tensors["targets"])
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grads(loss, tensors), grads(expected, tensors))


def test_equals_the_mean_of_linear_logprob() -> None:
    tensors = FULL.tensors(torch.float64)
    loss, _ = linear_cross_entropy(**tensors, **FULL.settings())
    logprob = linear_logprob(**tensors, **FULL.settings()).logprob
    assert logprob is not None
    expected = -logprob.sum() / (tensors["targets"] >= 0).sum()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grads(loss, tensors), grads(expected, tensors))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_dft_weighs_each_token_by_its_own_probability(dtype: torch.dtype) -> None:
    """arXiv 2508.05629, eq. 9: the factor is a constant, so the gradient is p times that of the log-likelihood."""
    tensors = CASES[3].tensors(dtype)
    loss, stats = linear_cross_entropy(**tensors, kind="dft")
    logprob = linear_logprob(**tensors).logprob
    assert logprob is not None
    count = (tensors["targets"] >= 0).sum()
    expected = -torch.where(tensors["targets"] >= 0, logprob.detach().exp() * logprob, 0).sum() / count
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grads(loss, tensors), grads(expected, tensors))
    torch.testing.assert_close(stats["sum_nll"], -logprob.sum().detach())


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_token_weights_scale_loss_and_gradient_but_not_the_statistics(backend: Backend) -> None:
    tensors = CASES[3].tensors(torch.float32)
    token_weights = torch.rand(33)
    token_weights[::4] = 0
    loss, stats = linear_cross_entropy(
        **tensors, token_weights=token_weights, normalizer=2.0, tile_bytes=5000, backend=backend
    )
    logprob = linear_logprob(**tensors).logprob
    assert logprob is not None
    expected = -(token_weights * logprob).sum() / 2
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grads(loss, tensors), grads(expected, tensors))
    torch.testing.assert_close(stats["sum_nll"], -logprob.sum().detach())


def test_gradcheck() -> None:
    tensors = SMALL.tensors(torch.float64)

    def op(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_cross_entropy(
            hidden, weight, tensors["targets"], bias=bias, **SMALL.settings(), tile_bytes=120
        )[0]  # fmt: skip

    assert torch.autograd.gradcheck(op, tuple(tensors[name] for name in LEAVES))


@pytest.mark.parametrize("rows_per_tile", [1, 2, 8, 9, 10, 1000])
def test_tile_size_changes_nothing_beyond_rounding(rows_per_tile: int) -> None:
    tensors = FULL.tensors(torch.float32)
    whole, _ = linear_cross_entropy(**tensors)
    tiled, _ = linear_cross_entropy(**tensors, tile_bytes=rows_per_tile * 97 * 4)
    torch.testing.assert_close(tiled, whole, rtol=1e-6, atol=0)
    torch.testing.assert_close(grads(tiled, tensors), grads(whole, tensors), rtol=1e-5, atol=1e-7)


def test_two_runs_are_bit_identical() -> None:
    tensors = CASES[3].tensors(torch.bfloat16)
    (first, _), (second, _) = (linear_cross_entropy(**tensors, tile_bytes=10_000) for _ in range(2))
    assert torch.equal(first, second)
    a, b = grads(first, tensors), grads(second, tensors)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_ignored_rows_cost_nothing_and_do_not_matter() -> None:
    tensors = CASES[3].tensors(torch.float32)
    kept = tensors["targets"] != -100
    with torch.no_grad():
        tensors["hidden"][~kept] = torch.nan
    loss, stats = linear_cross_entropy(**tensors, tile_bytes=10_000)
    packed = tensors | {"hidden": tensors["hidden"][kept], "targets": tensors["targets"][kept]}
    packed_loss, _ = linear_cross_entropy(**packed, tile_bytes=10_000)
    assert torch.equal(loss, packed_loss)
    found = grads(loss, tensors)
    assert (found["hidden"][~kept] == 0).all()
    assert (found["hidden"][kept] != 0).any(dim=1).all()
    assert all(grad.isfinite().all() for grad in found.values())
    assert stats["num_tokens"] == kept.sum()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_rows", [0, 3])
def test_nothing_labelled_is_zero_loss_and_zero_gradient(num_rows: int, dtype: torch.dtype) -> None:
    hidden = torch.full((num_rows, 4), torch.nan, dtype=dtype, requires_grad=True)
    weight = torch.randn(5, 4).to(dtype).requires_grad_()
    loss, stats = linear_cross_entropy(hidden, weight, torch.full((num_rows,), -100))
    assert loss == 0
    assert all(x == 0 for x in stats.values())
    grad_hidden, grad_weight = torch.autograd.grad(loss, [hidden, weight])
    assert torch.equal(grad_hidden, torch.zeros(num_rows, 4, dtype=dtype))
    assert torch.equal(grad_weight, torch.zeros_like(weight))


@pytest.mark.parametrize("as_tensor", [False, True])
def test_micro_batches_with_one_normalizer_equal_the_batch(as_tensor: bool) -> None:
    tensors = CASES[3].tensors(torch.float64)
    total: Any = (tensors["targets"] != -100).sum()
    whole, _ = linear_cross_entropy(**tensors)
    losses = [
        linear_cross_entropy(
            **tensors | {"hidden": tensors["hidden"][part], "targets": tensors["targets"][part]},
            normalizer=total if as_tensor else float(total),
        )[0]
        for part in (slice(0, 5), slice(5, 6), slice(6, 33))
    ]
    torch.testing.assert_close(sum(losses), whole)
    torch.testing.assert_close(grads(torch.stack(losses).sum(), tensors), grads(whole, tensors))


def test_float16_gradients_are_scaled_before_they_are_rounded() -> None:
    """A large normalizer makes every gradient underflow float16, unless the scaler's factor comes first."""
    tensors = CASES[2].tensors(torch.float16)
    loss, _ = linear_cross_entropy(**tensors, normalizer=2.0**22)
    plain, _ = linear_cross_entropy(**tensors, normalizer=1.0)
    scaled, expected = grads(loss * 2.0**22, tensors), grads(plain, tensors)
    assert all(torch.equal(scaled[name], expected[name]) for name in expected)
    assert float(expected["weight"].abs().max()) > 0.01


def test_gradient_of_the_forward_is_handed_on_without_a_copy_where_the_graph_is_freed() -> None:
    """A second backward must find what the first one found, whatever its owner did to the first result."""
    tensors = CASES[2].tensors(torch.float32)
    loss, _ = linear_cross_entropy(**tensors)
    saved = {x.data_ptr() for x in loss.grad_fn.next_functions[0][0].saved_tensors}
    first = torch.autograd.grad(loss, tensors["weight"], retain_graph=True)[0]
    kept = first.clone()
    first.zero_()
    (last,) = torch.autograd.grad(loss, tensors["weight"])
    assert first.data_ptr() not in saved
    assert last.data_ptr() in saved
    assert torch.equal(last, kept)


@pytest.mark.parametrize("saved_as", [torch.float32, torch.bfloat16], ids=str)
def test_upstream_factor_is_not_rounded_to_the_dtype_of_the_gradient(saved_as: torch.dtype) -> None:
    """0.998 is no bfloat16 number: rounded first, to 0.9961, it would shorten every gradient by 0.2 %."""
    saved, factor = torch.randn(1000).to(saved_as), torch.tensor(0.998)
    inputs = [torch.zeros(1000, dtype=torch.bfloat16)]
    (scaled,) = torch.ops.rlsft.scale_saved_gradients([saved], factor, inputs, "linear_cross_entropy")
    assert torch.equal(scaled, (saved.float() * 0.998).bfloat16())


@pytest.mark.parametrize(
    ("frozen", "matmuls"), [((), 3), (("weight",), 2), (("hidden",), 2), (("hidden", "weight"), 1)]
)
def test_loss_and_gradients_take_three_products(frozen: tuple[str, ...], matmuls: int) -> None:
    tensors = CASES[2].tensors(torch.float32)
    for name in frozen:
        tensors[name].requires_grad_(False)
    with OpWatch() as watch:
        loss, _ = linear_cross_entropy(**tensors)
        if loss.requires_grad:
            loss.backward()
    assert watch.matmuls == matmuls
    assert all((tensors[name].grad is None) == (name in frozen) for name in ("hidden", "weight"))


def test_no_gradient_is_computed_where_none_is_recorded() -> None:
    tensors = CASES[2].tensors(torch.float32)
    with OpWatch() as watch, torch.no_grad():
        linear_cross_entropy(**tensors)
    assert watch.matmuls == 1


def test_no_tensor_holds_all_logits() -> None:
    num_rows, width, vocab, rows_per_tile = 64, 8, 512, 4
    hidden = torch.randn(num_rows, width, requires_grad=True)
    weight = torch.randn(vocab, width, requires_grad=True)
    targets = torch.randint(0, vocab, (num_rows,))
    with OpWatch() as watch:
        linear_cross_entropy(hidden, weight, targets, tile_bytes=rows_per_tile * vocab * 4)[0].backward()
    assert watch.largest <= max(rows_per_tile * vocab, vocab * width)
    with OpWatch() as plain:
        linear_cross_entropy_reference(hidden, weight, targets)
    assert plain.largest == num_rows * vocab, "the watch sees nothing, so it proves nothing"


def test_impossible_and_certain_tokens() -> None:
    bias = torch.tensor([0, -torch.inf, 90.0, -torch.inf, 0], requires_grad=True)
    hidden, weight = torch.zeros(2, 4, requires_grad=True), torch.randn(5, 4)
    loss, stats = linear_cross_entropy(hidden, weight, torch.tensor([2, 2]), bias=bias)
    assert loss == 0
    assert stats["accuracy"] == 1
    assert stats["entropy"] < 1e-30
    assert torch.equal(torch.autograd.grad(loss, bias)[0] < 1e-30, torch.ones(5, dtype=torch.bool))


def test_leading_axes_strides_and_own_ignore_index() -> None:
    hidden = torch.randn(5, 3, 4).transpose(0, 1)
    targets = torch.randint(0, 7, (5, 3)).t()
    targets[1, 2] = -1
    weight = torch.randn(4, 7).t()
    loss, _ = linear_cross_entropy(hidden, weight, targets, ignore_index=-1)
    logits = hidden.reshape(15, 4) @ weight.T
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets.reshape(15), ignore_index=-1))


def test_autocast_casts_as_a_linear_layer_does() -> None:
    tensors = FULL.tensors(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = linear_cross_entropy(**tensors)
    halves = {name: x.bfloat16() if x.is_floating_point() else x for name, x in tensors.items()}
    assert torch.equal(loss, linear_cross_entropy(**halves)[0])
    assert {grad.dtype for grad in grads(loss, tensors).values()} == {torch.float32}


def test_backward_twice_is_the_same_and_second_derivative_is_refused() -> None:
    tensors = CASES[2].tensors(torch.float64)
    loss, stats = linear_cross_entropy(**tensors)
    assert not any(x.requires_grad for x in stats.values())
    first, second = (torch.autograd.grad(loss, tensors["hidden"], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    (grad,) = torch.autograd.grad(loss, tensors["hidden"], create_graph=True)
    with pytest.raises(RuntimeError, match="linear_cross_entropy has no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "empty", "frozen"])
def test_opcheck(layout: str, backend: Backend) -> None:
    num_rows = 0 if layout == "empty" else 6
    hidden, weight = torch.randn(num_rows, 4), torch.randn(9, 4)
    if layout == "transposed":
        hidden, weight = hidden.t().contiguous().t(), weight.t().contiguous().t()
    targets = torch.randint(0, 9, (num_rows,))
    targets[:1] = -100
    needs = [True, layout != "frozen", True, True, True]
    args = (
        hidden.requires_grad_(), weight.requires_grad_(needs[1]), targets, torch.randn(9, requires_grad=True),
        torch.randn(num_rows, 2, requires_grad=True), torch.randn(9, 2, requires_grad=True), torch.rand(num_rows),
        3.0, 1.3, "nll", -100, 100, needs, backend,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.rlsft.linear_cross_entropy.default, args)


def test_opcheck_of_the_backward() -> None:
    gradients = [torch.randn(3, 4), torch.randn(5)]
    inputs = [torch.randn(3, 4, requires_grad=True), torch.randn(5).bfloat16().requires_grad_()]
    args = (gradients, torch.tensor(2.0), inputs, "linear_cross_entropy")
    torch.library.opcheck(
        torch.ops.rlsft.scale_saved_gradients.default,
        args,
        test_utils=("test_schema", "test_faketensor", "test_autograd_registration"),
    )


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compiles_to_one_graph(compiler: str) -> None:
    tensors = FULL.tensors(torch.float32)

    def step(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return linear_cross_entropy(hidden, weight, targets, bias=bias, softcap=2.0)

    torch._dynamo.reset()
    compiled, compiled_stats = torch.compile(step, fullgraph=True, backend=compiler)(**tensors)
    plain, plain_stats = step(**tensors)
    torch.testing.assert_close((compiled, compiled_stats), (plain, plain_stats))
    torch.testing.assert_close(grads(compiled, tensors), grads(plain, tensors))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"targets": torch.tensor([0, 9, 1])}, ValueError, r"targets must be in \[0, 5\) .*got 9 in row 1"),
        ({"weight": torch.zeros(5, 4).double()}, TypeError, r"weight must have the dtype of hidden \(torch.float32\)"),
        ({"normalizer": torch.ones(1)}, ValueError, r"normalizer must be a number or a 0-d tensor, got shape \[1\]"),
        ({"normalizer": "mean"}, TypeError, "normalizer must be a number, got str"),
        ({"softcap": 0.0}, ValueError, "softcap must be finite and > 0, got 0.0"),
        ({"logit_scale": math.inf}, ValueError, "logit_scale must be finite, got inf"),
        ({"tile_bytes": 2.5}, TypeError, "tile_bytes must be an int, got float"),
        ({"kind": "focal"}, ValueError, "kind must be one of 'nll', 'dft', got 'focal'"),
        ({"token_weights": torch.ones(4)}, ValueError, r"token_weights must be shaped like targets \[3\], got \[4\]"),
        ({"lora": (torch.ones(2, 4),)}, TypeError, r"lora must be \(A \[r, H\], B \[V, r\], scale\)"),
        ({"lora": (torch.ones(2, 4), torch.ones(5, 3), 1.0)}, ValueError, r"lora B must be \[V, r\] = \[5, 2\], got"),
        ({"backend": "triton"}, ValueError, "linear_cross_entropy: backend='triton' takes .* on cuda, got"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {
        "hidden": torch.zeros(3, 4), "weight": torch.zeros(5, 4), "targets": torch.tensor([0, 1, 2])
    }  # fmt: skip
    with pytest.raises(error, match=message):
        linear_cross_entropy(**arguments | changed)
