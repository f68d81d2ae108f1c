"""The cases that test_head_rows.py runs under TRITON_INTERPRET=1, each against float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels._head import triton_launch
from rlsft_kernels._head.rows import FoldState, start_fold
from rlsft_kernels._head.triton_launch import fold_tile_, gradient_tile_, loss_tile_
from rlsft_kernels.policy_value_loss.reference import kl_estimate
from tests.support.closeness import assert_as_accurate_as_eager

WANTED = frozenset(("entropy", "log_sum_sq_probs", "mean_logit", "is_top1"))
# one warp and two rounds: a block is 256 float32 columns, so that few columns fill many blocks and leave a rest
SMALL_BLOCKS = ((2**31, 1, 2),)


@dataclass(frozen=True)
class Settings:
    """How scores become logits."""

    bias: bool = False
    temperature: float | str = 1.0  # "rows": one for each row
    logit_scale: float = 1.0
    softcap: float | None = None


PLAIN = Settings()
EVERYTHING = Settings(bias=True, temperature="rows", logit_scale=1.3, softcap=8.0)
SETTINGS = [
    PLAIN, Settings(bias=True), Settings(temperature=0.7), Settings(temperature="rows"), Settings(logit_scale=-0.5),
    Settings(softcap=5.0, temperature=1.4), EVERYTHING,
]  # fmt: skip


@dataclass
class Rows:
    """Scores as the GEMM leaves them, and what turns them into logits."""

    tile: Tensor  # [R, V]
    targets: Tensor  # [R]
    settings: Settings
    bias: Tensor | None
    temperature: float | Tensor

    def logits(self, scores_RV: Tensor) -> Tensor:
        logits_RV = scores_RV if self.bias is None else scores_RV + self.bias.to(scores_RV.dtype)
        logits_RV = logits_RV * self.settings.logit_scale
        if self.settings.softcap is not None:
            logits_RV = self.settings.softcap * torch.tanh(logits_RV / self.settings.softcap)
        if isinstance(self.temperature, Tensor):
            return logits_RV / self.temperature.to(scores_RV.dtype)[:, None]
        return logits_RV / self.temperature

    def kwargs(self, columns: slice = slice(None)) -> dict[str, Any]:
        bias = None if self.bias is None else self.bias[columns].contiguous()
        settings = self.settings
        return {
            "bias_V": bias,
            "temperature": self.temperature,
            "logit_scale": settings.logit_scale,
            "softcap": settings.softcap,
        }


def rows(
    num_rows: int, V: int, settings: Settings = PLAIN, dtype: torch.dtype = torch.float32, shift: float = 0.0
) -> Rows:
    torch.manual_seed(V + num_rows)
    tile = (3 * torch.randn(num_rows, V) + shift).to(dtype)
    targets = torch.randint(0, V, (num_rows,))
    targets[:1], targets[-1:] = 0, V - 1
    bias = torch.randn(V) if settings.bias else None
    temperature = torch.rand(num_rows) + 0.5 if settings.temperature == "rows" else settings.temperature
    assert not isinstance(temperature, str)
    return Rows(tile, targets, settings, bias, temperature)


def statistics(logits_RV: Tensor, targets_R: Tensor) -> dict[str, Tensor]:
    logprobs_RV = logits_RV.log_softmax(-1)
    finite_RV = torch.where(logprobs_RV > -torch.inf, logprobs_RV, 0)
    return {
        "logprob": logprobs_RV.gather(-1, targets_R[:, None])[:, 0],
        "entropy": -(logprobs_RV.exp() * finite_RV).sum(-1),
        "lse": logits_RV.logsumexp(-1),
        "log_sum_sq_probs": (2 * logprobs_RV).logsumexp(-1),
        "mean_logit": logits_RV.mean(-1),
    }


def fold(case: Rows, edges: tuple[int, ...] = ()) -> tuple[dict[str, Tensor], FoldState]:
    num_rows, num_columns = case.tile.shape
    state = start_fold(num_rows, WANTED, device=case.tile.device, dtype=torch.float32)
    for name in ("row_max", "sum_exp", "sum_exp_shifted", "sum_exp_sq", "sum_logit", "target_logit"):
        getattr(state, name).fill_(torch.nan)  # column 0 must initialise all of it
    for start, end in zip((0, *edges), (*edges, num_columns), strict=True):
        tile = case.tile[:, start:end].clone()
        before = tile.clone()
        fold_tile_(tile, start, case.targets, state=state, **case.kwargs(slice(start, end)))
        torch.testing.assert_close(tile, before, rtol=0, atol=0, equal_nan=True)  # a fold leaves the tile as it is
    log_sum = state.sum_exp.log()
    return {
        "logprob": (state.target_logit - state.row_max) - log_sum,
        "entropy": log_sum - state.sum_exp_shifted / state.sum_exp,
        "lse": state.row_max + log_sum,
        "log_sum_sq_probs": state.sum_exp_sq.log() - 2 * log_sum,
        "mean_logit": state.sum_logit / num_columns,
        "log_sum": log_sum,
    }, state


def assert_fold_is_right(case: Rows, edges: tuple[int, ...] = ()) -> None:
    actual, state = fold(case, edges)
    eager = statistics(case.logits(case.tile.float()), case.targets)
    truth = statistics(case.logits(case.tile.double()), case.targets)
    for name, expected in truth.items():
        assert_as_accurate_as_eager(actual[name], eager[name], expected, name=name)
    assert torch.equal(state.first_largest, case.logits(case.tile.float()).argmax(-1))
    assert (actual["logprob"] <= 0).all()


def gradient_by_autograd(case: Rows, dtype: torch.dtype, upstream: dict[str, Tensor]) -> Tensor:
    scores = case.tile.to(dtype).requires_grad_()
    values = statistics(case.logits(scores), case.targets)
    loss = sum((upstream[name].to(dtype) * values[name]).sum() for name in upstream)
    return torch.autograd.grad(torch.as_tensor(loss), scores)[0]


def assert_gradient_is_right(
    case: Rows, edges: tuple[int, ...] = (), names: tuple[str, ...] = ("logprob", "entropy", "lse")
) -> None:
    values, state = fold(case)
    upstream = {name: torch.randn(len(case.tile)) for name in names}
    grad = torch.full_like(case.tile, torch.nan)
    for start, end in zip((0, *edges), (*edges, case.tile.shape[1]), strict=True):
        tile = case.tile[:, start:end].clone()
        gradient_tile_(
            tile, start, case.targets, row_max_R=state.row_max, log_sum_R=values["log_sum"],
            logprob_R=values["logprob"], entropy_R=values["entropy"], grad_logprob_R=upstream.get("logprob"),
            grad_entropy_R=upstream.get("entropy"), grad_lse_R=upstream.get("lse"), **case.kwargs(slice(start, end)),
        )  # fmt: skip
        grad[:, start:end] = tile
    eager = gradient_by_autograd(case, torch.float32, upstream).to(case.tile.dtype)
    assert_as_accurate_as_eager(grad, eager, gradient_by_autograd(case, torch.float64, upstream), name="gradient")


# --- fold and gradient -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("V", [1, 2, 31, 1000, 1024, 1025, 4099])
@pytest.mark.parametrize("small_blocks", [False, True], ids=["table", "small-blocks"])
def test_every_width(V: int, small_blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if small_blocks:
        monkeypatch.setattr(triton_launch, "_FOLD_TABLE", SMALL_BLOCKS)
        monkeypatch.setattr(triton_launch, "_GRADIENT_TABLE", SMALL_BLOCKS)
    assert_fold_is_right(rows(3, V))
    assert_gradient_is_right(rows(3, V))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_every_setting(settings: Settings, dtype: torch.dtype) -> None:
    case = rows(5, 1025, settings, dtype)
    assert case.tile.dtype == dtype
    assert_fold_is_right(case)
    assert_gradient_is_right(case)


@pytest.mark.parametrize("edges", [(1,), (512,), (1024,), (1, 31, 512, 1024)], ids=str)
def test_tiles_split_at_any_column(edges: tuple[int, ...]) -> None:
    """Targets sit on both sides of every edge."""
    case = rows(2 * len(edges) + 2, 1025, EVERYTHING)
    case.targets[1:-1] = torch.tensor([column for edge in edges for column in (edge - 1, edge)])
    assert_fold_is_right(case, edges)
    assert_gradient_is_right(case, edges)


@pytest.mark.parametrize("names", [("logprob",), ("entropy",), ("lse",), ("logprob", "entropy")], ids="+".join)
def test_each_upstream_gradient_alone(names: tuple[str, ...]) -> None:
    assert_gradient_is_right(rows(3, 1000), names=names)


@pytest.mark.parametrize("shift", [-200.0, 120.0])
def test_logits_whose_exponentials_leave_float32(shift: float) -> None:
    assert_fold_is_right(rows(3, 1000, shift=shift), edges=(500,))
    assert_gradient_is_right(rows(3, 1000, shift=shift))


@pytest.mark.parametrize("order", [1, -1], ids=["rising", "falling"])
def test_maximum_that_moves_with_every_tile(order: int) -> None:
    case = rows(2, 1000)
    case.tile += order * torch.arange(1000) * 0.05
    assert_fold_is_right(case, edges=(250, 500, 750))


def test_sure_token_keeps_its_digits() -> None:
    """1 - p of a target that is all but certain, held on its own: among other gradients it would not count."""
    case = rows(3, 1000)
    case.tile[torch.arange(3), case.targets] = 18.0
    values, state = fold(case)
    grad = case.tile.clone()
    gradient_tile_(
        grad, 0, case.targets, row_max_R=state.row_max, log_sum_R=values["log_sum"], logprob_R=values["logprob"],
        grad_logprob_R=torch.ones(3),
    )  # fmt: skip
    eager, truth = (
        -statistics(case.logits(case.tile.to(dtype)), case.targets)["logprob"].expm1()
        for dtype in (torch.float32, torch.float64)
    )
    at_target = grad.gather(-1, case.targets[:, None])[:, 0]
    assert_as_accurate_as_eager(at_target, eager, truth, name="gradient at the target")


@pytest.mark.parametrize("edges", [(), (300, 700)], ids=["whole", "tiles"])
def test_minus_infinity_is_a_legal_logit(edges: tuple[int, ...]) -> None:
    case = rows(3, 1000)
    case.tile[0, 1:] = -torch.inf  # only the target is left
    case.tile[1, :800] = -torch.inf  # whole tiles of it
    case.tile[2, ::2] = -torch.inf
    case.targets[1:] = 999
    actual, _ = fold(case, edges)
    truth = statistics(case.logits(case.tile.double()), case.targets)
    eager = statistics(case.logits(case.tile), case.targets)
    for name in ("logprob", "entropy", "lse", "log_sum_sq_probs"):
        assert_as_accurate_as_eager(actual[name], eager[name], truth[name], name=name)
    assert (actual["mean_logit"] == -torch.inf).all()
    grad = case.tile.clone()
    gradient_tile_(
        grad, 0, case.targets, row_max_R=fold(case)[1].row_max, log_sum_R=actual["log_sum"],
        logprob_R=actual["logprob"], entropy_R=actual["entropy"], grad_logprob_R=torch.ones(3),
        grad_entropy_R=torch.ones(3),
    )  # fmt: skip
    assert grad.isfinite().all()
    assert (grad[case.tile == -torch.inf] == 0).all()


def test_row_of_only_minus_infinity_is_nan_as_in_log_softmax() -> None:
    case = rows(2, 1000)
    case.tile[0] = -torch.inf
    actual, state = fold(case, edges=(300,))
    assert actual["logprob"][0].isnan()
    assert actual["logprob"][1].isfinite()
    assert state.row_max[0] == -torch.inf


@pytest.mark.parametrize("column", [0, 999])
def test_nan_is_not_swallowed(column: int) -> None:
    case = rows(2, 1000)
    case.tile[0, column] = torch.nan
    actual, state = fold(case, edges=(300,))
    assert actual["logprob"][0].isnan()
    assert actual["entropy"][0].isnan()
    assert state.first_largest[0] == -1
    assert actual["logprob"][1].isfinite()
    assert state.first_largest[1] >= 0


@pytest.mark.parametrize("edges", [(), (5,), (600,), (5, 600, 700)], ids=str)
def test_first_of_equal_maxima(edges: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_launch, "_FOLD_TABLE", SMALL_BLOCKS)
    case = rows(3, 1000)
    case.tile[0, [10, 600, 999]] = 50.0
    case.tile[1, [4, 5]] = 50.0
    case.tile[2] = 1.0
    assert fold(case, edges)[1].first_largest.tolist() == [10, 4, 0]


def test_no_rows() -> None:
    case = Rows(torch.empty(0, 7), torch.empty(0, dtype=torch.int64), PLAIN, None, 1.0)
    fold(case)
    gradient_tile_(
        case.tile, 0, case.targets, row_max_R=torch.empty(0), log_sum_R=torch.empty(0), logprob_R=torch.empty(0)
    )
    loss_tile_(case.tile, case.targets, rule="nll", logprob_R=torch.empty(0), with_gradient=True)


def test_rows_longer_in_memory_than_the_vocabulary_leave_the_rest_alone() -> None:
    case = rows(3, 1000)
    storage = torch.full((3, 1008), 7.0)
    tile = storage[:, 3:1003]
    tile.copy_(case.tile)
    values, state = fold(case)
    grad_logprob_R = torch.ones(3)
    settings: dict[str, Any] = {
        "row_max_R": state.row_max,
        "log_sum_R": values["log_sum"],
        "logprob_R": values["logprob"],
    }
    gradient_tile_(tile, 0, case.targets, grad_logprob_R=grad_logprob_R, **settings)
    plain = case.tile.clone()
    gradient_tile_(plain, 0, case.targets, grad_logprob_R=grad_logprob_R, **settings)
    assert torch.equal(tile, plain)
    assert (storage[:, :3] == 7).all()
    assert (storage[:, 1003:] == 7).all()


# --- token losses ----------------------------------------------------------------------------------------------------


def token_loss(
    rule: str, logprob: Tensor, entropy: Tensor, tokens: dict[str, Tensor], settings: dict[str, Any]
) -> Tensor:
    """[R], differentiable by autograd, from the papers' formulas."""
    if rule == "nll":
        loss = -logprob
    elif rule == "dft":
        loss = -logprob.exp().detach() * logprob
    elif rule == "reinforce":
        loss = -tokens["advantages"] * logprob
    else:
        ratio = (logprob - tokens["old_logprobs"]).clamp(-20, 20).exp()
        bounded = ratio.clamp(1 - settings["clip_low"], 1 + settings["clip_high"])
        if rule == "cispo":
            loss = -tokens["advantages"] * bounded.detach() * logprob
        else:
            unclipped, clipped = -tokens["advantages"] * ratio, -tokens["advantages"] * bounded
            loss = torch.where(clipped > unclipped, clipped, unclipped)
            if settings.get("dual_clip") is not None:
                bound = -tokens["advantages"] * settings["dual_clip"]
                loss = torch.where((tokens["advantages"] < 0) & (loss > bound), bound, loss)
    if "ref_logprobs" in tokens:
        loss = loss + settings["kl_coef"] * kl_estimate(logprob, tokens["ref_logprobs"], settings["kl_estimator"])
    return tokens["weight"] * (loss - settings.get("entropy_coef", 0.0) * entropy)


def loss_gradient(
    case: Rows, rule: str, tokens: dict[str, Tensor], settings: dict[str, Any], dtype: torch.dtype
) -> Tensor:
    scores = case.tile.to(dtype).requires_grad_()
    values = statistics(case.logits(scores), case.targets)
    wide = {name: x.to(dtype) for name, x in tokens.items()}
    return torch.autograd.grad(token_loss(rule, values["logprob"], values["entropy"], wide, settings).sum(), scores)[0]


LOSSES: list[tuple[str, dict[str, Any]]] = [
    ("nll", {}),
    ("dft", {}),
    ("reinforce", {}),
    ("ppo", {}),
    ("ppo", {"dual_clip": 3.0}),
    ("ppo", {"kl_coef": 0.3, "kl_estimator": "k1"}),
    ("ppo", {"kl_coef": 0.3, "kl_estimator": "k2"}),
    ("ppo", {"kl_coef": 0.3, "kl_estimator": "k3", "entropy_coef": 0.05}),
    ("nll", {"entropy_coef": 0.05}),
    ("cispo", {"kl_coef": 0.3, "kl_estimator": "k3"}),
]


def token_tensors(case: Rows, with_ref: bool) -> dict[str, Tensor]:
    """Ratios on both sides of every clip, for both signs of the advantage, some beyond every clamp."""
    logprob = statistics(case.logits(case.tile.double()), case.targets)["logprob"].float()
    shift = torch.linspace(-2.5, 2.5, len(logprob))
    shift[:2] = torch.tensor([-30.0, 25.0])
    tokens = {
        "advantages": torch.randn(len(logprob)) + torch.where(torch.arange(len(logprob)) % 2 == 0, 1.0, -1.0),
        "old_logprobs": logprob - shift,
        "weight": torch.rand(len(logprob)) + 0.1,
    }
    return tokens | ({"ref_logprobs": logprob - shift.flip(0)} if with_ref else {})


def run_loss(
    case: Rows, rule: str, tokens: dict[str, Tensor], settings: dict[str, Any], **more: Any
) -> dict[str, Tensor]:
    num_rows = len(case.tile)
    out = {name: torch.full((num_rows,), torch.nan) for name in ("logprob", "entropy", "grad_logprob", "grad_entropy")}
    out |= {"is_top1": torch.zeros(num_rows, dtype=torch.bool), "tile": case.tile.clone()}
    loss_tile_(
        out["tile"], case.targets, rule=rule, logprob_R=out["logprob"], entropy_R=out["entropy"],
        is_top1_R=out["is_top1"], grad_logprob_R=out["grad_logprob"], grad_entropy_R=out["grad_entropy"],
        **{f"{name}_R": x for name, x in tokens.items()},
        **({"with_gradient": True} | settings | more), **case.kwargs(),
    )  # fmt: skip
    return out


@pytest.mark.parametrize(("rule", "options"), LOSSES, ids=str)
@pytest.mark.parametrize("settings", [PLAIN, EVERYTHING], ids=["plain", "everything"])
def test_token_losses(rule: str, options: dict[str, Any], settings: Settings) -> None:
    case = rows(24, 300, settings)
    options = {"clip_low": 0.1, "clip_high": 0.3} | options
    tokens = token_tensors(case, "kl_coef" in options)
    out = run_loss(case, rule, tokens, options)
    eager, truth = (
        statistics(case.logits(case.tile.to(dtype)), case.targets) for dtype in (torch.float32, torch.float64)
    )
    for name in ("logprob", "entropy"):
        assert_as_accurate_as_eager(out[name], eager[name], truth[name], name=name)
    eager_grad, true_grad = (loss_gradient(case, rule, tokens, options, x) for x in (torch.float32, torch.float64))
    assert_as_accurate_as_eager(out["tile"], eager_grad, true_grad, name="gradient")
    assert torch.equal(out["is_top1"], case.logits(case.tile).argmax(-1) == case.targets)


@pytest.mark.parametrize("V", [1, 31, 1024, 1025])
def test_token_loss_of_every_width(V: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_launch, "_WIDE_LOSS_TABLE", SMALL_BLOCKS)
    case = rows(3, V)
    tokens = {"weight": torch.ones(3)}
    grads = [loss_gradient(case, "nll", tokens, {}, dtype) for dtype in (torch.float32, torch.float64)]
    assert_as_accurate_as_eager(run_loss(case, "nll", tokens, {})["tile"], *grads)


@pytest.mark.parametrize(("rule", "options"), LOSSES, ids=str)
def test_coefficients_are_those_of_the_loss(rule: str, options: dict[str, Any]) -> None:
    """Token by token, so that a small coefficient does not hide behind a large one."""
    case = rows(24, 300)
    options = {"clip_low": 0.1, "clip_high": 0.3} | options
    tokens = token_tensors(case, "kl_coef" in options)
    out = run_loss(case, rule, tokens, options)
    values = {name: out[name].double().requires_grad_() for name in ("logprob", "entropy")}
    wide = {name: x.double() for name, x in tokens.items()}
    loss = token_loss(rule, values["logprob"], values["entropy"], wide, options).sum()
    g, e = torch.autograd.grad(loss, list(values.values()))
    torch.testing.assert_close(out["grad_logprob"].double(), g, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(out["grad_entropy"].double(), e, rtol=1e-6, atol=0)


def test_masked_rows_are_exactly_zero_whatever_they_hold() -> None:
    case = rows(4, 300)
    tokens = token_tensors(case, True)
    case.tile[1] = torch.nan
    for x in tokens.values():
        x[1] = torch.nan
    tokens["mask"] = torch.tensor([True, False, True, True])
    out = run_loss(case, "ppo", tokens, {"kl_coef": 0.1, "entropy_coef": 0.1})
    for name, x in out.items():
        assert (x[1] == 0).all(), name
        assert x.isfinite().all(), name


def test_without_a_gradient_the_tile_stays() -> None:
    case = rows(3, 300)
    tokens = {"weight": torch.ones(3)}
    out = run_loss(case, "nll", tokens, {}, with_gradient=False)
    assert torch.equal(out["tile"], case.tile)
    assert torch.equal(out["logprob"], run_loss(case, "nll", tokens, {})["logprob"])
