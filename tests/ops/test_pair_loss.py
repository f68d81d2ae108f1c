"""pair_loss: every kind by hand, oracles, what holds at zero, safe at any delta, registration, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rlsft_kernels import pair_loss
from rlsft_kernels.pair_loss.reference import KINDS, pair_loss_reference

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["reference", "native"])


def one_pair(real: float, generated: float, dtype: torch.dtype, **settings: Any) -> tuple[float, float, float, dict]:
    """(loss, slope by real, slope by generated, stats)."""
    deltas = [torch.tensor([x], dtype=dtype, requires_grad=True) for x in (real, generated)]
    loss, stats = pair_loss(*deltas, **settings)
    slopes = torch.autograd.grad(loss, deltas)
    return loss.item(), slopes[0].item(), slopes[1].item(), stats


@DTYPES
@pytest.mark.parametrize(
    ("kind", "settings", "loss", "by_real", "by_generated"),
    [
        # beta h = ln 3: the model gives the real answer 3/4
        ("logistic", {}, math.log(4 / 3), -0.125, 0.125),
        ("logistic", {"label_smoothing": 0.1}, 0.9 * math.log(4 / 3) + 0.1 * math.log(4), -0.075, 0.075),
        ("linear", {}, -math.log(3), -0.5, 0.5),
        ("hinge", {}, 0.0, 0.0, 0.0),
        # rho_real = ln 3, rho_generated = 0
        ("bernoulli", {}, math.log(4 / 3) + math.log(2), -0.125, 0.25),
        ("bernoulli", {"offset": math.log(3)}, math.log(10 / 9) + math.log(4), -0.05, 0.375),
        ("kliep", {}, 1 - math.log(3), -0.5, 0.5),
        ("kliep", {"offset": math.log(2)}, 2 - math.log(6), -0.5, 1.0),
    ],
)
def test_by_hand(
    kind: str, settings: dict[str, float], loss: float, by_real: float, by_generated: float, dtype: torch.dtype
) -> None:
    found = one_pair(2 * math.log(3), 0.0, dtype, beta=0.5, kind=kind, **settings)
    assert found[:3] == pytest.approx((loss, by_real, by_generated), rel=2e-6, abs=1e-7)
    stats = {name: x.item() for name, x in found[3].items()}
    assert stats == pytest.approx(
        {
            "count": 1, "loss": loss, "accuracy": 1, "rewards/real": math.log(3), "rewards/generated": 0,
            "margin": math.log(3), "saturation": float(kind == "hinge"),
        }, rel=2e-6, abs=1e-7,
    )  # fmt: skip


@DTYPES
def test_hinge_inside_its_margin(dtype: torch.dtype) -> None:
    assert one_pair(0.5, 1.0, dtype, beta=0.5, kind="hinge")[:3] == pytest.approx((1.25, -0.5, 0.5))
    assert one_pair(2.0, 0.0, dtype, beta=0.5, kind="hinge")[:3] == (0, 0, 0)  # exactly at the corner


@DTYPES
@pytest.mark.parametrize(
    ("kind", "loss", "slope"),
    [
        ("logistic", math.log(2), 0.15),
        ("linear", 0.0, 0.3),
        ("hinge", 1.0, 0.3),
        ("bernoulli", 2 * math.log(2), 0.15),
        ("kliep", 1.0, 0.3),
    ],
)
def test_when_policy_and_reference_are_equal(kind: str, loss: float, slope: float, dtype: torch.dtype) -> None:
    """The first step is `slope` times the gradient of supervised fine-tuning, towards real and away from generated."""
    found = one_pair(0.0, 0.0, dtype, beta=0.3, kind=kind)
    assert found[:3] == pytest.approx((loss, -slope, slope), abs=1e-7)
    assert found[3]["accuracy"] == 0  # a tie is not correct


@DTYPES
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [50.0, 200.0, 1e4, 1e30])
def test_any_finite_delta_is_finite(size: float, kind: str, dtype: torch.dtype) -> None:
    for signs in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        loss, *slopes, stats = one_pair(signs[0] * size, signs[1] * size, dtype, beta=1.0, kind=kind)
        assert math.isfinite(loss)
        assert all(math.isfinite(x) for x in slopes)
        assert all(x.isfinite() for x in stats.values())


@DTYPES
def test_kliep_stops_pushing_beyond_its_clamp(dtype: torch.dtype) -> None:
    assert one_pair(0.0, 19.0, dtype, beta=1.0, kind="kliep")[2] == pytest.approx(math.exp(19), rel=1e-5)
    loss, by_real, by_generated, stats = one_pair(0.0, 21.0, dtype, beta=1.0, kind="kliep")
    assert loss == pytest.approx(math.exp(20), rel=1e-5)
    assert (by_real, by_generated) == (-1, 0)
    assert stats["saturation"] == 1


@DTYPES
def test_saturation_is_the_share_with_little_pull(dtype: torch.dtype) -> None:
    deltas = torch.tensor([0.0, 4.5, 4.7, 30.0], dtype=dtype)  # sigmoid(-4.5) = 0.011, sigmoid(-4.7) = 0.009
    assert pair_loss(deltas, torch.zeros_like(deltas), beta=1.0)[1]["saturation"] == 0.5
    assert pair_loss(deltas, -deltas, beta=1.0, kind="bernoulli")[1]["saturation"] == 0.5
    assert pair_loss(deltas, deltas, beta=1.0, kind="bernoulli")[1]["saturation"] == 0
    assert pair_loss(deltas, -deltas, beta=1.0, kind="linear")[1]["saturation"] == 0


def test_equals_the_formulas_of_dpo_and_spin() -> None:
    """DPO with label smoothing (conservative DPO) and SPIN's losses, written as their trainers write them."""
    real, generated = 2 * torch.randn(2, 50, dtype=torch.float64)
    h = real - generated
    dpo = -F.logsigmoid(0.1 * h) * 0.8 - F.logsigmoid(-0.1 * h) * 0.2
    torch.testing.assert_close(pair_loss(real, generated, beta=0.1, label_smoothing=0.2)[0], dpo.mean())
    torch.testing.assert_close(pair_loss(real, generated, beta=0.1)[0], -F.logsigmoid(0.1 * h).mean())
    hinge = torch.relu(1 - 0.1 * h).mean()
    torch.testing.assert_close(pair_loss(real, generated, beta=0.1, kind="hinge")[0], hinge)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: str) -> None:
    deltas = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([1, 1, 0, 1, 1, 1]).bool()
    for function in (pair_loss, pair_loss_reference):
        assert torch.autograd.gradcheck(
            lambda d, function=function: function(d[0], d[1], beta=0.7, kind=kind, mask=mask)[0], (deltas,)
        )


@DTYPES
@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_with_one_normalizer_equal_the_batch(kind: str, as_tensor: bool, dtype: torch.dtype) -> None:
    deltas = torch.randn(2, 12).to(dtype).requires_grad_()
    mask = torch.rand(12) > 0.3
    whole, _ = pair_loss(*deltas, beta=0.5, kind=kind, mask=mask)
    count: Any = mask.sum() if as_tensor else int(mask.sum())
    parts = [
        pair_loss(*deltas[:, rows], beta=0.5, kind=kind, mask=mask[rows], normalizer=count)[0]
        for rows in (slice(0, 5), slice(5, 12))
    ]
    torch.testing.assert_close(parts[0] + parts[1], whole)
    torch.testing.assert_close(*(torch.autograd.grad(x, deltas)[0] for x in (parts[0] + parts[1], whole)))


@DTYPES
def test_masked_equals_left_out(dtype: torch.dtype) -> None:
    deltas = torch.randn(2, 40).to(dtype)
    mask = torch.rand(40) > 0.5
    for kind in KINDS:
        masked = pair_loss(*deltas, beta=0.5, kind=kind, mask=mask)
        torch.testing.assert_close(masked, pair_loss(*deltas[:, mask], beta=0.5, kind=kind))


@DTYPES
def test_masked_pairs_add_exactly_zero_on_the_reference_too(dtype: torch.dtype) -> None:
    deltas = torch.randn(2, 40).to(dtype)
    mask = torch.rand(40) > 0.5
    for value in (math.nan, math.inf):
        poisoned = torch.where(mask, deltas, value).requires_grad_()
        for kind in KINDS:
            loss, stats = pair_loss(*poisoned, beta=0.5, kind=kind, mask=mask)
            expected = pair_loss(*deltas, beta=0.5, kind=kind, mask=mask)
            assert torch.equal(loss, expected[0])
            assert all(torch.equal(x, expected[1][name]) for name, x in stats.items())
            (grad,) = torch.autograd.grad(loss, poisoned)
            assert (grad[:, ~mask] == 0).all()


def test_only_the_difference_counts_for_the_kinds_on_it() -> None:
    deltas = torch.randn(2, 9).double()
    for kind in ("logistic", "linear", "hinge"):
        moved, plain = (pair_loss(*(deltas + c), beta=0.5, kind=kind)[0] for c in (7, 0))
        torch.testing.assert_close(moved, plain)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("layout", ["contiguous", "strided", "empty", "masked"])
def test_opcheck(layout: str, backend: str) -> None:
    real, generated = torch.randn(2, 0 if layout == "empty" else 12)
    if layout == "strided":
        real, generated = real[::2], generated[:1].expand(6)
    mask = torch.rand(12) > 0.4 if layout == "masked" else None
    normalizer = torch.tensor(5.0) if layout == "masked" else None
    args = (real.requires_grad_(), generated.requires_grad_(), mask, normalizer, "kliep", 0.1, 0.2, 0.0, backend)
    torch.library.opcheck(torch.ops.rlsft.pair_loss.default, args)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@DTYPES
def test_compiles_to_one_graph(dtype: torch.dtype, compiler: str) -> None:
    deltas = [torch.randn(9).to(dtype).requires_grad_() for _ in range(2)]

    def step(real: Tensor, generated: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return pair_loss(real, generated, beta=0.3, mask=torch.ones(9).bool(), normalizer=4.0)

    torch._dynamo.reset()
    compiled, plain = torch.compile(step, fullgraph=True, backend=compiler)(*deltas), step(*deltas)
    torch.testing.assert_close(compiled, plain)
    torch.testing.assert_close(*(torch.autograd.grad(loss, deltas) for loss, _ in (compiled, plain)))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"delta_real": torch.zeros(3).int()}, TypeError, "delta_real must be float32 or .*got torch.int32"),
        ({"delta_real": torch.zeros(3, 1)}, ValueError, r"delta_real must be \[P\], one log-ratio sum a pair"),
        ({"delta_generated": torch.zeros(2)}, ValueError, r"delta_generated must be shaped like delta_real \[3\]"),
        ({"mask": torch.ones(3)}, TypeError, r"mask must be bool or integer .*pass mask.bool\(\)"),
        ({"mask": torch.ones(2).bool()}, ValueError, r"mask must be shaped like delta_real \[3\], got \[2\]"),
        ({"beta": 0.0}, ValueError, "beta must be finite and > 0, got 0.0"),
        ({"beta": math.nan}, ValueError, "beta must be finite and > 0, got nan"),
        ({"kind": "ipo"}, ValueError, "kind must be one of 'logistic', .*got 'ipo'"),
        ({"label_smoothing": 0.6}, ValueError, r"label_smoothing must be in \[0, 0.5\], got 0.6"),
        ({"label_smoothing": 0.1, "kind": "hinge"}, ValueError, "label_smoothing must be 0 with kind='hinge', got 0.1"),
        ({"offset": 1.0}, ValueError, "offset must be 0 with kind='logistic', got 1; there it would cancel out"),
        ({"normalizer": torch.ones(2)}, ValueError, r"normalizer must be a number or a 0-d tensor, got shape \[2\]"),
        ({"backend": "triton"}, ValueError, "pair_loss: backend='triton' takes"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"delta_real": torch.zeros(3), "delta_generated": torch.zeros(3), "beta": 0.1}
    with pytest.raises(error, match=message):
        pair_loss(**arguments | changed)
