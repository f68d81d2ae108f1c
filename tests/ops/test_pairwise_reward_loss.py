"""pairwise_reward_loss: by hand, stable at any score, against the reference, registration, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels import pairwise_reward_loss
from rlsft_kernels.pairwise_reward_loss.reference import pairwise_reward_loss_reference
from tests.support.closeness import assert_as_accurate_as_eager


def pairs(count: int = 9, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """chosen and rejected (with gradient) and a margin."""
    chosen, rejected, margin = torch.randn(3, count, dtype=torch.float64) * 2
    return chosen.to(dtype).requires_grad_(), rejected.to(dtype).requires_grad_(), margin.abs().to(dtype)


def test_two_pairs_by_hand() -> None:
    """Gaps ln 3 and -ln 3: the model gives the right order 3/4 and 1/4."""
    chosen = torch.tensor([math.log(3), 0.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([0.0, math.log(3)], dtype=torch.float64, requires_grad=True)
    loss, stats = pairwise_reward_loss(chosen, rejected)
    assert loss.item() == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)
    grad_chosen, grad_rejected = torch.autograd.grad(loss, [chosen, rejected])
    # -(1 - p of the right order), halved by the mean
    assert grad_chosen.tolist() == pytest.approx([-0.125, -0.375])
    assert grad_rejected.tolist() == pytest.approx([0.125, 0.375])
    assert {name: x.item() for name, x in stats.items()} == pytest.approx(
        {
            "count": 2, "loss/ranking": loss.item(), "loss/center": math.log(3) ** 2, "accuracy": 0.5, "margin": 0.0,
            "chosen": math.log(3) / 2, "rejected": math.log(3) / 2,
        }
    )  # fmt: skip


def test_margin_and_centring_by_hand() -> None:
    chosen, rejected = torch.tensor([2.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    loss, stats = pairwise_reward_loss(chosen, rejected, margin=torch.tensor([1.0]), center_coef=0.01)
    assert loss.item() == pytest.approx(math.log(2) + 0.01 * 9)
    assert stats["margin"] == 1  # the difference of the scores, not what is left of it
    grads = torch.autograd.grad(loss, [chosen, rejected])
    assert [grad.item() for grad in grads] == pytest.approx([-0.5 + 0.06, 0.5 + 0.06])


def test_equal_scores_cost_log_two_and_are_not_correct() -> None:
    loss, stats = pairwise_reward_loss(torch.ones(4), torch.ones(4))
    assert loss.item() == pytest.approx(math.log(2))
    assert stats["accuracy"] == 0


@pytest.mark.parametrize("size", [30.0, 90.0, 1e4, 1e30])
def test_any_finite_score_is_finite(size: float) -> None:
    """log(1 + exp(x)) overflows at 89 in float32."""
    chosen = torch.tensor([-size, size], requires_grad=True)
    loss, _ = pairwise_reward_loss(chosen, torch.zeros(2))
    assert loss.item() == pytest.approx(size / 2, rel=1e-6)
    assert torch.autograd.grad(loss, chosen)[0].tolist() == pytest.approx([-0.5, 0.0], abs=1e-12)


@pytest.mark.parametrize("count", [1, 2, 9, 1000])
@pytest.mark.parametrize("with_margin", [False, True])
def test_equals_the_reference(count: int, with_margin: bool) -> None:
    chosen, rejected, margin = pairs(count)
    settings: dict[str, Any] = {"margin": margin if with_margin else None, "center_coef": 0.05}
    actual = pairwise_reward_loss(chosen, rejected, **settings)
    expected = pairwise_reward_loss_reference(chosen, rejected, **settings)
    torch.testing.assert_close(actual, expected)
    found, wanted = (torch.autograd.grad(loss, [chosen, rejected]) for loss, _ in (actual, expected))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_is_as_accurate_as_eager(dtype: torch.dtype) -> None:
    chosen, rejected, margin = pairs(500, dtype)
    wide = [x.detach().float().requires_grad_() for x in (chosen, rejected)]
    exact = [x.detach().double().requires_grad_() for x in (chosen, rejected)]
    loss, stats = pairwise_reward_loss(chosen, rejected, margin=margin, center_coef=0.01)
    eager, eager_stats = pairwise_reward_loss_reference(*wide, margin=margin.float(), center_coef=0.01)
    truth, truth_stats = pairwise_reward_loss_reference(*exact, margin=margin.double(), center_coef=0.01)
    assert_as_accurate_as_eager(loss, eager, truth, name="loss")
    for name in stats:
        assert_as_accurate_as_eager(stats[name], eager_stats[name], truth_stats[name], name=name)
    found = torch.autograd.grad(loss, [chosen, rejected])
    eager_grads, truth_grads = torch.autograd.grad(eager, wide), torch.autograd.grad(truth, exact)
    for i, name in enumerate(("chosen", "rejected")):
        assert_as_accurate_as_eager(found[i], eager_grads[i].to(dtype), truth_grads[i], name=f"grad {name}")


def test_gradcheck() -> None:
    chosen, rejected, margin = pairs(4)
    assert torch.autograd.gradcheck(
        lambda c, r: pairwise_reward_loss(c, r, margin=margin, center_coef=0.1)[0], (chosen, rejected)
    )


def test_adding_a_constant_to_both_changes_nothing_without_centring() -> None:
    chosen, rejected, _ = pairs()
    torch.testing.assert_close(
        pairwise_reward_loss(chosen + 7, rejected + 7)[0], pairwise_reward_loss(chosen, rejected)[0]
    )


def test_no_pairs() -> None:
    chosen = torch.zeros(0, requires_grad=True)
    loss, stats = pairwise_reward_loss(chosen, torch.zeros(0), center_coef=0.1)
    assert loss == 0
    assert all(x == 0 for x in stats.values())
    assert torch.autograd.grad(loss, chosen)[0].shape == (0,)


def test_equals_trl() -> None:
    """TRL's reward trainer: -logsigmoid(chosen - rejected - margin).mean(), plus the centring term."""
    chosen, rejected, margin = pairs()
    theirs = -torch.nn.functional.logsigmoid(chosen - rejected - margin).mean()
    theirs = theirs + 0.02 * torch.mean((chosen + rejected) ** 2)
    torch.testing.assert_close(pairwise_reward_loss(chosen, rejected, margin=margin, center_coef=0.02)[0], theirs)


def test_second_derivative_is_refused() -> None:
    chosen, rejected, _ = pairs()
    loss, stats = pairwise_reward_loss(chosen, rejected)
    assert not any(x.requires_grad for x in stats.values())
    (grad,) = torch.autograd.grad(loss, chosen, create_graph=True)
    with pytest.raises(RuntimeError, match="pairwise_reward_loss has no second derivative"):
        grad.sum().backward()


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("layout", ["contiguous", "strided", "empty"])
def test_opcheck(layout: str, backend: str) -> None:
    chosen, rejected = torch.randn(2, 0 if layout == "empty" else 12)
    if layout == "strided":
        chosen, rejected = chosen[::2], rejected[::3][:2].expand(2)
        chosen = chosen[:2]
    args = (chosen.requires_grad_(), rejected.requires_grad_(), None, 0.1, backend)
    torch.library.opcheck(torch.ops.rlsft.pairwise_reward_loss.default, args)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compiles_to_one_graph(compiler: str) -> None:
    chosen, rejected, margin = pairs(dtype=torch.float32)

    def step(chosen: Tensor, rejected: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return pairwise_reward_loss(chosen, rejected, margin=margin, center_coef=0.1)

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend=compiler)(chosen, rejected)
    plain = step(chosen, rejected)
    torch.testing.assert_close(compiled, plain)
    found, wanted = (torch.autograd.grad(loss, [chosen, rejected]) for loss, _ in (compiled, plain))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"chosen": torch.zeros(3).int()}, TypeError, "chosen must be float32 or .*got torch.int32"),
        ({"chosen": torch.zeros(3, 1)}, ValueError, r"chosen must be \[P\], one score a pair, got 2 axes"),
        ({"rejected": torch.zeros(2)}, ValueError, r"rejected must be shaped like chosen \[3\], got \[2\]"),
        ({"margin": torch.zeros(1)}, ValueError, r"margin must be shaped like chosen \[3\], got \[1\]"),
        ({"margin": 1.0}, TypeError, "margin must be a torch.Tensor, got float"),
        ({"center_coef": -0.1}, ValueError, "center_coef must be finite and >= 0, got -0.1"),
        ({"backend": "triton"}, ValueError, "pairwise_reward_loss: backend='triton' takes"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"chosen": torch.zeros(3), "rejected": torch.zeros(3)}
    with pytest.raises(error, match=message):
        pairwise_reward_loss(**arguments | changed)
