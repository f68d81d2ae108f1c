"""ppo_chain: equal to its steps and to autograd in float64, with and without old log-probabilities, layouts, masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels import kl_shaped_gae, linear_logprob, policy_value_loss, ppo_chain
from rlsft_kernels.ppo_chain.reference import ppo_chain_reference
from tests.ops.head_cases import OpWatch
from tests.support.closeness import assert_as_accurate_as_eager

B, T, H, V = 3, 7, 6, 41
LEAVES = ("hidden", "weight", "values")
SETTINGS: dict[str, Any] = {
    "kl_coef": 0.1, "gamma": 0.98, "lam": 0.9, "clip_low": 0.1, "clip_high": 0.3, "vf_coef": 0.5, "entropy_coef": 0.02,
    "temperature": 0.8,
}  # fmt: skip


def batch(dtype: torch.dtype, *, old: bool) -> dict[str, Any]:
    """Answers of 7, 4 and 0 tokens with a hole in the first; what the mask hides is NaN."""
    torch.manual_seed(2)
    mask = torch.arange(T) < torch.tensor([7, 4, 0])[:, None]
    mask[0, 3] = False
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    made: dict[str, Any] = {
        "hidden": torch.randn(B, T, H).to(dtype),
        "ref_hidden": torch.randn(B, T, H).to(dtype),
        "weight": torch.randn(V, H).to(dtype),
        "targets": torch.randint(0, V, (B, T)),
        "scores": torch.randn(B).to(wide),
        "values": torch.randn(B, T).to(wide),
        "mask": mask,
    }
    if old:
        logprob = linear_logprob(made["hidden"], made["weight"], made["targets"], temperature=0.8).logprob
        assert logprob is not None
        made["old_logprobs"] = logprob.to(wide) + 0.3 * torch.randn(B, T).to(wide)
        made["old_values"] = made["values"] + 0.3 * torch.randn(B, T).to(wide)
    for x in made.values():
        if isinstance(x, Tensor) and x.is_floating_point() and x.shape[:2] == (B, T):
            x[~mask] = torch.nan
    made["targets"][~mask] = 10**6
    for name in LEAVES:
        made[name].requires_grad_()
    return made


def grads(loss: Tensor, tensors: dict[str, Any]) -> dict[str, Tensor]:
    return dict(zip(LEAVES, torch.autograd.grad(loss, [tensors[name] for name in LEAVES]), strict=True))


def clean(tensors: dict[str, Any]) -> dict[str, Any]:
    """For the reference, which gathers no rows: legal ids under the mask."""
    return tensors | {"targets": torch.where(tensors["mask"], tensors["targets"], 0)}


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_equals_autograd_through_its_definition(old: bool, whiten: bool) -> None:
    tensors = batch(torch.float64, old=old)
    loss, stats = ppo_chain(**tensors, **SETTINGS, whiten=whiten, tile_bytes=1000)
    expected, expected_stats = ppo_chain_reference(**clean(tensors), **SETTINGS, whiten=whiten)
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=1e-12)
    for name, value in expected_stats.items():
        torch.testing.assert_close(stats[name], value, rtol=1e-10, atol=1e-11, msg=name)
    found, wanted = grads(loss, tensors), grads(expected, tensors)
    for name in LEAVES:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-10, atol=1e-11, msg=name)
    assert all((found[name][~tensors["mask"]] == 0).all() for name in ("hidden", "values"))


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_is_as_accurate_as_eager(dtype: torch.dtype, old: bool) -> None:
    tensors = batch(dtype, old=old)
    exact = {
        n: x.detach().double().requires_grad_(x.requires_grad) if isinstance(x, Tensor) and x.is_floating_point() else x
        for n, x in tensors.items()
    }
    loss, _ = ppo_chain(**tensors, **SETTINGS)
    eager, _ = ppo_chain_reference(**clean(tensors), **SETTINGS)
    truth, _ = ppo_chain_reference(**clean(exact), **SETTINGS)
    eager_grads, truth_grads = grads(eager, tensors), grads(truth, exact)
    for name, grad in grads(loss, tensors).items():
        assert_as_accurate_as_eager(grad, eager_grads[name], truth_grads[name], name=name)


@pytest.mark.parametrize("old", [True, False])
def test_equals_the_ops_one_by_one(old: bool) -> None:
    tensors = batch(torch.float32, old=old)
    mask = tensors["mask"]
    marked = torch.where(mask, tensors["targets"], -100)
    out = linear_logprob(tensors["hidden"], tensors["weight"], marked, outputs=("logprob", "entropy"), temperature=0.8)
    assert out.logprob is not None
    ref = linear_logprob(tensors["ref_hidden"], tensors["weight"].detach(), marked, temperature=0.8).logprob
    drawn = tensors["old_logprobs"] if old else out.logprob.detach()
    valued = tensors["old_values"] if old else tensors["values"].detach()
    gae = kl_shaped_gae(tensors["scores"], drawn, ref, valued, mask, kl_coef=0.1, gamma=0.98, lam=0.9)
    expected, expected_stats = policy_value_loss(
        out.logprob, drawn, gae.advantages, tensors["values"], valued, gae.returns, mask, clip_low=0.1, clip_high=0.3,
        vf_coef=0.5, entropy=out.entropy, entropy_coef=0.02,
    )  # fmt: skip
    loss, stats = ppo_chain(**tensors, **SETTINGS)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(grads(loss, tensors), grads(expected, tensors), rtol=1e-4, atol=1e-6)
    for name, value in expected_stats.items():
        torch.testing.assert_close(stats[name], value, rtol=1e-4, atol=1e-6, msg=name)
    for name, value in gae.stats.items():
        torch.testing.assert_close(stats[f"gae/{name}"], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("old", [True, False])
def test_packed_equals_padded(old: bool) -> None:
    tensors = batch(torch.float64, old=old)
    padded, padded_stats = ppo_chain(**tensors, **SETTINGS)
    kept = torch.arange(T) < torch.tensor([7, 4, 0])[:, None]  # the hole stays: it is a token that does not count
    packed = {
        n: x[kept] if isinstance(x, Tensor) and x.shape[:2] == (B, T) else x for n, x in tensors.items()
    }  # fmt: skip
    loss, stats = ppo_chain(**packed, **SETTINGS, cu_seqlens=torch.tensor([0, 7, 11, 11]))
    torch.testing.assert_close(loss, padded)
    torch.testing.assert_close(stats, padded_stats)
    torch.testing.assert_close(grads(loss, tensors), grads(padded, tensors))


def test_old_logprobs_save_a_product() -> None:
    """One product each for policy and reference, then three more without and two more with old log-probabilities."""
    counts = {}
    for old in (True, False):
        with OpWatch() as watch:
            ppo_chain(**batch(torch.float32, old=old), **SETTINGS)[0].backward()
        counts[old] = watch.matmuls
    with OpWatch() as watch:
        ppo_chain(**batch(torch.float32, old=False), **SETTINGS, memory_budget=10**9)[0].backward()
    batch_only = 1  # batch(old=True) itself draws the old log-probabilities with one product
    assert counts == {True: 4 + batch_only, False: 5}
    assert watch.matmuls == 4


def test_at_the_first_update_ratio_is_one_and_kl_of_equal_policies_zero() -> None:
    tensors = batch(torch.float32, old=False)
    tensors["ref_hidden"] = tensors["hidden"].detach()
    _, stats = ppo_chain(**tensors, **SETTINGS)
    assert stats["ratio_mean"] == 1
    assert stats["ratio_max"] == 1
    assert stats["approxkl_k1"] == 0
    assert stats["gae/kl"] == 0


def test_without_a_reference_there_is_no_penalty() -> None:
    tensors = batch(torch.float32, old=True) | {"ref_hidden": None}
    _, stats = ppo_chain(**tensors, **SETTINGS)
    assert stats["gae/kl"] == 0
    assert stats["gae/non_score_reward"] == 0


def test_reference_runs_without_the_adapter() -> None:
    tensors = batch(torch.float32, old=False)
    lora = (torch.randn(2, H), torch.randn(V, 2), 0.5)
    tensors["ref_hidden"] = tensors["hidden"].detach()
    _, stats = ppo_chain(**tensors, **SETTINGS, lora=lora)
    marked = torch.where(tensors["mask"], tensors["targets"], -100)
    head = (tensors["ref_hidden"], tensors["weight"].detach(), marked)
    with_adapter, base = (linear_logprob(*head, temperature=0.8, lora=x).logprob for x in (lora, None))
    assert with_adapter is not None
    assert base is not None
    expected = (with_adapter - base)[tensors["mask"]].mean()
    assert expected.abs() > 0.1
    torch.testing.assert_close(stats["gae/kl"], expected)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"mask": torch.ones(B, T)}, TypeError, "mask must be bool or integer"),
        ({"ref_hidden": torch.zeros(B, T, 2)}, ValueError, "ref_hidden must be shaped like hidden"),
        ({"values": torch.zeros(B)}, ValueError, r"values must be shaped like targets \[3, 7\], got \[3\]"),
        ({"old_logprobs": torch.zeros(B, T).long()}, TypeError, "old_logprobs must be float32 or"),
        ({"scores": torch.zeros(2)}, ValueError, r"scores must be \[B\] = \[3\]"),
        ({"clip_low": 2.0}, ValueError, r"clip_low must be in \[0, 1\]"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ppo_chain(**(batch(torch.float32, old=True) | changed))
