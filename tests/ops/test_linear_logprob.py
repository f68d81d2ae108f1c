"""linear_logprob: values by hand, against float64 truth, invariances, edges, memory, registration and errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels import LogprobOutput, linear_logprob
from rlsft_kernels._backend import Backend, backend_calls
from rlsft_kernels.linear_logprob.reference import linear_logprob_reference
from tests.ops.head_cases import CASES, DTYPES, ON_CPU, SMALL, HeadCase, OpWatch
from tests.support.closeness import assert_as_accurate_as_eager

DIFFERENTIABLE = ("logprob", "entropy", "lse")
ALL = (*DIFFERENTIABLE, "log_sum_sq_probs", "mean_logit", "is_top1")


def upstream(num_rows: int) -> dict[str, Tensor]:
    """A different gradient for every output and row, so that none can hide behind another."""
    return {name: torch.randn(num_rows, dtype=torch.float64) for name in DIFFERENTIABLE}


def loss_of(out: LogprobOutput, weights: dict[str, Tensor]) -> Tensor:
    named = out._asdict()
    return torch.stack([(weights[name].to(named[name].dtype) * named[name]).sum() for name in weights]).sum()


def leaves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[name] for name in ("hidden", "weight", "bias") if name in tensors}


def grads(loss: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    wanted = leaves(tensors)
    return dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))


def as_double(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x.detach().double().requires_grad_() if x.is_floating_point() else x for name, x in tensors.items()}


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_two_tokens_by_hand() -> None:
    """Logits (0, ln 3) are p = (1/4, 3/4): every output and gradient follows on paper."""
    hidden = torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[0.0], [math.log(3)]], dtype=torch.float64, requires_grad=True)
    out = linear_logprob(hidden, weight, torch.tensor([1]), outputs=ALL)
    expected = {
        "logprob": math.log(0.75),
        "entropy": -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)),
        "lse": math.log(4),
        "log_sum_sq_probs": math.log(10 / 16),
        "mean_logit": math.log(3) / 2,
        "is_top1": True,
    }
    for name, value in expected.items():
        assert getattr(out, name).item() == pytest.approx(value, rel=1e-12), name
    # d logprob / d logits = onehot - p
    torch.testing.assert_close(
        torch.autograd.grad(out.logprob.sum(), [hidden, weight], retain_graph=True),
        (torch.tensor([[0.25 * math.log(3)]]).double(), torch.tensor([[-0.25], [0.25]]).double()),
    )
    # d entropy / d logit_j = -p_j (log p_j + entropy)
    slope = [-p * (math.log(p) + expected["entropy"]) for p in (0.25, 0.75)]
    torch.testing.assert_close(
        torch.autograd.grad(out.entropy.sum(), weight, retain_graph=True)[0], torch.tensor(slope).double()[:, None]
    )
    # d lse / d logits = p
    torch.testing.assert_close(torch.autograd.grad(out.lse.sum(), weight)[0], torch.tensor([[0.25], [0.75]]).double())


def test_order_is_bias_scale_softcap_temperature() -> None:
    score, bias, scale, cap, temperature = 3.0, 0.5, 0.7, 2.0, 1.7
    out = linear_logprob(
        torch.tensor([[score]]).double(),
        torch.tensor([[1.0]]).double(),
        torch.tensor([0]),
        bias=torch.tensor([bias]).double(),
        logit_scale=scale,
        softcap=cap,
        temperature=temperature,
        outputs=("lse",),
    )
    assert out.lse.item() == pytest.approx(cap * math.tanh(scale * (score + bias) / cap) / temperature, rel=1e-14)


def test_what_is_not_asked_for_is_none() -> None:
    out = linear_logprob(torch.randn(2, 3), torch.randn(4, 3), torch.tensor([0, 1]), outputs=("entropy",))
    assert out.entropy is not None
    assert [name for name, x in out._asdict().items() if x is None] == [n for n in ALL if n != "entropy"]


# --- against float64 truth -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "backend"), ON_CPU, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_values_and_gradients_are_as_accurate_as_eager(case: HeadCase, dtype: torch.dtype, backend: Backend) -> None:
    tensors = case.tensors(dtype)
    assert tensors["hidden"].dtype == dtype
    temperature = case.temperature_for(tensors["targets"], dtype)
    weights = upstream(case.num_rows)
    settings: dict[str, Any] = {"temperature": temperature, **case.settings()}
    actual = linear_logprob(**tensors, **settings, outputs=ALL, tile_bytes=case.small_tile(dtype), backend=backend)
    eager = linear_logprob_reference(**tensors, **settings)
    exact = as_double(tensors)
    if isinstance(temperature, Tensor):
        settings["temperature"] = temperature.double()
    truth = linear_logprob_reference(**exact, **settings)
    for name in ALL[:-1]:
        assert_as_accurate_as_eager(getattr(actual, name), getattr(eager, name), getattr(truth, name), name=name)
    assert torch.equal(actual.is_top1, eager.is_top1)
    assert (actual.logprob <= 0).all()
    actual_grads = grads(loss_of(actual, weights), tensors)
    eager_grads = grads(loss_of(eager, weights), tensors)
    truth_grads = grads(loss_of(truth, weights), exact)
    for name, grad in actual_grads.items():
        assert_as_accurate_as_eager(grad, eager_grads[name], truth_grads[name], name=f"grad {name}")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_equals_the_reference_in_float64(case: HeadCase) -> None:
    tensors = case.tensors(torch.float64)
    settings: dict[str, Any] = {
        "temperature": case.temperature_for(tensors["targets"], torch.float64),
        **case.settings(),
    }
    weights = upstream(case.num_rows)
    actual = linear_logprob(**tensors, **settings, outputs=ALL, tile_bytes=case.small_tile(torch.float64))
    expected = linear_logprob_reference(**tensors, **settings)
    torch.testing.assert_close(tuple(actual), tuple(expected), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(
        grads(loss_of(actual, weights), tensors), grads(loss_of(expected, weights), tensors), rtol=1e-11, atol=1e-12
    )


def test_equals_trl() -> None:
    """The head op of TRL 1.16, written by others, on every output that both have."""
    kernels = pytest.importorskip("trl.kernels")
    case = CASES[-2]
    tensors = case.tensors(torch.float32)
    targets = tensors["targets"].clamp(min=0)
    theirs = kernels.ChunkedLogProbFunction.apply(
        tensors["hidden"], tensors["weight"], tensors["bias"], targets, 0.7, 16, case.softcap, case.logit_scale
    )
    ours = linear_logprob(
        **leaves(tensors), targets=targets, temperature=0.7, **case.settings(), outputs=ALL, tile_bytes=1000
    )
    fields = ("logprob", "entropy", "log_sum_sq_probs", "mean_logit", "is_top1")
    for name, other in zip(fields, theirs, strict=True):
        torch.testing.assert_close(getattr(ours, name), other, msg=name)
    torch.testing.assert_close(
        grads((ours.logprob + 0.1 * ours.entropy).sum(), tensors),
        grads((theirs[0] + 0.1 * theirs[1]).sum(), tensors),
    )


def test_gradcheck() -> None:
    case = SMALL
    tensors = case.tensors(torch.float64)
    temperature = case.temperature_for(tensors["targets"], torch.float64)

    def op(hidden: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor | None, ...]:
        return linear_logprob(
            hidden, weight, tensors["targets"], bias=bias, temperature=temperature, **case.settings(),
            outputs=DIFFERENTIABLE, tile_bytes=120,
        )[:3]  # fmt: skip

    assert torch.autograd.gradcheck(op, tuple(leaves(tensors).values()))


# --- invariances -----------------------------------------------------------------------------------------------------


def run(case: HeadCase, tensors: dict[str, Tensor], **extra: Any) -> tuple[LogprobOutput, dict[str, Tensor]]:
    torch.manual_seed(1)
    out = linear_logprob(**tensors, **case.settings(), outputs=ALL, **extra)
    return out, grads(loss_of(out, upstream(len(tensors["targets"]))), tensors)


@pytest.mark.parametrize("rows_per_tile", [1, 2, 12, 13, 14, 1000])
def test_tile_size_changes_nothing_beyond_rounding(rows_per_tile: int) -> None:
    case = CASES[-2]
    tensors = case.tensors(torch.float32)
    whole, whole_grads = run(case, tensors)
    tiled, tiled_grads = run(case, tensors, tile_bytes=rows_per_tile * case.vocab * 4)
    torch.testing.assert_close(tiled, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tiled_grads, whole_grads, rtol=1e-5, atol=1e-6)


def test_two_runs_are_bit_identical() -> None:
    case = CASES[3]
    tensors = case.tensors(torch.bfloat16)
    first, second = (run(case, tensors, tile_bytes=case.small_tile(torch.bfloat16)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


def test_permuted_rows_give_permuted_results() -> None:
    tensors = CASES[3].tensors(torch.float64)
    order = torch.randperm(33)
    permuted = tensors | {"hidden": tensors["hidden"][order], "targets": tensors["targets"][order]}
    straight = linear_logprob(**tensors, outputs=ALL)
    shuffled = linear_logprob(**permuted, outputs=ALL, tile_bytes=1000)
    torch.testing.assert_close(tuple(x[order] for x in straight), tuple(shuffled))


def test_permuted_vocabulary_changes_nothing() -> None:
    tensors = CASES[3].tensors(torch.float64)
    order = torch.randperm(400)
    targets = tensors["targets"]
    moved = torch.where(targets >= 0, order.argsort()[targets.clamp(min=0)], targets)
    permuted = {**tensors, "weight": tensors["weight"][order], "bias": tensors["bias"][order], "targets": moved}
    torch.testing.assert_close(linear_logprob(**permuted, outputs=ALL), linear_logprob(**tensors, outputs=ALL))


@pytest.mark.parametrize("shift", [-200.0, 5.0, 200.0])
def test_constant_on_all_logits_moves_lse_alone(shift: float) -> None:
    """At -200 and +200 a softmax that forgets to subtract the maximum under- or overflows."""
    tensors = CASES[3].tensors(torch.float32)
    base = linear_logprob(**tensors, outputs=DIFFERENTIABLE)
    moved = linear_logprob(**tensors | {"bias": tensors["bias"] + shift}, outputs=DIFFERENTIABLE)
    labelled = tensors["targets"] >= 0
    torch.testing.assert_close(moved.logprob, base.logprob, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved.entropy, base.entropy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved.lse, base.lse + shift * labelled, rtol=1e-4, atol=1e-4)


def test_gradient_by_the_logits_sums_to_zero() -> None:
    """Softmax does not see a constant, so the gradient by the bias has none; through lse it sums to one a row."""
    tensors = CASES[3].tensors(torch.float64)
    labelled = int((tensors["targets"] >= 0).sum())
    out = linear_logprob(**tensors, outputs=DIFFERENTIABLE)
    for name, total in (("logprob", 0), ("entropy", 0), ("lse", labelled)):
        (grad,) = torch.autograd.grad(getattr(out, name).sum(), tensors["bias"], retain_graph=True)
        assert float(grad.abs().max()) > 0
        assert float(grad.sum()) == pytest.approx(total, abs=1e-12)


def test_uniform_rows_have_the_largest_entropy() -> None:
    out = linear_logprob(torch.zeros(3, 4), torch.randn(50, 4), torch.tensor([0, 1, 2]), outputs=ALL)
    torch.testing.assert_close(out.entropy, torch.full((3,), math.log(50)))
    torch.testing.assert_close(out.log_sum_sq_probs, torch.full((3,), -math.log(50)))
    assert out.is_top1.tolist() == [True, False, False]  # of equal logits the first is the top


# --- edges -----------------------------------------------------------------------------------------------------------


def test_ignored_rows_are_exactly_zero_whatever_they_hold() -> None:
    tensors = CASES[3].tensors(torch.float32)
    with torch.no_grad():
        tensors["hidden"][tensors["targets"] == -100] = torch.nan
    out = linear_logprob(**tensors, outputs=ALL, tile_bytes=CASES[3].small_tile(torch.float32))
    ignored = tensors["targets"] == -100
    found = grads(loss_of(out, upstream(33)), tensors)
    assert all((x[ignored] == 0).all() for x in out)
    assert all((x[~ignored] != 0).all() for x in out[:3])
    assert (found["hidden"][ignored] == 0).all()
    assert all(grad.isfinite().all() for grad in found.values())


def test_rows_without_upstream_gradient_get_exactly_zero_and_no_work() -> None:
    tensors = CASES[2].tensors(torch.float32)
    tensors["targets"] = tensors["targets"].clamp(min=0)
    out = linear_logprob(**tensors)
    weights = torch.tensor([0.0, 1, 0, 0, 2, 0, 0])
    found = grads((weights * out.logprob).sum(), tensors)
    assert (found["hidden"][weights == 0] == 0).all()
    assert (found["hidden"][weights != 0] != 0).all()
    with OpWatch() as watch:
        nothing = grads((0 * linear_logprob(**tensors).logprob).sum(), tensors)
    assert all((grad == 0).all() for grad in nothing.values())
    assert watch.matmuls == 1, "only the forward may multiply"


def test_impossible_tokens_are_legal() -> None:
    """-inf on some logits: probability 0, no NaN in entropy or gradient (a mask on the vocabulary does this)."""
    hidden = torch.randn(3, 4, requires_grad=True)
    weight = torch.randn(5, 4, requires_grad=True)
    bias = torch.tensor([0, -torch.inf, 0, -torch.inf, 0], requires_grad=True)
    out = linear_logprob(hidden, weight, torch.tensor([0, 2, 4]), bias=bias, outputs=ALL)
    kept = linear_logprob(hidden, weight[::2], torch.tensor([0, 1, 2]), outputs=ALL)
    for name in ("logprob", "entropy", "lse", "log_sum_sq_probs", "is_top1"):
        torch.testing.assert_close(getattr(out, name), getattr(kept, name), msg=name)
    grad_hidden, grad_weight, grad_bias = torch.autograd.grad(
        out.logprob.sum() + out.entropy.sum() + out.lse.sum(), [hidden, weight, bias]
    )
    assert grad_hidden.isfinite().all()
    assert (grad_weight[1::2] == 0).all()
    assert (grad_bias[1::2] == 0).all()
    impossible = linear_logprob(hidden, weight, torch.tensor([1, 1, 1]), bias=bias)
    assert (impossible.logprob == -torch.inf).all()


def test_row_of_impossible_tokens_is_nan_like_log_softmax() -> None:
    bias = torch.full((5,), -torch.inf)
    out = linear_logprob(torch.randn(2, 4), torch.randn(5, 4), torch.tensor([0, 1]), bias=bias, outputs=DIFFERENTIABLE)
    assert all(x.isnan().all() for x in out[:3])


def test_gradient_survives_near_certainty() -> None:
    """p = 1 - 6e-6: value and gradient have the digits that float32 leaves beside 1, and agree in sign."""
    weight = torch.tensor([[0.0], [12.0]], requires_grad=True)
    out = linear_logprob(torch.tensor([[1.0]]), weight, torch.tensor([1]))
    (grad,) = torch.autograd.grad(out.logprob.sum(), weight)
    wrong = 1 / (1 + math.exp(12))
    assert out.logprob.item() == pytest.approx(math.log1p(-wrong), rel=0.02)
    assert grad.flatten().tolist() == pytest.approx([-wrong, wrong], rel=0.02)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_rows(dtype: torch.dtype) -> None:
    hidden = torch.zeros(0, 4, dtype=dtype, requires_grad=True)
    weight = torch.randn(5, 4).to(dtype).requires_grad_()
    out = linear_logprob(hidden, weight, torch.zeros(0, dtype=torch.int64), outputs=ALL)
    assert all(x.shape == (0,) for x in out)
    grad_hidden, grad_weight = torch.autograd.grad(out.logprob.sum() + out.entropy.sum(), [hidden, weight])
    assert grad_hidden.shape == (0, 4)
    assert torch.equal(grad_weight, torch.zeros_like(weight))


def test_leading_axes_and_strides() -> None:
    hidden = torch.randn(9, 3, 4).transpose(0, 1).transpose(1, 2)[:, :, ::2].transpose(1, 2)  # [3, 5, 4], strided
    weight = torch.randn(4, 11).t()
    targets = torch.randint(0, 11, (3, 10))[:, ::2]
    assert not hidden.is_contiguous()
    assert not targets.is_contiguous()
    out = linear_logprob(hidden, weight, targets, outputs=ALL, temperature=torch.full((3, 5), 0.5))
    flat = linear_logprob_reference(hidden.reshape(15, 4), weight, targets.reshape(15), temperature=0.5)
    for name in ALL:
        torch.testing.assert_close(getattr(out, name), getattr(flat, name).view(3, 5), msg=name)


# --- cost ------------------------------------------------------------------------------------------------------------


def test_no_tensor_holds_all_logits() -> None:
    num_rows, width, vocab, rows_per_tile = 64, 8, 512, 4
    hidden = torch.randn(num_rows, width, requires_grad=True)
    weight = torch.randn(vocab, width, requires_grad=True)
    targets = torch.randint(0, vocab, (num_rows,))
    with OpWatch() as watch:
        out = linear_logprob(hidden, weight, targets, outputs=ALL, tile_bytes=rows_per_tile * vocab * 4)
        (out.logprob + out.entropy + out.lse).sum().backward()
    assert watch.largest <= max(rows_per_tile * vocab, vocab * width)
    with OpWatch() as plain:
        linear_logprob_reference(hidden, weight, targets)
    assert plain.largest == num_rows * vocab, "the watch sees nothing, so it proves nothing"


@pytest.mark.parametrize(("frozen", "matmuls"), [((), 4), (("weight",), 3), (("hidden",), 3)])
def test_frozen_side_costs_no_product(frozen: tuple[str, ...], matmuls: int) -> None:
    tensors = CASES[2].tensors(torch.float32)
    for name in frozen:
        tensors[name].requires_grad_(False)
    with OpWatch() as watch:
        linear_logprob(**tensors).logprob.sum().backward()
    assert watch.matmuls == matmuls
    assert all(tensors[name].grad is None for name in frozen)


def test_counts_its_calls() -> None:
    before = backend_calls().get(("linear_logprob", "reference"), 0)
    linear_logprob(torch.randn(2, 3), torch.randn(4, 3), torch.tensor([0, 1]), backend="reference")
    assert backend_calls()["linear_logprob", "reference"] == before + 1


# --- autograd and registration ---------------------------------------------------------------------------------------


def test_backward_twice_is_the_same_and_second_derivative_is_refused() -> None:
    tensors = CASES[2].tensors(torch.float64)
    loss = linear_logprob(**tensors).logprob.sum()
    first, second = (torch.autograd.grad(loss, tensors["hidden"], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    (grad,) = torch.autograd.grad(loss, tensors["hidden"], create_graph=True)
    with pytest.raises(RuntimeError, match="linear_logprob has no second derivative"):
        grad.sum().backward()


def test_statistics_carry_no_gradient() -> None:
    out = linear_logprob(**CASES[2].tensors(torch.float32), outputs=ALL)
    assert [x.requires_grad for x in out] == [True, True, True, False, False, False]


def test_autocast_casts_as_a_linear_layer_does() -> None:
    tensors = CASES[2].tensors(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = linear_logprob(**tensors)
    halves = {name: x.bfloat16() if x.is_floating_point() else x for name, x in tensors.items()}
    torch.testing.assert_close(out, linear_logprob(**halves), rtol=0, atol=0)
    assert grads(out.logprob.sum(), tensors)["hidden"].dtype == torch.float32


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "empty"])
def test_opcheck(layout: str, backend: Backend) -> None:
    num_rows = 0 if layout == "empty" else 6
    hidden, weight = torch.randn(num_rows, 4), torch.randn(9, 4)
    if layout == "transposed":
        hidden, weight = hidden.t().contiguous().t(), weight.t().contiguous().t()
    targets = torch.randint(0, 9, (num_rows,))
    targets[:1] = -100
    args = (
        hidden.requires_grad_(), weight.requires_grad_(), targets, torch.randn(9, requires_grad=True),
        torch.randn(num_rows, 2, requires_grad=True), torch.randn(9, 2, requires_grad=True),
        torch.rand(num_rows) + 0.5, 1.0, 3.0, 1.3, "logprob,entropy,lse,is_top1", -100, 100, 4, backend,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.rlsft.linear_logprob.default, args)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compiles_to_one_graph(compiler: str) -> None:
    tensors = CASES[-2].tensors(torch.float32)
    temperature = torch.rand(13) + 0.5

    def step(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        out = linear_logprob(
            hidden, weight, targets, bias=bias, temperature=temperature, softcap=2.0, outputs=("logprob", "entropy")
        )
        return (out.logprob - 0.1 * out.entropy).sum()

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend=compiler)(**tensors)
    plain = step(**tensors)
    torch.testing.assert_close(compiled, plain)
    torch.testing.assert_close(grads(compiled, tensors), grads(plain, tensors))


# --- errors ----------------------------------------------------------------------------------------------------------

HIDDEN, WEIGHT, TARGETS = torch.zeros(3, 4), torch.zeros(5, 4), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"hidden": [[1.0]]}, TypeError, "hidden must be a torch.Tensor, got list"),
        ({"hidden": HIDDEN.long()}, TypeError, "hidden must be float32 or .*got torch.int64"),
        ({"hidden": HIDDEN[0]}, ValueError, r"hidden must be \[\.\.\., H\] with H = 4 .*got \[4\]"),
        ({"hidden": HIDDEN[:, :3]}, ValueError, r"with H = 4 as in weight, got \[3, 3\]"),
        ({"hidden": HIDDEN.bfloat16()}, TypeError, r"weight must have the dtype of hidden \(torch.bfloat16\)"),
        ({"weight": WEIGHT[0]}, ValueError, r"weight must be \[V, H\] with V >= 1, got \[4\]"),
        ({"weight": WEIGHT[:0]}, ValueError, r"weight must be \[V, H\] with V >= 1, got \[0, 4\]"),
        ({"targets": TARGETS.int()}, TypeError, "targets must be int64 token ids, got torch.int32"),
        ({"targets": TARGETS[:2]}, ValueError, r"targets must be \[3\], one per row of hidden, got \[2\]"),
        ({"targets": torch.tensor([0, 5, 7])}, ValueError, r"targets must be in \[0, 5\) .*got 5 in row 1"),
        ({"targets": torch.tensor([0, 1, -1])}, ValueError, "ignore_index=-100, got -1 in row 2"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias must be \[V\] = \[5\], got \[4\]"),
        ({"temperature": 0.0}, ValueError, r"temperature must be finite and > 0, got 0.0"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number, got str"),
        ({"temperature": torch.ones(2)}, ValueError, r"temperature must be .*\[3\], got \[2\]"),
        ({"temperature": torch.ones(3, requires_grad=True)}, ValueError, "temperature gets no gradient"),
        ({"softcap": -1.0}, ValueError, "softcap must be finite and > 0, got -1.0"),
        ({"logit_scale": math.nan}, ValueError, "logit_scale must be finite, got nan"),
        ({"outputs": ("logprobs",)}, ValueError, "outputs must be one of 'logprob', .*got 'logprobs'"),
        ({"outputs": "logprob"}, TypeError, "outputs must be a sequence of names"),
        ({"tile_bytes": 0}, ValueError, "tile_bytes must be >= 1, got 0"),
        ({"backend": "cuda"}, ValueError, "linear_logprob: backend must be one of auto, .*got 'cuda'"),
        ({"backend": "triton"}, ValueError, "linear_logprob: backend='triton' takes .* on cuda, got float32 on cpu"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"hidden": HIDDEN, "weight": WEIGHT, "targets": TARGETS} | changed
    with pytest.raises(error, match=message):
        linear_logprob(**arguments)
