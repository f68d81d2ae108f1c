"""linear_policy_loss: by hand, against float64 truth and the separate ops, aggregations, rows left out, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels import linear_cross_entropy, linear_logprob, linear_policy_loss, policy_value_loss
from rlsft_kernels._aggregation import AGGREGATIONS
from rlsft_kernels._backend import Backend, backend_calls
from rlsft_kernels.linear_logprob.reference import linear_logprob_reference
from rlsft_kernels.linear_policy_loss.reference import linear_policy_loss_reference
from rlsft_kernels.linear_policy_loss.terms import TWO_PHASE
from tests.ops.head_cases import CASES, DTYPES, ON_CPU, SMALL, HeadCase, OpWatch
from tests.support.closeness import assert_as_accurate_as_eager

LEAVES = ("hidden", "weight", "bias")
FULL = HeadCase("bias, softcap, scale, temperatures", 29, 9, 97, True, 2.0, 1.5, "per token", 2.0)
PLAIN = HeadCase("plain", 40, 24, 400)
KINDS = ("ppo", "cispo", "reinforce")
MEANS = ("loss/policy", "entropy", "approxkl_k1", "approxkl_k2", "approxkl_k3", "ratio_mean", "ratio_var", "ratio_max")


def batch(case: HeadCase, dtype: torch.dtype) -> dict[str, Any]:
    """A batch whose ratios lie on both sides of the clip range, with advantages of both signs and of zero."""
    torch.manual_seed(3)
    tensors: dict[str, Any] = case.tensors(dtype)
    tensors["mask"] = tensors["targets"] >= 0
    tensors["targets"] = tensors["targets"].clamp(min=0)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    temperature = case.temperature_for(tensors["targets"], dtype)
    floats = {name: x.detach().double() for name, x in tensors.items() if name in LEAVES}
    spread = temperature.double() if isinstance(temperature, Tensor) else temperature
    out = linear_logprob_reference(**floats, targets=tensors["targets"], temperature=spread, **case.settings())
    assert out.logprob is not None
    num_rows = case.num_rows
    tensors["old_logprobs"] = (out.logprob + 0.4 * torch.randn(num_rows)).to(wide)
    tensors["ref_logprobs"] = (out.logprob + 0.4 * torch.randn(num_rows)).to(wide)
    tensors["advantages"] = torch.randn(num_rows).to(wide)
    tensors["advantages"][::5] = 0
    return tensors | {"temperature": temperature} | case.settings()


def grads(loss: Tensor, tensors: dict[str, Any]) -> dict[str, Tensor]:
    wanted = {name: tensors[name] for name in LEAVES if name in tensors}
    return dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True))


def as_double(tensors: dict[str, Any]) -> dict[str, Any]:
    def widen(x: Any) -> Any:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        return x.detach().double().requires_grad_(x.requires_grad)

    return {name: widen(x) for name, x in tensors.items()}


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_one_token_by_hand() -> None:
    """p = (1/4, 3/4), taken token 1, drawn at probability 1/2: r = 3/2, beyond 1.2 upwards."""
    hidden = torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[0.0], [math.log(3)]], dtype=torch.float64)
    old = torch.tensor([math.log(0.5)], dtype=torch.float64)
    for advantage, loss_by_hand, slope in ((-2.0, 3.0, 3.0), (2.0, -2.4, 0.0)):
        loss, stats = linear_policy_loss(
            hidden, weight, torch.tensor([1]), torch.tensor([advantage]).double(), old, loss_kind="ppo"
        )
        assert loss.item() == pytest.approx(loss_by_hand, rel=1e-12)
        # d logp / d hidden = log 3 * (1 - 3/4)
        (grad,) = torch.autograd.grad(loss, hidden)
        assert grad.item() == pytest.approx(slope * math.log(3) / 4, abs=1e-12)
        assert stats["ratio_mean"].item() == pytest.approx(1.5, rel=1e-12)
        assert stats["clipfrac"].item() == (1.0 if slope == 0 else 0.0)
    loss, _ = linear_policy_loss(hidden, weight, torch.tensor([1]), torch.tensor([-2.0]).double(), old, dual_clip=1.25)
    assert loss.item() == pytest.approx(2.5, rel=1e-12)
    assert torch.autograd.grad(loss, hidden)[0] == 0


def test_cispo_and_reinforce_by_hand() -> None:
    hidden = torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([[0.0], [math.log(3)]], dtype=torch.float64)
    old = torch.tensor([math.log(0.5)], dtype=torch.float64)
    arguments = (weight, torch.tensor([1]), torch.tensor([2.0]).double(), old)
    for kind, factor in (("cispo", 1.2), ("reinforce", 1.0)):
        loss, _ = linear_policy_loss(hidden, *arguments, loss_kind=kind)
        assert loss.item() == pytest.approx(-factor * 2 * math.log(0.75), rel=1e-12)
        (grad,) = torch.autograd.grad(loss, hidden)
        assert grad.item() == pytest.approx(-factor * 2 * math.log(3) / 4, rel=1e-12)


# --- against float64 truth -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "backend"), ON_CPU, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[4], FULL], ids=lambda c: c.name)
def test_loss_and_gradients_are_as_accurate_as_eager(
    case: HeadCase, kind: Any, dtype: torch.dtype, backend: Backend
) -> None:
    tensors = batch(case, dtype)
    assert tensors["hidden"].dtype == dtype
    settings: dict[str, Any] = {
        "loss_kind": kind, "kl_coef": 0.3, "entropy_coef": 0.05, "clip_high": 0.3, "dual_clip": 1.5
    }  # fmt: skip
    exact = as_double(tensors)
    actual, stats = linear_policy_loss(**tensors, **settings, tile_bytes=case.small_tile(dtype), backend=backend)
    eager, eager_stats = linear_policy_loss_reference(**tensors, **settings)
    truth, truth_stats = linear_policy_loss_reference(**exact, **settings)
    # which side of a clip a token falls on is its own rounding's business, so the case must not sit on an edge
    assert eager_stats["clipfrac"] == pytest.approx(truth_stats["clipfrac"].item())
    assert_as_accurate_as_eager(actual, eager, truth, name="loss")
    assert stats.keys() == eager_stats.keys()
    # together: by luck eager may be exact in one number, and the float64 test below holds each to its formula
    means = (torch.stack([found[name] for name in (*MEANS, "kl_ref")]) for found in (stats, eager_stats, truth_stats))
    assert_as_accurate_as_eager(*means, name="statistics")
    for name in ("count", "clipfrac", "clipfrac_lower"):
        torch.testing.assert_close(stats[name], eager_stats[name], msg=name)
    eager_grads, truth_grads = grads(eager, tensors), grads(truth, exact)
    for name, grad in grads(actual, tensors).items():
        assert_as_accurate_as_eager(grad, eager_grads[name], truth_grads[name], name=f"grad {name}")


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_autograd_in_float64(kind: Any, estimator: str) -> None:
    tensors = batch(FULL, torch.float64)
    settings: dict[str, Any] = {
        "loss_kind": kind, "kl_coef": 0.3, "kl_estimator": estimator, "entropy_coef": 0.05, "normalizer": 3.0,
        "token_weights": torch.rand(29).double(),
    }  # fmt: skip
    actual, stats = linear_policy_loss(**tensors, **settings, tile_bytes=FULL.small_tile(torch.float64))
    expected, expected_stats = linear_policy_loss_reference(**tensors, **settings)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(stats, expected_stats, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(grads(actual, tensors), grads(expected, tensors), rtol=1e-11, atol=1e-12)


def test_gradcheck() -> None:
    tensors = batch(SMALL, torch.float64)

    def op(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        given = tensors | {"hidden": hidden, "weight": weight, "bias": bias}
        return linear_policy_loss(**given, kl_coef=0.3, entropy_coef=0.1, tile_bytes=120)[0]

    assert torch.autograd.gradcheck(op, tuple(tensors[name] for name in LEAVES))


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_equals_the_separate_ops(backend: Backend) -> None:
    """linear_logprob, then policy_value_loss without values: the same loss, statistics and gradients."""
    tensors = batch(FULL, torch.float32)
    head = {name: tensors[name] for name in (*LEAVES, "targets", "temperature", "softcap", "logit_scale")}
    loss, stats = linear_policy_loss(**tensors, kl_coef=0.2, entropy_coef=0.1, tile_bytes=2000, backend=backend)
    out = linear_logprob(**head, outputs=("logprob", "entropy"), backend=backend)
    assert out.logprob is not None
    assert out.entropy is not None
    expected, expected_stats = policy_value_loss(
        out.logprob, tensors["old_logprobs"], tensors["advantages"], None, None, None, tensors["mask"],
        entropy=out.entropy, entropy_coef=0.1, ref_logprobs=tensors["ref_logprobs"], kl_coef=0.2,
    )  # fmt: skip
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(stats, {name: expected_stats[name] for name in stats}, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(grads(loss, tensors), grads(expected, tensors), rtol=1e-4, atol=1e-5)


def test_reinforce_with_unit_advantages_is_the_cross_entropy() -> None:
    tensors = batch(PLAIN, torch.float64)
    tensors["advantages"] = torch.ones(40).double()
    loss, _ = linear_policy_loss(**tensors, loss_kind="reinforce")
    expected, _ = linear_cross_entropy(
        tensors["hidden"], tensors["weight"], torch.where(tensors["mask"], tensors["targets"], -100)
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grads(loss, tensors), grads(expected, tensors))


# --- aggregation -----------------------------------------------------------------------------------------------------


def aggregate_by_loop(token_loss_BT: Tensor, mask_BT: Tensor, aggregation: str, max_length: float) -> Tensor:
    """What the names mean, sequence by sequence."""
    sums = [(row[kept]).sum() for row, kept in zip(token_loss_BT, mask_BT, strict=True) if kept.any()]
    means = [(row[kept]).mean() for row, kept in zip(token_loss_BT, mask_BT, strict=True) if kept.any()]
    return {
        "token-mean": torch.stack(sums).sum() / mask_BT.sum(),
        "token-sum": torch.stack(sums).sum(),
        "seq-mean-token-mean": torch.stack(means).mean(),
        "seq-mean-token-sum": torch.stack(sums).mean(),
        "seq-mean-token-sum-norm": torch.stack(sums).mean() / max_length,
    }[aggregation]


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_aggregations_are_what_their_names_say(aggregation: Any, layout: str) -> None:
    """Rows of 8, 5, 0 and 3 counted tokens; the empty one must not enter the mean."""
    flat = batch(HeadCase("four sequences", 32, 9, 31), torch.float64)
    mask_BT = torch.arange(8) < torch.tensor([8, 5, 0, 3])[:, None]
    per_token = {name: x.detach() for name, x in flat.items() if isinstance(x, Tensor) and name != "weight"}
    tokens = {name: x.reshape(4, 8, *x.shape[1:]) for name, x in per_token.items()}
    tokens |= {"weight": flat["weight"], "mask": mask_BT}
    logprob = linear_logprob(tokens["hidden"], tokens["weight"], tokens["targets"]).logprob
    assert logprob is not None
    expected = aggregate_by_loop(-tokens["advantages"] * logprob, mask_BT, aggregation, 10.0)
    settings: dict[str, Any] = {"loss_kind": "reinforce", "aggregation": aggregation, "max_length": 10.0}
    if layout == "packed":
        kept = mask_BT.reshape(-1)
        tokens = {name: x.reshape(32, *x.shape[2:])[kept] if name != "weight" else x for name, x in tokens.items()}
        settings["cu_seqlens"] = torch.tensor([0, 8, 13, 13, 16])
    loss, _ = linear_policy_loss(**tokens, **settings)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, flat["weight"]), torch.autograd.grad(expected, flat["weight"]))


def test_micro_batches_with_the_global_normalizer_make_the_batch() -> None:
    tensors = batch(PLAIN, torch.float64)
    whole, _ = linear_policy_loss(**tensors)
    expected = grads(whole, tensors)["weight"]
    count = tensors["mask"].sum()
    total = torch.zeros_like(expected)
    for part in (slice(0, 7), slice(7, 40)):
        piece = {n: x[part] if isinstance(x, Tensor) and n != "weight" else x for n, x in tensors.items()}
        loss, _ = linear_policy_loss(**piece, normalizer=count)
        total += torch.autograd.grad(loss, tensors["weight"])[0]
    torch.testing.assert_close(total, expected)


# --- rows that do not count ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_masked_rows_may_hold_anything(backend: Backend) -> None:
    tensors = batch(PLAIN, torch.float32)
    hidden = tensors["mask"].logical_not()
    clean, clean_stats = linear_policy_loss(**tensors, kl_coef=0.1, tile_bytes=3000, backend=backend)
    spoilt = {n: x.clone() if isinstance(x, Tensor) and n != "weight" else x for n, x in tensors.items()}
    for name, junk in (("advantages", torch.nan), ("old_logprobs", torch.inf), ("ref_logprobs", torch.nan)):
        spoilt[name][hidden] = junk
    spoilt["targets"][hidden] = 10**9
    spoilt["hidden"] = torch.where(hidden[:, None], torch.nan, tensors["hidden"]).detach().requires_grad_()
    loss, stats = linear_policy_loss(**spoilt, kl_coef=0.1, tile_bytes=3000, backend=backend)
    assert torch.equal(loss, clean)
    assert all(torch.equal(stats[name], clean_stats[name]) for name in stats)
    found = torch.autograd.grad(loss, [spoilt["hidden"], spoilt["weight"]])
    assert (found[0][hidden] == 0).all()
    expected = grads(clean, tensors)
    assert torch.equal(found[1], expected["weight"])


@pytest.mark.parametrize("drop_idle", [True, False])
@pytest.mark.parametrize("backend", ["native", "reference"])
def test_idle_rows_leave_without_a_trace(backend: Backend, drop_idle: bool) -> None:
    """Rows of zero advantage: the same loss and gradients, dropped before the first product or after it."""
    tensors = batch(PLAIN, torch.float32)
    loss, stats = linear_policy_loss(**tensors, drop_idle=drop_idle, tile_bytes=4000, backend=backend)
    expected, expected_stats = linear_policy_loss_reference(**tensors)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grads(loss, tensors), grads(expected, tensors), rtol=1e-4, atol=1e-6)
    idle = tensors["mask"] & (tensors["advantages"] == 0)
    assert idle.any()
    assert stats["count"] == expected_stats["count"] - (idle.sum() if drop_idle else 0)


@pytest.mark.parametrize("coefficient", ["kl_coef", "entropy_coef"])
def test_no_row_is_idle_under_a_kl_or_entropy_term(coefficient: str) -> None:
    tensors = batch(PLAIN, torch.float64)
    tensors["advantages"] = torch.zeros(40).double()
    loss, stats = linear_policy_loss(**tensors, **{coefficient: 0.5}, drop_idle=True)  # type: ignore[arg-type]
    expected, _ = linear_policy_loss_reference(**tensors, **{coefficient: 0.5})  # type: ignore[arg-type]
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grads(loss, tensors), grads(expected, tensors))
    assert stats["count"] == tensors["mask"].sum()


def test_clipped_rows_cost_no_gradient_product() -> None:
    """All ratios beyond the clip range: one product in the forward, none after it."""
    tensors = batch(PLAIN, torch.float32)
    tensors["advantages"] = torch.ones(40)
    tensors["old_logprobs"] = tensors["old_logprobs"] - 5
    with OpWatch() as watch:
        loss, stats = linear_policy_loss(**tensors)
        loss.backward()
    assert stats["clipfrac"] == 1
    assert watch.matmuls == 1
    assert (tensors["weight"].grad == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("num_rows", [0, 3])
def test_nothing_counted_is_zero_loss_and_zero_gradient(num_rows: int, dtype: torch.dtype) -> None:
    hidden = torch.full((num_rows, 4), torch.nan, dtype=dtype, requires_grad=True)
    weight = torch.randn(5, 4).to(dtype).requires_grad_()
    nan = torch.full((num_rows,), torch.nan)
    mask = torch.zeros(num_rows, dtype=torch.bool)
    loss, stats = linear_policy_loss(hidden, weight, torch.zeros(num_rows, dtype=torch.int64), nan, nan, mask=mask)
    assert loss == 0
    assert all(x == 0 for x in stats.values())
    for grad in torch.autograd.grad(loss, [hidden, weight]):
        assert (grad == 0).all()


# --- invariances, cost, registration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rows_per_tile", [1, 2, 13, 40, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tile_size_changes_nothing_beyond_rounding(rows_per_tile: int, dtype: torch.dtype) -> None:
    tensors = batch(PLAIN, dtype)
    whole, _ = linear_policy_loss(**tensors, entropy_coef=0.01)
    tiled, _ = linear_policy_loss(**tensors, entropy_coef=0.01, tile_bytes=rows_per_tile * 400 * dtype.itemsize)
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.03, "atol": 1e-3}
    torch.testing.assert_close(tiled, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grads(tiled, tensors), grads(whole, tensors), **tolerance)


def test_products_of_loss_and_gradients() -> None:
    for frozen, matmuls in (((), 3), (("weight",), 2), (("hidden", "weight"), 1)):
        tensors = batch(PLAIN, torch.float32)
        for name in frozen:
            tensors[name].requires_grad_(False)
        with OpWatch() as watch:
            loss, _ = linear_policy_loss(**tensors)
            if len(frozen) < 2:
                loss.backward()
        assert watch.matmuls == matmuls, frozen


def test_no_tensor_holds_all_logits() -> None:
    tensors = batch(HeadCase("long", 128, 8, 512), torch.float32)
    with OpWatch() as watch:
        loss, _ = linear_policy_loss(**tensors, tile_bytes=8 * 512 * 4)
        loss.backward()
    assert watch.largest <= 8 * 512


def test_two_runs_and_backward_twice_are_bit_identical() -> None:
    tensors = batch(FULL, torch.bfloat16)
    (first, _), (second, _) = (linear_policy_loss(**tensors, tile_bytes=3000) for _ in range(2))
    assert torch.equal(first, second)
    once, again = (torch.autograd.grad(first, tensors["hidden"], retain_graph=True)[0] for _ in range(2))
    assert torch.equal(once, again)
    assert torch.equal(once, torch.autograd.grad(second, tensors["hidden"])[0])


def test_second_derivative_is_refused() -> None:
    tensors = batch(PLAIN, torch.float64)
    (grad,) = torch.autograd.grad(linear_policy_loss(**tensors)[0], tensors["hidden"], create_graph=True)
    with pytest.raises(RuntimeError, match="linear_policy_loss has no second derivative"):
        grad.sum().backward()


def test_counts_its_calls() -> None:
    before = backend_calls().get(("linear_policy_loss", "native"), 0)
    linear_policy_loss(**batch(PLAIN, torch.float32), backend="native")
    assert backend_calls()["linear_policy_loss", "native"] == before + 1


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_opcheck(backend: Backend) -> None:
    tensors = batch(HeadCase("small", 6, 4, 9), torch.float32)
    args = (
        tensors["hidden"], tensors["weight"], tensors["targets"], torch.randn(9, requires_grad=True),
        torch.randn(6, 2, requires_grad=True), torch.randn(9, 2, requires_grad=True), tensors["advantages"],
        tensors["old_logprobs"], tensors["ref_logprobs"], torch.rand(6), tensors["mask"], torch.rand(6) + 0.5, 1.0, 3.0,
        1.3, "ppo", 0.2, 0.3, 2.0, 0.1, "k3", 0.05, False, 100, [True] * 5, backend,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.rlsft.linear_policy_loss.default, args)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_compiles_to_one_graph(compiler: str) -> None:
    tensors = batch(PLAIN, torch.float32)

    def step(hidden: Tensor, weight: Tensor, advantages: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        given = tensors | {"hidden": hidden, "weight": weight, "advantages": advantages}
        return linear_policy_loss(**given, kl_coef=0.1, aggregation="token-mean")

    torch._dynamo.reset()
    arguments = (tensors["hidden"], tensors["weight"], tensors["advantages"])
    compiled, compiled_stats = torch.compile(step, fullgraph=True, backend=compiler)(*arguments)
    plain, plain_stats = step(*arguments)
    torch.testing.assert_close((compiled, compiled_stats), (plain, plain_stats))
    torch.testing.assert_close(grads(compiled, tensors), grads(plain, tensors))


def test_scaled_loss_scales_the_gradient_once() -> None:
    """A GradScaler's factor, and gradient accumulation's division: the classic bug applies one of them twice."""
    tensors = batch(PLAIN, torch.float32)
    loss, _ = linear_policy_loss(**tensors)
    plain = torch.autograd.grad(loss, tensors["weight"], retain_graph=True)[0]
    scaled = torch.autograd.grad(loss * 1024 / 4, tensors["weight"])[0]
    torch.testing.assert_close(scaled, plain * 256)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(TWO_PHASE))
def test_losses_that_need_two_phases_are_refused_with_the_way_to_do_them(kind: Any) -> None:
    with pytest.raises(ValueError, match=f"loss_kind='{kind}' needs .*use linear_"):
        linear_policy_loss(**batch(PLAIN, torch.float32), loss_kind=kind)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"advantages": torch.zeros(3)}, ValueError, r"advantages must be shaped like targets \[40\], got \[3\]"),
        ({"advantages": torch.zeros(40).long()}, TypeError, "advantages must be floating point, got torch.int64"),
        ({"old_logprobs": torch.zeros(40).requires_grad_()}, ValueError, r"old_logprobs gets no gradient; pass old_"),
        ({"mask": torch.ones(40)}, TypeError, "mask must be bool or integer"),
        ({"loss_kind": "trpo"}, ValueError, "loss_kind must be one of 'ppo', 'cispo', 'reinforce', got 'trpo'"),
        ({"ref_logprobs": None, "kl_coef": 0.1}, ValueError, "ref_logprobs is needed with kl_coef=0.1, got None"),
        ({"dual_clip": 1.0}, ValueError, "dual_clip must be finite and > 1, got 1.0"),
        ({"clip_low": 1.5}, ValueError, r"clip_low must be in \[0, 1\], got 1.5"),
        ({"aggregation": "mean"}, ValueError, "aggregation must be one of 'token-mean'"),
        ({"aggregation": "seq-mean-token-mean"}, ValueError, r"cu_seqlens is needed .* flat \[N\] tokens"),
        ({"cu_seqlens": torch.tensor([0, 9])}, ValueError, "cu_seqlens must start at 0 and end at the 40 tokens"),
        ({"temperature": 0.0}, ValueError, "temperature must be finite and > 0, got 0.0"),
        ({"normalizer": "count"}, TypeError, "normalizer must be a number, got str"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        linear_policy_loss(**batch(PLAIN, torch.float32) | changed)


def test_constant_for_dr_grpo_is_asked_for() -> None:
    flat = batch(HeadCase("two sequences", 8, 4, 9), torch.float32)
    per_token = {name: x.detach() for name, x in flat.items() if isinstance(x, Tensor) and name != "weight"}
    tokens = {name: x.reshape(2, 4, *x.shape[1:]) for name, x in per_token.items()}
    with pytest.raises(ValueError, match="max_length is needed with aggregation='seq-mean-token-sum-norm'"):
        linear_policy_loss(**tokens, weight=flat["weight"], aggregation="seq-mean-token-sum-norm")
