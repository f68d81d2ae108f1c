"""What test_triton_losses.py runs with TRITON_INTERPRET=1: the public functions with backend="triton" on CPU tensors.

The interpreter's bfloat16 arithmetic is wrong; these kernels cast every load to float32 first, which it does right.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels import kl_shaped_gae, pairwise_reward_loss, policy_value_loss
from rlsft_kernels._backend import backend_calls
from rlsft_kernels.kl_shaped_gae import op as gae_op
from rlsft_kernels.kl_shaped_gae import triton_kernel as gae_kernel
from rlsft_kernels.kl_shaped_gae.reference import STATS, kl_shaped_gae_reference
from rlsft_kernels.pairwise_reward_loss import op as pairwise_op
from rlsft_kernels.pairwise_reward_loss.reference import pairwise_reward_loss_reference
from rlsft_kernels.policy_value_loss import op as policy_op
from rlsft_kernels.policy_value_loss.reference import policy_value_loss_reference
from tests.support.closeness import assert_as_accurate_as_eager

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CASES = [*((count, torch.float32) for count in (1, 3, 1024, 1025, 2049)), (1025, torch.bfloat16), (1025, torch.float16)]


@pytest.fixture(autouse=True)
def _triton_on_cpu_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    for op in (gae_op, pairwise_op, policy_op):
        monkeypatch.setitem(op.SUPPORTED["triton"], "cpu", op.SUPPORTED["triton"]["cuda"])  # type: ignore[index,arg-type]


def hold(actual: dict[str, Tensor], eager: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
    """Each result within twice eager's error; all 0-d results together, each in units of its truth."""
    assert set(actual) == set(truth)
    for name, x in actual.items():
        if x.ndim:
            assert_as_accurate_as_eager(x, eager[name].to(x.dtype), truth[name], name=name)
    scalars = [name for name, x in actual.items() if x.ndim == 0]
    units = torch.stack([truth[name].abs() for name in scalars])
    units[units == 0] = 1
    stacked = [torch.stack([of[name] for name in scalars]).double() / units for of in (actual, eager, truth)]
    assert_as_accurate_as_eager(stacked[0].float(), stacked[1].float(), stacked[2], name=", ".join(scalars))


def with_gradients(
    function: Callable[..., tuple[Tensor, dict[str, Tensor]]], tensors: dict[str, Tensor], leaves: tuple[str, ...],
    settings: dict[str, Any], dtype: torch.dtype | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Loss, statistics and gradients of one call, its floating inputs converted to `dtype`."""
    made = {
        name: (x.to(dtype) if dtype is not None and x.is_floating_point() else x).detach().clone()
        for name, x in tensors.items()
    }
    wanted = [name for name in leaves if name in made]
    for name in wanted:
        made[name].requires_grad_()
    loss, stats = function(**made, **settings)
    gradients = torch.autograd.grad(loss, [made[name] for name in wanted])
    return {"loss": loss.detach(), **stats} | {f"grad {n}": g for n, g in zip(wanted, gradients, strict=True)}


# --- pairwise_reward_loss --------------------------------------------------------------------------------------------


def pairs(count: int, dtype: torch.dtype, *, margin: bool = True) -> dict[str, Tensor]:
    made = dict(zip(("chosen", "rejected", "margin"), torch.randn(3, count) * 3, strict=True))
    made["chosen"] += 5  # no mean that cancels: its error says nothing in units of itself
    made["rejected"] += 2
    if not margin:
        del made["margin"]
    return {name: x.to(dtype) for name, x in made.items()}


def check_pairs(tensors: dict[str, Tensor], center_coef: float) -> None:
    leaves, settings = ("chosen", "rejected"), {"center_coef": center_coef}
    before = backend_calls().get(("pairwise_reward_loss", "triton"), 0)
    actual = with_gradients(pairwise_reward_loss, tensors, leaves, settings | {"backend": "triton"})
    assert backend_calls()["pairwise_reward_loss", "triton"] == before + 1
    eager = with_gradients(pairwise_reward_loss_reference, tensors, leaves, settings, torch.float32)
    hold(actual, eager, with_gradients(pairwise_reward_loss_reference, tensors, leaves, settings, torch.float64))


@pytest.mark.parametrize(("count", "dtype"), CASES, ids=str)
def test_pairwise_reward_loss_equals_the_reference(count: int, dtype: torch.dtype) -> None:
    for margin, center_coef in itertools.product((False, True), (0.0, 0.03)):
        check_pairs(pairs(count, dtype, margin=margin), center_coef)


@pytest.mark.parametrize("size", [1e-6, 1e-3, 0.3, 30.0, 90.0])
def test_pairwise_reward_loss_at_any_gap(size: float) -> None:
    tensors = pairs(200, torch.float32, margin=False)
    check_pairs({"chosen": tensors["chosen"] * size, "rejected": torch.zeros(200)}, 0.0)


@pytest.mark.filterwarnings("ignore:overflow")  # of the statistic loss/center
def test_pairwise_reward_loss_far_out_by_hand() -> None:
    chosen = torch.tensor([-1e30, 1e30], requires_grad=True)
    loss, _ = pairwise_reward_loss(chosen, torch.zeros(2), backend="triton")
    assert loss.item() == pytest.approx(5e29)
    assert torch.autograd.grad(loss, chosen)[0].tolist() == pytest.approx([-0.5, 0.0], abs=1e-30)


def test_pairwise_reward_loss_of_no_pairs_and_ties() -> None:
    loss, stats = pairwise_reward_loss(torch.zeros(0), torch.zeros(0), backend="triton")
    assert loss == 0
    assert all(x == 0 for x in stats.values())
    assert pairwise_reward_loss(torch.ones(3), torch.ones(3), backend="triton")[1]["accuracy"] == 0


def test_pairwise_reward_loss_passes_nan_on() -> None:
    loss, _ = pairwise_reward_loss(torch.tensor([0.0, torch.nan]), torch.zeros(2), backend="triton")
    assert loss.isnan()


def test_pairwise_reward_loss_takes_strided_input_and_repeats_bitwise() -> None:
    wide = torch.randn(1025, 4)
    chosen, rejected = wide[:, 1], wide[:, 3]
    first = torch.ops.rlsft.pairwise_reward_loss(chosen, rejected, None, 0.1, "triton")
    again = torch.ops.rlsft.pairwise_reward_loss(chosen.clone(), rejected.clone(), None, 0.1, "triton")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


# --- policy_value_loss -----------------------------------------------------------------------------------------------

LEAVES = ("logprobs", "values", "entropy")
ALL = {
    "clip_low": 0.1, "clip_high": 0.3, "dual_clip": 1.2, "value_clip": 0.25, "vf_coef": 0.5, "entropy_coef": 0.02,
    "kl_coef": 0.3,
}  # fmt: skip


def tokens(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Ratios, values and KL on every side of their clips; what is masked holds NaN."""
    names = ("logprobs", "old_logprobs", "advantages", "values", "old_values", "returns", "entropy", "ref_logprobs")
    made = {name: torch.randn(shape) for name in names}
    for name, base, spread in (
        ("old_logprobs", "logprobs", 0.4), ("ref_logprobs", "logprobs", 0.8), ("old_values", "values", 0.3)
    ):  # fmt: skip
        made[name] = made[base] + spread * torch.randn(shape)
    mask = torch.rand(shape) > 0.3
    return {name: torch.where(mask, x, torch.nan).to(dtype) for name, x in made.items()} | {"mask": mask}


def check_tokens(tensors: dict[str, Any], settings: dict[str, Any]) -> None:
    absent = {name: None for name in ("values", "old_values", "returns") if name not in tensors}
    settings = settings | absent
    actual = with_gradients(policy_value_loss, tensors, LEAVES, settings | {"backend": "triton"})
    eager = with_gradients(policy_value_loss_reference, tensors, LEAVES, settings, torch.float32)
    hold(actual, eager, with_gradients(policy_value_loss_reference, tensors, LEAVES, settings, torch.float64))
    for name in LEAVES:
        if name in tensors:
            assert (actual[f"grad {name}"][~tensors["mask"]] == 0).all(), name


@pytest.mark.parametrize(("count", "dtype"), CASES, ids=str)
def test_policy_value_loss_with_everything(count: int, dtype: torch.dtype) -> None:
    check_tokens(tokens((count,), dtype), ALL)


@pytest.mark.parametrize("kl_estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("dual_clip", [None, 1.1])
@pytest.mark.parametrize("value_clip", [None, 0.2])
def test_policy_value_loss_settings(kl_estimator: str, dual_clip: float | None, value_clip: float | None) -> None:
    settings = ALL | {"kl_estimator": kl_estimator, "dual_clip": dual_clip, "value_clip": value_clip}
    check_tokens(tokens((5, 211)), settings)


@pytest.mark.parametrize("parts", list(itertools.product((False, True), repeat=3)), ids=str)
def test_policy_value_loss_parts_left_out(parts: tuple[bool, bool, bool]) -> None:
    tensors, settings = tokens((1025,)), dict(ALL)
    for given, names, coefficient in zip(
        parts,
        (("values", "old_values", "returns"), ("entropy",), ("ref_logprobs",)),
        ("vf_coef", "entropy_coef", "kl_coef"),
        strict=True,
    ):
        if not given:
            settings[coefficient] = 0.0
            for name in names:
                del tensors[name]
    check_tokens(tensors, settings)


def test_policy_value_loss_moments_and_normalizer() -> None:
    check_tokens(tokens((700,)), ALL | {"moments": torch.tensor([0.3, 1.7]), "normalizer": torch.tensor(91.0)})


def test_policy_value_loss_beyond_the_clamp_of_the_ratio() -> None:
    tensors = tokens((64,))
    tensors["old_logprobs"] = tensors["logprobs"] - torch.linspace(-25, 25, 64)
    tensors["ref_logprobs"] = tensors["logprobs"] + torch.linspace(-25, 25, 64)
    for kl_estimator in ("k1", "k2", "k3"):
        check_tokens(tensors, ALL | {"kl_estimator": kl_estimator})


def test_policy_value_loss_of_ratios_close_to_one() -> None:
    """Sum of squares less square of the sum would have no digit of this variance left."""
    tensors = tokens((3000,))
    tensors["old_logprobs"] = tensors["logprobs"] + 1e-3 * torch.randn(3000)
    check_tokens(tensors, ALL)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (7,)])
def test_policy_value_loss_of_no_tokens(shape: tuple[int, ...]) -> None:
    tensors = tokens(shape) | {"mask": torch.zeros(shape, dtype=torch.bool)}
    actual = with_gradients(policy_value_loss, tensors, LEAVES, ALL | {"backend": "triton"})
    assert all((x == 0).all() for x in actual.values())


def test_policy_value_loss_passes_nan_on_from_tokens_that_count() -> None:
    tensors = tokens((40,))
    tensors["logprobs"][int(tensors["mask"].nonzero()[0])] = torch.nan
    loss, stats = policy_value_loss(**tensors, **ALL, backend="triton")
    assert loss.isnan()
    assert stats["ratio_max"].isnan()
    assert stats["kl_ref"].isnan()


def test_policy_value_loss_takes_strided_input_and_repeats_bitwise() -> None:
    tensors = tokens((50, 41))
    first = with_gradients(policy_value_loss, tensors, LEAVES, ALL | {"backend": "triton"})
    strided = {name: x.t().contiguous().t() for name, x in tensors.items()} | {"mask": tensors["mask"].int()}
    again = with_gradients(policy_value_loss, strided, LEAVES, ALL | {"backend": "triton"})
    assert all(torch.equal(first[name], again[name]) for name in first)


# --- kl_shaped_gae ---------------------------------------------------------------------------------------------------

GAE: dict[str, Any] = {"kl_coef": 0.2, "gamma": 0.97, "lam": 0.9, "whiten": False}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 32 tokens: the interpreter scans token by token, in milliseconds each."""
    monkeypatch.setattr(gae_kernel.blocks, "BLOCK", 32)


def rollout(num_rows: int, width: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Holes, prompts and padding under the mask, which hide NaN; a row without any token."""
    mask = torch.rand(num_rows, width) > 0.35
    mask[num_rows // 2] &= num_rows == 1
    per_token = {
        name: torch.where(mask, torch.randn(num_rows, width) + mean, torch.nan).to(dtype)
        for name, mean in (("logprobs", -2), ("ref_logprobs", -3), ("values", 2))
    }
    return {"scores": torch.randn(num_rows).to(dtype) - 4, **per_token, "mask": mask}


def gae_reference(tensors: dict[str, Any], settings: dict[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    made = {name: None if x is None else x if x.dtype == torch.bool else x.to(dtype) for name, x in tensors.items()}
    chosen = {name: x.to(dtype) if isinstance(x, Tensor) else x for name, x in settings.items()}
    advantages, returns, moments, stats = kl_shaped_gae_reference(**made, **chosen)
    return as_results(advantages, returns, moments, dict(zip(STATS, stats.unbind(), strict=True)))


def as_results(advantages: Tensor, returns: Tensor, moments: Tensor, stats: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"advantages": advantages, "returns": returns, "mean": moments[0], "rstd": moments[1], **stats}


def check_rollout(tensors: dict[str, Any], settings: dict[str, Any]) -> dict[str, Tensor]:
    actual = as_results(*kl_shaped_gae(**tensors, **settings, backend="triton"))
    hold(actual, gae_reference(tensors, settings, torch.float32), gae_reference(tensors, settings, torch.float64))
    for name in ("advantages", "returns"):
        assert (actual[name][~tensors["mask"]] == 0).all(), name
    return actual


def check_whitened(tensors: dict[str, Any], settings: dict[str, Any]) -> dict[str, Tensor]:
    """All whitened advantages share the rounding of one mean: held before whitening, together with that mean."""
    raw = check_rollout(tensors, settings | {"whiten": False})
    white = as_results(*kl_shaped_gae(**tensors, **settings, whiten=True, backend="triton"))
    expected = torch.where(tensors["mask"], (raw["advantages"] - raw["mean"]) * raw["rstd"], 0)
    torch.testing.assert_close(white["advantages"], expected, rtol=1e-6, atol=1e-7)
    same = set(raw) - {"advantages", "too_few_to_whiten"}
    assert all(torch.equal(white[name], raw[name]) for name in same)
    return white


@pytest.mark.parametrize("width", [1, 7, 128])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_kl_shaped_gae_equals_the_reference(width: int, dtype: torch.dtype) -> None:
    check_rollout(rollout(5, width, dtype), GAE)


def test_kl_shaped_gae_of_a_thousand_tokens() -> None:
    check_rollout(rollout(1, 1000), GAE)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("width", [33, 65, 140])
def test_kl_shaped_gae_of_few_long_rows(width: int) -> None:
    """Cut into blocks, the last of one token, or of a few."""
    tensors = rollout(3, width)
    tensors["mask"][0] = torch.arange(width) == 32  # the only token of this row in the second block
    tensors["values"] = torch.where(tensors["mask"], torch.randn(3, width) + 2, torch.nan)
    tensors["logprobs"], tensors["ref_logprobs"] = torch.randn(2, 3, width) - torch.tensor([2.0, 3.0])[:, None, None]
    check_rollout(tensors, GAE | {"bootstrap_values": torch.randn(3)})


@pytest.mark.usefixtures("small_blocks")
def test_kl_shaped_gae_of_a_row_of_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """More blocks than one scan of the summaries takes."""
    monkeypatch.setattr(gae_kernel, "_SEGMENTS", 2)
    check_rollout(rollout(1, 200), GAE)


@pytest.mark.usefixtures("small_blocks")
def test_kl_shaped_gae_of_many_rows_of_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One program a row, which carries from block to block."""
    monkeypatch.setattr(gae_kernel, "MANY_ROWS", 1)
    whole = check_rollout(tensors := rollout(4, 70), GAE)
    monkeypatch.setattr(gae_kernel, "MANY_ROWS", 100)
    torch.testing.assert_close(check_rollout(tensors, GAE), whole)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.9, 0.0), (0.0, 0.9)])
def test_kl_shaped_gae_discounts(gamma: float, lam: float) -> None:
    check_rollout(rollout(4, 90), GAE | {"gamma": gamma, "lam": lam, "bootstrap_values": torch.randn(4)})


@pytest.mark.parametrize("kl_estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("dense", [False, True])
def test_kl_shaped_gae_settings(kl_estimator: str, dense: bool) -> None:
    tensors = rollout(3, 60)
    if dense:
        tensors["scores"] = torch.where(tensors["mask"], torch.randn(3, 60) + 1, torch.nan)
    del (settings := dict(GAE))["whiten"]
    check_whitened(tensors, settings | {"kl_estimator": kl_estimator, "kl_coef": torch.tensor(0.4)})


def test_kl_shaped_gae_without_a_reference_model() -> None:
    check_rollout(rollout(3, 60) | {"ref_logprobs": None}, GAE)


@pytest.mark.parametrize("tokens_that_count", [0, 1, 2])
def test_kl_shaped_gae_of_too_few_tokens_to_whiten(tokens_that_count: int) -> None:
    tensors = rollout(2, 5)
    tensors = {name: torch.randn(x.shape) for name, x in tensors.items()}
    tensors["mask"] = torch.arange(10).reshape(2, 5) < tokens_that_count
    del (settings := dict(GAE))["whiten"]
    actual = check_whitened(tensors, settings)
    assert actual["too_few_to_whiten"] == (tokens_that_count < 2)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_kl_shaped_gae_of_nothing(shape: tuple[int, int]) -> None:
    empty = torch.zeros(shape)
    out = kl_shaped_gae(torch.zeros(shape[0]), empty, empty, empty, empty.bool(), **GAE, backend="triton")
    assert out.advantages.shape == out.returns.shape == shape
    assert out.moments.tolist() == [0, 1]
    assert {name: x.item() for name, x in out.stats.items()} == dict.fromkeys(STATS, 0) | {"too_few_to_whiten": 0}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("lengths", [[5, 0, 12, 1], [40, 3, 32], [0, 0]])
@pytest.mark.parametrize("dense", [False, True])
def test_kl_shaped_gae_packed_equals_padded(lengths: list[int], dense: bool) -> None:
    width = max(*lengths, 1)
    tensors = rollout(len(lengths), width)
    filled = torch.arange(width) < torch.tensor(lengths)[:, None]
    tensors["mask"] &= filled
    if dense:
        tensors["scores"] = torch.randn(len(lengths), width)
    packed = {n: x[filled] if x.ndim == 2 else x for n, x in tensors.items()}
    offsets = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    settings = GAE | {"bootstrap_values": torch.randn(len(lengths)), "backend": "triton"}
    padded_out = kl_shaped_gae(**tensors, **settings)
    packed_out = kl_shaped_gae(**packed, **settings, cu_seqlens=offsets)
    torch.testing.assert_close(packed_out.advantages, padded_out.advantages[filled])
    torch.testing.assert_close(packed_out.returns, padded_out.returns[filled])
    torch.testing.assert_close(packed_out.stats, padded_out.stats)


def test_kl_shaped_gae_takes_strided_input_and_repeats_bitwise() -> None:
    tensors = rollout(4, 70)
    strided = {name: x.t().contiguous().t() if x.ndim == 2 else x for name, x in tensors.items()}
    first = as_results(*kl_shaped_gae(**tensors, **GAE, backend="triton"))
    again = as_results(*kl_shaped_gae(**strided, **GAE, backend="triton"))
    assert all(torch.equal(first[name], again[name]) for name in first)
