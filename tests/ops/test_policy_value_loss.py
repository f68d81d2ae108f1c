"""policy_value_loss: every branch by hand, autograd on the reference, masks, clamps, invariances, registration."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels import policy_value_loss
from rlsft_kernels.policy_value_loss.reference import kl_estimate, policy_value_loss_reference
from tests.support.closeness import assert_as_accurate_as_eager

LEAVES = ("logprobs", "values", "entropy")
TOKENS = ("logprobs", "old_logprobs", "advantages", "values", "old_values", "returns")


def batch(shape: tuple[int, ...] = (5, 7), dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """A rollout whose ratios, values and KL fall on every side of their clips."""
    made = {name: torch.randn(shape, dtype=torch.float64) for name in (*TOKENS, "entropy", "ref_logprobs")}
    made["old_logprobs"] = made["logprobs"] + 0.4 * torch.randn(shape)
    made["ref_logprobs"] = made["logprobs"] + 0.8 * torch.randn(shape)
    made["old_values"] = made["values"] + 0.3 * torch.randn(shape)
    made = {name: x.to(dtype) for name, x in made.items()}
    for name in LEAVES:
        made[name].requires_grad_()
    return made | {"mask": torch.rand(shape) > 0.3}


EVERYTHING: dict[str, Any] = {
    "clip_low": 0.1, "clip_high": 0.3, "dual_clip": 1.2, "value_clip": 0.25, "vf_coef": 0.5, "entropy_coef": 0.02,
    "kl_coef": 0.3,
}  # fmt: skip


def grads(loss: Tensor, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
    wanted = {name: tokens[name] for name in LEAVES if tokens.get(name) is not None}
    return dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))


# --- by hand ---------------------------------------------------------------------------------------------------------


def one_token(ratio: float, advantage: float, **settings: Any) -> tuple[float, float, dict[str, Tensor]]:
    """(loss, d loss / d logprob, stats) of the policy part alone."""
    logprob = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    zero, mask = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.bool)
    advantages = torch.tensor([advantage], dtype=torch.float64)
    loss, stats = policy_value_loss(logprob, zero, advantages, None, None, None, mask, **settings)
    return loss.item(), torch.autograd.grad(loss, logprob)[0].item(), stats


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),  # at the start the gradient is -A
        (1.1, 2.0, -2.2, -2.2, 0),
        (1.5, 2.0, -2.4, 0.0, 1),  # a good token that is already likelier: -A * 1.2, no gradient
        (1.5, -2.0, 3.0, 3.0, 0),  # a bad token that became likelier is pushed back
        (0.5, -2.0, 1.6, 0.0, 1),  # a bad token that is already rarer: -A * 0.8
        (0.5, 2.0, -1.0, -1.0, 0),  # a good token that became rarer is pulled back
    ],
)
def test_policy_clip_by_hand(ratio: float, advantage: float, loss: float, slope: float, clipped: int) -> None:
    found_loss, found_slope, stats = one_token(ratio, advantage)
    assert found_loss == pytest.approx(loss)
    assert found_slope == pytest.approx(slope)
    assert stats["clipfrac"] == clipped
    assert stats["loss/policy"] == pytest.approx(loss)


def test_clip_range_may_be_lopsided() -> None:
    assert one_token(1.35, 1.0, clip_high=0.4)[1] == pytest.approx(-1.35)
    assert one_token(1.35, 1.0, clip_low=0.4)[1] == 0
    assert one_token(0.7, -1.0, clip_low=0.4)[1] == pytest.approx(0.7)
    assert one_token(0.7, -1.0, clip_high=0.4)[1] == 0


def test_dual_clip_by_hand() -> None:
    """Only a bad token that became much likelier is bounded, at -A * c."""
    loss, slope, stats = one_token(5.0, -2.0, dual_clip=3.0)
    assert (loss, slope) == (6.0, 0.0)
    assert stats["clipfrac_lower"] == 1
    assert one_token(2.0, -2.0, dual_clip=3.0)[:2] == pytest.approx((4.0, 4.0))
    assert one_token(5.0, 2.0, dual_clip=3.0)[0] == pytest.approx(-2.4)


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "slope", "clipped"),
    [
        (1.0, 0.9, 2.0, 0.5, -1.0, 0),  # inside the clip: (1 - 2)^2 / 2
        (1.5, 1.0, 2.0, 0.32, 0.0, 1),  # moved 0.5 towards the target, 0.2 counts: (1.2 - 2)^2 / 2, no gradient
        (0.5, 1.0, 2.0, 1.125, -1.5, 0),  # moved away: the larger, unclipped error drives it back
        (3.0, 1.0, 2.0, 0.5, 1.0, 0),  # overshot: (3 - 2)^2 > (1.2 - 2)^2
    ],
)
def test_value_clip_by_hand(value: float, old: float, target: float, loss: float, slope: float, clipped: int) -> None:
    zero, mask = torch.zeros(1).double(), torch.ones(1, dtype=torch.bool)
    values = torch.tensor([value]).double().requires_grad_()
    total, stats = policy_value_loss(
        zero, zero, zero, values, torch.tensor([old]).double(), torch.tensor([target]).double(), mask, vf_coef=0.1
    )
    assert total.item() == pytest.approx(0.1 * loss)
    assert stats["loss/value"].item() == pytest.approx(loss)
    assert torch.autograd.grad(total, values)[0].item() == pytest.approx(0.1 * slope)
    assert stats["vf_clipfrac"] == clipped


def test_without_value_clip_the_value_loss_is_half_the_square() -> None:
    tokens = batch()
    _, stats = policy_value_loss(**tokens, value_clip=None)
    squares = (tokens["values"] - tokens["returns"]).square()[tokens["mask"]]
    assert stats["loss/value"].item() == pytest.approx(squares.mean().item() / 2)
    assert stats["vf_clipfrac"] == 0


@pytest.mark.parametrize(
    ("kind", "difference", "estimate", "slope"),
    [
        ("k1", 0.5, 0.5, 1.0),
        ("k1", -0.5, -0.5, 1.0),
        ("k2", 0.5, 0.125, 0.5),
        ("k3", 0.5, math.exp(-0.5) - 1 + 0.5, 1 - math.exp(-0.5)),
        ("k3", -0.5, math.exp(0.5) - 1 - 0.5, 1 - math.exp(0.5)),
        ("k1", 25.0, 20.0, 0.0),  # log-ratio clamped at 20
        ("k2", -25.0, 200.0, 0.0),
        ("k3", -4.0, 10.0, 0.0),  # exp(4) - 5 = 49.6, clamped at 10
    ],
)
def test_kl_estimators_by_hand(kind: str, difference: float, estimate: float, slope: float) -> None:
    logprob = torch.tensor([difference - 1], dtype=torch.float64, requires_grad=True)
    zero, mask = torch.zeros(1).double(), torch.ones(1, dtype=torch.bool)
    loss, stats = policy_value_loss(
        logprob, logprob.detach(), zero, None, None, None, mask,
        ref_logprobs=zero - 1, kl_coef=0.1, kl_estimator=kind,
    )  # fmt: skip
    assert stats["kl_ref"].item() == pytest.approx(estimate)
    assert loss.item() == pytest.approx(0.1 * estimate)
    assert torch.autograd.grad(loss, logprob)[0].item() == pytest.approx(0.1 * slope)


def test_kl_estimators_are_unbiased_where_they_should_be() -> None:
    """Under tokens drawn by the policy, k1 and k3 average to the true KL (Schulman 2020); k2 does not."""
    policy, reference = (torch.randn(6).double().log_softmax(0) for _ in range(2))
    true_kl = (policy.exp() * (policy - reference)).sum()
    for kind, exact in (("k1", True), ("k3", True), ("k2", False)):
        mean = (policy.exp() * kl_estimate(policy, reference, kind)).sum()
        assert (abs(float(mean - true_kl)) < 1e-12) == exact, kind


def test_entropy_bonus_by_hand() -> None:
    tokens = batch()
    base, _ = policy_value_loss(**tokens)
    loss, stats = policy_value_loss(**tokens, entropy_coef=0.5)
    mean = tokens["entropy"][tokens["mask"]].mean()
    assert (loss - base).item() == pytest.approx(-0.5 * mean.item())
    assert stats["entropy"].item() == pytest.approx(mean.item())
    expected = -0.5 * tokens["mask"].double() / tokens["mask"].sum()
    torch.testing.assert_close(grads(loss, tokens)["entropy"], expected)


# --- against the reference -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kl_estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("shape", [(5, 7), (1, 1), (40,), (2, 3, 4)], ids=str)
def test_loss_gradient_and_stats_equal_the_reference(shape: tuple[int, ...], kl_estimator: str) -> None:
    tokens = batch(shape)
    tokens["mask"].view(-1)[0] = True
    settings = EVERYTHING | {"kl_estimator": kl_estimator, "moments": torch.tensor([0.1, 1.3], dtype=torch.float64)}
    loss, stats = policy_value_loss(**tokens, **settings)
    expected, expected_stats = policy_value_loss_reference(**tokens, **settings)
    torch.testing.assert_close(loss, expected)
    assert stats.keys() == expected_stats.keys()
    torch.testing.assert_close(stats, {name: expected_stats[name] for name in stats})
    torch.testing.assert_close(grads(loss, tokens), grads(expected, tokens))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_is_as_accurate_as_eager(dtype: torch.dtype) -> None:
    """Statistics and arithmetic are float32 whatever comes in; gradients leave in the dtype of their input."""
    tokens = batch((30, 40), dtype)
    assert tokens["logprobs"].dtype == dtype
    wide = {name: x.detach().float() if x.is_floating_point() else x for name, x in tokens.items()}
    exact = {name: x.double() if x.is_floating_point() else x for name, x in wide.items()}
    for name in LEAVES:
        wide[name].requires_grad_()
        exact[name].requires_grad_()
    loss, stats = policy_value_loss(**tokens, **EVERYTHING)
    eager, eager_stats = policy_value_loss_reference(**wide, **EVERYTHING)
    truth, truth_stats = policy_value_loss_reference(**exact, **EVERYTHING)
    assert_as_accurate_as_eager(loss, eager, truth, name="loss")
    for name in stats:
        assert_as_accurate_as_eager(stats[name], eager_stats[name], truth_stats[name], name=name)
    eager_grads, truth_grads = grads(eager, wide), grads(truth, exact)
    for name, grad in grads(loss, tokens).items():
        assert_as_accurate_as_eager(grad, eager_grads[name].to(dtype), truth_grads[name], name=f"grad {name}")


def test_gradcheck() -> None:
    tokens = batch((3, 4))

    def op(logprobs: Tensor, values: Tensor, entropy: Tensor) -> Tensor:
        changed = tokens | {"logprobs": logprobs, "values": values, "entropy": entropy}
        return policy_value_loss(**changed, **EVERYTHING)[0]

    assert torch.autograd.gradcheck(op, tuple(tokens[name] for name in LEAVES))


# --- masks and edges -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden_value", [math.nan, math.inf, -math.inf])
def test_masked_tokens_add_exactly_zero_whatever_they_hold(hidden_value: float) -> None:
    tokens = batch()
    mask = tokens["mask"]
    poisoned = {
        name: torch.where(mask, x.detach(), hidden_value).requires_grad_(name in LEAVES)
        for name, x in tokens.items()
        if name != "mask"
    } | {"mask": mask}
    loss, stats = policy_value_loss(**tokens, **EVERYTHING)
    poisoned_loss, poisoned_stats = policy_value_loss(**poisoned, **EVERYTHING)
    assert torch.equal(poisoned_loss, loss)
    assert all(torch.equal(poisoned_stats[name], stats[name]) for name in stats)
    found, expected = grads(poisoned_loss, poisoned), grads(loss, tokens)
    for name in LEAVES:
        assert torch.equal(found[name], expected[name])
        assert (found[name][~mask] == 0).all()
        assert (found[name][mask] != 0).any()


def test_packed_equals_padded_and_permuted() -> None:
    tokens = batch()
    loss, stats = policy_value_loss(**tokens, **EVERYTHING)
    mask = tokens["mask"]
    order = torch.randperm(int(mask.sum()))
    packed = {name: x[mask][order] for name, x in tokens.items()}
    torch.testing.assert_close((loss, stats), policy_value_loss(**packed, **EVERYTHING))


def test_integer_mask_is_a_bool_mask() -> None:
    tokens = batch()
    expected = policy_value_loss(**tokens)
    torch.testing.assert_close(policy_value_loss(**tokens | {"mask": tokens["mask"].long()}), expected)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (2, 3)], ids=str)
def test_no_token_is_zero_loss_and_zero_gradient(shape: tuple[int, ...]) -> None:
    tokens = batch(shape)
    tokens["mask"] = torch.zeros(shape, dtype=torch.bool)
    loss, stats = policy_value_loss(**tokens, **EVERYTHING)
    assert loss == 0
    assert all(x == 0 for x in stats.values())
    assert all(torch.equal(grad, torch.zeros(shape).double()) for grad in grads(loss, tokens).values())


@pytest.mark.parametrize("as_tensor", [False, True])
def test_micro_batches_with_one_normalizer_equal_the_batch(as_tensor: bool) -> None:
    tokens = batch()
    count: Any = tokens["mask"].sum()
    whole, _ = policy_value_loss(**tokens, **EVERYTHING)
    normalizer = count if as_tensor else float(count)
    parts = [
        policy_value_loss(**{name: x[rows] for name, x in tokens.items()}, **EVERYTHING, normalizer=normalizer)[0]
        for rows in (slice(0, 1), slice(1, 5))
    ]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(grads(torch.stack(parts).sum(), tokens), grads(whole, tokens))


def test_runaway_log_ratio_is_finite_and_has_no_gradient() -> None:
    logprobs = torch.tensor([30.0, -30.0, 0.0, 19.0], requires_grad=True)
    zero, mask = torch.zeros(4), torch.ones(4, dtype=torch.bool)
    loss, stats = policy_value_loss(logprobs, zero, torch.tensor([-1.0, 1.0, 1.0, -1.0]), None, None, None, mask)
    (grad,) = torch.autograd.grad(loss, logprobs)
    assert loss.isfinite()
    assert stats["ratio_max"].item() == pytest.approx(math.exp(20), rel=1e-5)
    assert grad[:2].tolist() == [0, 0]
    assert grad[2:].tolist() == pytest.approx([-1 / 4, math.exp(19) / 4], rel=1e-5)


def test_at_the_first_step_ratio_is_one_and_kl_zero_exactly() -> None:
    tokens = batch() | {"old_logprobs": None}
    tokens["old_logprobs"] = tokens["logprobs"].detach()
    _, stats = policy_value_loss(**tokens)
    assert stats["ratio_mean"] == stats["ratio_max"] == 1
    exact_zeros = ("approxkl_k1", "approxkl_k2", "approxkl_k3", "clipfrac", "ratio_var")
    assert [stats[name].item() for name in exact_zeros] == [0] * 5


def test_without_values_the_policy_part_stands_alone() -> None:
    tokens = batch()
    whole, _ = policy_value_loss(**tokens, vf_coef=0.0)
    alone, stats = policy_value_loss(**tokens | dict.fromkeys(("values", "old_values", "returns")))
    torch.testing.assert_close(alone, whole)
    assert "loss/value" not in stats
    assert "vf_clipfrac" not in stats


def test_moments_whiten_the_advantages() -> None:
    tokens = batch()
    whitened, _ = policy_value_loss(**tokens | {"advantages": (tokens["advantages"] - 0.3) * 1.7})
    lazily, _ = policy_value_loss(**tokens, moments=torch.tensor([0.3, 1.7], dtype=torch.float64))
    torch.testing.assert_close(lazily, whitened)


def test_strided_inputs_are_read_where_they_lie() -> None:
    tokens = batch((6, 4))
    strided = {name: x.detach().t().contiguous().t() for name, x in tokens.items()}
    assert not strided["logprobs"].is_contiguous()
    torch.testing.assert_close(policy_value_loss(**strided), policy_value_loss(**tokens))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_native_takes_moments_and_a_normalizer(backend: str) -> None:
    tokens = batch((30, 9), torch.float32)
    wide = {name: x.detach().double() if x.is_floating_point() else x for name, x in tokens.items()}
    settings: dict[str, Any] = EVERYTHING | {"normalizer": torch.tensor(77.0)}
    moments = torch.tensor([0.3, 1.7])
    loss, stats = policy_value_loss(**tokens, **settings, moments=moments, backend=backend)
    eager, _ = policy_value_loss_reference(**tokens, **settings, moments=moments)
    truth, _ = policy_value_loss_reference(**wide, **settings, moments=moments.double())
    assert_as_accurate_as_eager(loss, eager, truth)
    assert stats["count"] == tokens["mask"].sum()


# --- autograd and registration ---------------------------------------------------------------------------------------


def test_backward_twice_is_the_same_and_second_derivative_is_refused() -> None:
    tokens = batch()
    loss, stats = policy_value_loss(**tokens)
    assert not any(x.requires_grad for x in stats.values())
    first, second = (torch.autograd.grad(loss, tokens["logprobs"], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    (grad,) = torch.autograd.grad(loss, tokens["values"], create_graph=True)
    with pytest.raises(RuntimeError, match="policy_value_loss has no second derivative"):
        grad.sum().backward()


def test_upstream_factor_scales_the_gradient() -> None:
    tokens = batch()
    loss, _ = policy_value_loss(**tokens)
    plain = grads(policy_value_loss(**tokens)[0], tokens)
    torch.testing.assert_close(grads(loss * -3, tokens), {name: -3 * x for name, x in plain.items()})


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "mixed", "empty", "policy only"])
def test_opcheck(layout: str, backend: str) -> None:
    tokens = batch((0, 4) if layout == "empty" else (3, 4), torch.float32)
    if layout == "transposed":
        tokens = {name: x.detach().t().contiguous().t().requires_grad_(x.requires_grad) for name, x in tokens.items()}
    names = (*TOKENS, "entropy", "ref_logprobs")
    optional = TOKENS[3:] + names[6:] if layout == "policy only" else ()
    args = (
        *(None if name in optional else tokens[name] for name in names), tokens["mask"], None,
        0.2, 0.2, 3.0, 0.2, 0.1, 0.0 if optional else 0.01, 0.0 if optional else 0.1, "k3", backend,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.rlsft.policy_value_loss.default, args)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compiles_to_one_graph(compiler: str) -> None:
    tokens = batch((3, 4), torch.float32)

    def step(tokens: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return policy_value_loss(**tokens, **EVERYTHING)

    torch._dynamo.reset()
    compiled, compiled_stats = torch.compile(step, fullgraph=True, backend=compiler)(tokens)
    plain, plain_stats = step(tokens)
    torch.testing.assert_close((compiled, compiled_stats), (plain, plain_stats))
    torch.testing.assert_close(grads(compiled, tokens), grads(plain, tokens))


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"logprobs": torch.zeros(2, 3).long()}, TypeError, "logprobs must be float32 or .*got torch.int64"),
        ({"old_logprobs": torch.zeros(3)}, ValueError, r"old_logprobs must be shaped like logprobs \[2, 3\]"),
        ({"advantages": None}, TypeError, "advantages must be a torch.Tensor, got NoneType"),
        ({"mask": torch.ones(2, 3)}, TypeError, r"mask must be bool or integer .*float32; pass mask.bool\(\)"),
        ({"mask": torch.ones(2, 2).bool()}, ValueError, r"mask must be shaped like logprobs \[2, 3\], got \[2, 2\]"),
        ({"returns": None}, ValueError, "come together or not at all, got only values, old_values"),
        ({"clip_low": -0.1}, ValueError, r"clip_low must be in \[0, 1\], got -0.1"),
        ({"clip_high": math.nan}, ValueError, "clip_high must be finite and >= 0, got nan"),
        ({"dual_clip": 1.0}, ValueError, "dual_clip must be finite and > 1, got 1.0"),
        ({"value_clip": 0.0}, ValueError, "value_clip must be finite and > 0, got 0.0"),
        ({"entropy_coef": 0.1}, ValueError, "entropy is needed with entropy_coef=0.1, got None"),
        ({"kl_coef": 0.1}, ValueError, "ref_logprobs is needed with kl_coef=0.1, got None"),
        ({"kl_estimator": "k4"}, ValueError, "kl_estimator must be one of 'k1', 'k2', 'k3', got 'k4'"),
        ({"moments": torch.ones(3)}, ValueError, r"moments must be \[2\] = \[2\], got \[3\]"),
        ({"normalizer": torch.ones(2)}, ValueError, r"normalizer must be a number or a 0-d tensor, got shape \[2\]"),
        ({"backend": "triton"}, ValueError, "policy_value_loss: backend='triton' takes"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = dict.fromkeys(TOKENS, torch.zeros(2, 3)) | {"mask": torch.ones(2, 3).bool()}
    with pytest.raises(error, match=message):
        policy_value_loss(**arguments | changed)
