"""The head's ops on their Triton rows, run by the interpreter; test_head_triton_ops.py starts it in its own process."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels._head import passes, triton_rows
from rlsft_kernels._head.gradients import HeadGradients, Needs
from rlsft_kernels._head.head import Head
from rlsft_kernels._head.loss import LossPlan
from rlsft_kernels.linear_cross_entropy.reference import linear_cross_entropy_reference
from rlsft_kernels.linear_cross_entropy.tiled import linear_cross_entropy_fwd
from rlsft_kernels.linear_logprob.reference import linear_logprob_reference
from rlsft_kernels.linear_logprob.tiled import SAVED, UpstreamGradients, linear_logprob_bwd, linear_logprob_fwd
from rlsft_kernels.linear_policy_loss.reference import linear_policy_loss_reference
from rlsft_kernels.linear_policy_loss.terms import LossTerms, PolicyTokens
from rlsft_kernels.linear_policy_loss.tiled import PolicyLoss, linear_policy_loss_fwd
from tests.support.closeness import assert_as_accurate_as_eager

N, H, V = 11, 6, 70
TILE_BYTES = 4 * 4 * V  # four rows
ALL_NEEDS = Needs((True,), (True,), True)
KINDS = ("ppo", "cispo", "reinforce")


def problem() -> dict[str, Tensor]:
    torch.manual_seed(9)
    targets = torch.randint(0, V, (N,))
    targets[2] = targets[7] = -100
    return {"hidden": torch.randn(N, H), "weight": torch.randn(V, H), "bias": torch.randn(V), "targets": targets}


def leaves(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {n: x.to(dtype, copy=True).requires_grad_() if x.is_floating_point() else x for n, x in tensors.items()}


def hold(found: HeadGradients, eager: tuple[Tensor, ...], truth: tuple[Tensor, ...]) -> None:
    assert found.hiddens[0] is not None
    assert found.weights[0] is not None
    assert found.bias is not None
    for name, a, e, t in zip(
        ("hidden", "weight", "bias"), (found.hiddens[0], found.weights[0], found.bias), eager, truth, strict=True
    ):
        assert_as_accurate_as_eager(a, e, t, name=name)


def differentiate(loss: Tensor, tensors: dict[str, Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, [tensors[name] for name in ("hidden", "weight", "bias")])


@pytest.mark.parametrize("kept_columns", [0, 35, V])
def test_linear_logprob(kept_columns: int) -> None:
    tensors = problem()
    settings: dict[str, Any] = {"softcap": 4.0, "logit_scale": 1.2, "temperature": torch.rand(N) + 0.5}
    head = Head((tensors["weight"],), tensors["bias"], 4.0, 1.2)
    buffer = torch.empty(N * kept_columns)
    wanted = frozenset(("logprob", "entropy", "lse", "log_sum_sq_probs", "mean_logit", "is_top1", "row_max", "log_sum"))
    arguments = ((tensors["hidden"],), tensors["targets"], settings["temperature"])
    fields = linear_logprob_fwd(head, triton_rows, *arguments, wanted, -100, TILE_BYTES, buffer)  # type: ignore[arg-type]
    wide, narrow = leaves(tensors, torch.float64), leaves(tensors, torch.float32)
    truth = linear_logprob_reference(**wide, **settings | {"temperature": settings["temperature"].double()})
    eager = linear_logprob_reference(**narrow, **settings)
    for name in ("logprob", "entropy", "lse", "log_sum_sq_probs", "mean_logit"):
        assert_as_accurate_as_eager(fields[name], getattr(eager, name), getattr(truth, name), name=name)
    assert torch.equal(fields["is_top1"], eager.is_top1)  # type: ignore[arg-type]
    upstream = torch.randn(3, N)
    saved = {name: fields[name] for name in SAVED}
    found = linear_logprob_bwd(
        head,
        triton_rows,
        *arguments,
        UpstreamGradients(*upstream),
        saved,
        -100,
        TILE_BYTES,
        ALL_NEEDS,
        buffer,  # type: ignore[arg-type]
    )
    losses = [
        (upstream.to(out.logprob.dtype) * torch.stack((out.logprob, out.entropy, out.lse))).sum()  # type: ignore[union-attr, arg-type]
        for out in (eager, truth)
    ]
    hold(found, differentiate(losses[0], narrow), differentiate(losses[1], wide))


def fused(plan_dtype: torch.dtype = torch.float32) -> LossPlan:
    return LossPlan(False, plan_dtype)


@pytest.mark.parametrize("kind", ["nll", "dft"])
def test_linear_cross_entropy(kind: str) -> None:
    tensors = problem()
    weights = torch.rand(N)
    weights[4] = 0
    head = Head((tensors["weight"],), tensors["bias"], 4.0, 1.2)
    out = linear_cross_entropy_fwd(
        head,
        triton_rows,
        (tensors["hidden"],),
        tensors["targets"],
        weights,
        kind,
        -100,
        TILE_BYTES,
        ALL_NEEDS,
        fused(),  # type: ignore[arg-type]
    )
    results = []
    for dtype in (torch.float32, torch.float64):
        given = leaves(tensors, dtype)
        logprob = linear_logprob_reference(**given, softcap=4.0, logit_scale=1.2).logprob
        assert logprob is not None
        trust = logprob.detach().exp() if kind == "dft" else 1.0
        loss = -(weights.to(dtype) * trust * logprob).sum()
        results.append((loss, differentiate(loss, given)))
    assert_as_accurate_as_eager(out.total, results[0][0], results[1][0], name="loss")
    hold(out.gradients, results[0][1], results[1][1])
    _, stats = linear_cross_entropy_reference(**leaves(tensors, torch.float64), softcap=4.0, logit_scale=1.2)
    count = stats["num_tokens"]
    expected = [count, stats["accuracy"] * count, stats["entropy"] * count, stats["sum_nll"]]
    torch.testing.assert_close(out.sums.double(), torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kl_coef", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_linear_policy_loss(kind: str, kl_coef: float) -> None:
    tensors = problem()
    torch.manual_seed(1)
    mask = tensors["targets"] >= 0
    targets = tensors["targets"].clamp(min=0)
    logprob = linear_logprob_reference(tensors["hidden"], tensors["weight"], targets, bias=tensors["bias"]).logprob
    assert logprob is not None
    per_token = {
        "advantages": torch.randn(N), "old_logprobs": logprob + 0.4 * torch.randn(N),
        "ref_logprobs": logprob + 0.4 * torch.randn(N),
    }  # fmt: skip
    weights = torch.rand(N)
    settings: dict[str, Any] = {"kl_coef": kl_coef, "entropy_coef": 0.05, "dual_clip": 1.5}
    head = Head((tensors["weight"],), tensors["bias"])
    tokens = PolicyTokens(**per_token, weights=weights)
    terms = LossTerms(0.2, 0.2, 1.5, None, 0.0, 0.05, kl_coef, "k3")
    total, _, found = linear_policy_loss_fwd(
        head, triton_rows, (tensors["hidden"],), targets, mask, tokens, 1.0, PolicyLoss(kind, terms, False),  # type: ignore[arg-type]
        TILE_BYTES, ALL_NEEDS, fused(),
    )  # fmt: skip
    results = []
    for dtype in (torch.float32, torch.float64):
        given = leaves(tensors | {"targets": targets}, dtype)
        moved = {name: x.to(dtype) for name, x in per_token.items()}
        loss, _ = linear_policy_loss_reference(
            **given, **moved, mask=mask, token_weights=weights.to(dtype), normalizer=1.0, loss_kind=kind, **settings
        )
        results.append((loss, differentiate(loss, given)))
    assert_as_accurate_as_eager(total, results[0][0], results[1][0], name="loss")
    hold(found, results[0][1], results[1][1])


def test_the_loss_of_a_tile_is_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fold and the gradient kernels are not called where the loss kernel did both."""
    for name in ("fold_", "gradient_"):
        monkeypatch.setattr(triton_rows, name, None)
    tensors = problem()
    head = Head((tensors["weight"],), tensors["bias"])
    linear_cross_entropy_fwd(
        head,
        triton_rows,
        (tensors["hidden"],),
        tensors["targets"],
        None,
        "nll",
        -100,
        TILE_BYTES,
        ALL_NEEDS,
        fused(),  # type: ignore[arg-type]
    )


def test_rows_that_stay_for_a_gpu_are_zeroed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU nothing is gathered: ignored rows hold NaN, and neither result nor weight gradient may see it."""
    from rlsft_kernels._head import head as head_module
    from rlsft_kernels.linear_cross_entropy import tiled

    def all_rows(
        hiddens: tuple[Tensor, ...], targets_N: Tensor, temperature: Any, ignore_index: int, num_columns: int
    ) -> Any:
        labelled_N = targets_N != ignore_index
        zeroed = tuple(torch.where(labelled_N[:, None], hidden, 0) for hidden in hiddens)
        return head_module.Tokens(zeroed, torch.where(labelled_N, targets_N, 0), temperature), None

    monkeypatch.setattr(tiled, "labelled_tokens", all_rows)
    monkeypatch.setattr(passes, "live_rows", lambda *_: None)
    tensors = problem()
    clean = tensors | {"hidden": torch.where((tensors["targets"] >= 0)[:, None], tensors["hidden"], 0)}
    tensors["hidden"][tensors["targets"] < 0] = torch.nan
    head = Head((tensors["weight"],), tensors["bias"])
    arguments = (tensors["targets"], None, "nll", -100, TILE_BYTES, ALL_NEEDS, fused())
    out = linear_cross_entropy_fwd(head, triton_rows, (tensors["hidden"],), *arguments)  # type: ignore[arg-type]
    given = leaves(clean, torch.float64)
    loss, _ = linear_cross_entropy_reference(**given, normalizer=1.0)
    narrow = leaves(clean, torch.float32)
    eager, _ = linear_cross_entropy_reference(**narrow, normalizer=1.0)
    assert_as_accurate_as_eager(out.total, eager, loss, name="loss")
    hold(out.gradients, differentiate(eager, narrow), differentiate(loss, given))
