"""logprob_from_logits: linear_logprob after its product; float64 truth, layouts, rows left out, registration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels import linear_logprob, logprob_from_logits
from rlsft_kernels._backend import Backend, backend_calls
from rlsft_kernels.logprob_from_logits.reference import logprob_from_logits_reference
from tests.ops.head_cases import ON_CPU, OpWatch
from tests.support.closeness import assert_as_accurate_as_eager

DIFFERENTIABLE = ("logprob", "entropy", "lse")
ALL = (*DIFFERENTIABLE, "log_sum_sq_probs", "mean_logit", "is_top1")
TRANSFORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "capped": {"softcap": 3.0, "logit_scale": 0.7},
    "hot": {"temperature": 1.7},
    "everything": {"softcap": 3.0, "logit_scale": 1.3, "temperature": "per token"},
}


def case(num_rows: int, vocab: int, dtype: torch.dtype, transform: str) -> tuple[Tensor, Tensor, dict[str, Any]]:
    torch.manual_seed(11)
    logits = (3 * torch.randn(num_rows, vocab)).to(dtype).requires_grad_()
    targets = torch.randint(0, vocab, (num_rows,))
    targets[::4] = -100
    settings = dict(TRANSFORMS[transform])
    if settings.get("temperature") == "per token":
        settings["temperature"] = torch.rand(num_rows) + 0.5
    return logits, targets, settings


def weighted(out: Any) -> Tensor:
    torch.manual_seed(5)
    weights = torch.randn(3, len(out.logprob), dtype=torch.float64)
    return (weights.to(out.logprob.dtype) * torch.stack((out.logprob, out.entropy, out.lse))).sum()


@pytest.mark.parametrize(("dtype", "backend"), ON_CPU, ids=str)
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("num_rows", "vocab"), [(9, 31), (5, 4099), (7, 2)])
def test_values_and_gradient_are_as_accurate_as_eager(
    num_rows: int, vocab: int, transform: str, dtype: torch.dtype, backend: Backend
) -> None:
    logits, targets, settings = case(num_rows, vocab, dtype, transform)
    actual = logprob_from_logits(logits, targets, **settings, outputs=ALL, backend=backend)
    eager = logprob_from_logits_reference(logits, targets, **settings)
    exact = logits.detach().double().requires_grad_()
    widened = {name: x.double() if isinstance(x, Tensor) else x for name, x in settings.items()}
    truth = logprob_from_logits_reference(exact, targets, **widened)
    for name in ALL[:-1]:
        assert_as_accurate_as_eager(getattr(actual, name), getattr(eager, name), getattr(truth, name), name=name)
    assert torch.equal(actual.is_top1, eager.is_top1)
    (grad,) = torch.autograd.grad(weighted(actual), logits)
    (eager_grad,) = torch.autograd.grad(weighted(eager), logits)
    (truth_grad,) = torch.autograd.grad(weighted(truth), exact)
    assert_as_accurate_as_eager(grad, eager_grad, truth_grad, name="grad")
    assert (grad[::4] == 0).all()


def test_gradcheck() -> None:
    logits, targets, settings = case(5, 7, torch.float64, "everything")

    def op(x: Tensor) -> tuple[Any, ...]:
        return logprob_from_logits(x, targets, **settings, outputs=DIFFERENTIABLE)[:3]

    assert torch.autograd.gradcheck(op, (logits,))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_is_linear_logprob_after_the_product(backend: Backend) -> None:
    hidden, weight, targets = torch.randn(6, 8), torch.randn(40, 8), torch.randint(0, 40, (6,))
    from_logits = logprob_from_logits(hidden @ weight.T, targets, outputs=ALL, temperature=0.8, backend=backend)
    from_hidden = linear_logprob(hidden, weight, targets, outputs=ALL, temperature=0.8, backend=backend)
    torch.testing.assert_close(tuple(from_logits), tuple(from_hidden))


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("layout", ["rows of a wider tensor", "every other row", "transposed", "leading axes"])
def test_layouts_are_read_as_they_are(layout: str, backend: Backend) -> None:
    wide = torch.randn(12, 50)
    logits = {
        "rows of a wider tensor": wide[:, 3:40],
        "every other row": wide[::2],
        "transposed": torch.randn(50, 12).t(),
        "leading axes": wide.view(3, 4, 50),
    }[layout]
    targets = torch.randint(0, logits.shape[-1], logits.shape[:-1])
    out = logprob_from_logits(logits, targets, backend=backend).logprob
    expected = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(out, expected)


def test_ignored_rows_may_hold_anything() -> None:
    logits = torch.randn(4, 9)
    logits[1] = torch.nan
    logits[3] = -torch.inf
    logits.requires_grad_()
    out = logprob_from_logits(logits, torch.tensor([2, -100, 5, -100]), outputs=DIFFERENTIABLE)
    assert (out.logprob[[1, 3]] == 0).all()  # type: ignore[index]
    (grad,) = torch.autograd.grad(weighted(out), logits)
    assert (grad[[1, 3]] == 0).all()
    assert grad.isfinite().all()


def test_no_rows() -> None:
    logits = torch.zeros(0, 7, requires_grad=True)
    out = logprob_from_logits(logits, torch.zeros(0, dtype=torch.int64), outputs=ALL)
    assert all(x.shape == (0,) for x in out)
    assert torch.autograd.grad(out.logprob.sum(), logits)[0].shape == (0, 7)  # type: ignore[union-attr]


def test_makes_no_tensor_of_the_size_of_the_logits_but_the_gradient() -> None:
    logits, targets = torch.randn(64, 1000).bfloat16(), torch.randint(0, 1000, (64,))
    with OpWatch(logits) as watch:
        logprob_from_logits(logits, targets, outputs=ALL)
    assert watch.largest <= 64
    with OpWatch(logits) as watch:
        logprob_from_logits_reference(logits, targets)
    assert watch.largest == 64 * 1000, "the watch sees nothing, so it proves nothing"


def test_counts_its_calls_and_refuses_a_second_derivative() -> None:
    before = backend_calls().get(("logprob_from_logits", "native"), 0)
    logits = torch.randn(2, 3, requires_grad=True)
    out = logprob_from_logits(logits, torch.tensor([0, 1])).logprob
    assert backend_calls()["logprob_from_logits", "native"] == before + 1
    assert out is not None
    (grad,) = torch.autograd.grad(out.sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="logprob_from_logits has no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("num_rows", [0, 6])
def test_opcheck(num_rows: int, backend: Backend) -> None:
    args = (
        torch.randn(num_rows, 9, requires_grad=True), torch.randint(0, 9, (num_rows,)), torch.rand(num_rows) + 0.5, 1.0,
        3.0, 1.3, "logprob,entropy,lse,is_top1", -100, backend,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.rlsft.logprob_from_logits.default, args)


def test_compiles_to_one_graph() -> None:
    def step(logits: Tensor, targets: Tensor) -> Tensor:
        out = logprob_from_logits(logits, targets, outputs=("logprob", "entropy"))
        return (out.logprob - 0.1 * out.entropy).sum()  # type: ignore[operator]

    logits, targets = torch.randn(5, 11, requires_grad=True), torch.randint(0, 11, (5,))
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(logits, targets)
    torch.testing.assert_close(
        torch.autograd.grad(compiled, logits), torch.autograd.grad(step(logits, targets), logits)
    )


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"logits": torch.zeros(3, 4).long()}, TypeError, "logits must be float32 or .* got torch.int64"),
        ({"logits": torch.zeros(3)}, ValueError, r"logits must be \[..., V\] with V >= 1, got \[3\]"),
        ({"targets": torch.zeros(3)}, TypeError, "targets must be int64 token ids, got torch.float32"),
        ({"targets": torch.zeros(2).long()}, ValueError, r"targets must be \[3\], one per row of logits, got \[2\]"),
        ({"targets": torch.tensor([0, 4, 1])}, ValueError, r"targets must be in \[0, 4\) .* got 4 in row 1"),
        ({"outputs": "logprob"}, TypeError, "outputs must be a sequence of names"),
        ({"temperature": torch.ones(2)}, ValueError, r"temperature must be a number or shaped like targets \[3\]"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"logits": torch.zeros(3, 4), "targets": torch.tensor([0, 1, 2])}
    with pytest.raises(error, match=message):
        logprob_from_logits(**(arguments | changed))
