"""kl_shaped_gae: by hand, against four independent loops, masks with holes and NaN, layouts, whitening, errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels import GaeOutput, kl_shaped_gae
from rlsft_kernels.kl_shaped_gae.reference import STATS, kl_shaped_gae_reference
from tests.support.closeness import assert_as_accurate_as_eager


def rollout(num_rows: int = 6, width: int = 9, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Random inputs; a mask with prompts, padding and holes in the middle."""
    per_token = {name: torch.randn(num_rows, width).to(dtype) for name in ("logprobs", "ref_logprobs", "values")}
    return {
        "scores": torch.randn(num_rows).to(dtype),
        **per_token,
        "mask": torch.rand(num_rows, width) > 0.35,
    }


def padded_on_the_right(num_rows: int = 6, width: int = 9) -> dict[str, Tensor]:
    """Rows of 1 to `width - 1` tokens without holes."""
    tokens = rollout(num_rows, width)
    tokens["mask"] = torch.arange(width) < torch.randint(1, width, (num_rows, 1))
    return tokens


# --- by hand ---------------------------------------------------------------------------------------------------------


def test_three_tokens_by_hand() -> None:
    """A padded prompt token, three answer tokens, padding; KL k1 of 1, 0 and -2 nats at a weight of 0.1."""
    gamma, lam = 0.9, 0.8
    values = torch.tensor([[9.0, 0.5, 0.4, 0.3, 9.0]])
    out = kl_shaped_gae(
        torch.tensor([2.0]),
        torch.tensor([[9.0, -1.0, -1.0, -3.0, 9.0]]),
        torch.tensor([[0.0, -2.0, -1.0, -1.0, 0.0]]),
        values,
        torch.tensor([[0, 1, 1, 1, 0]]),
        kl_coef=0.1,
        gamma=gamma,
        lam=lam,
        whiten=False,
    )
    rewards = (-0.1, 0.0, 0.2 + 2.0)
    third = rewards[2] - 0.3
    second = rewards[1] + gamma * 0.3 - 0.4 + gamma * lam * third
    first = rewards[0] + gamma * 0.4 - 0.5 + gamma * lam * second
    assert out.advantages[0].tolist() == pytest.approx([0, first, second, third, 0])
    assert out.returns[0].tolist() == pytest.approx([0, first + 0.5, second + 0.4, third + 0.3, 0])
    expected = {
        "count": 3, "sequences": 1, "kl": -1 / 3, "kl_sum": -1, "non_score_reward": 0.1, "scores": 2,
        "rlhf_reward": 2.1, "values_mean": 0.4, "advantages_mean": (first + second + third) / 3, "too_few_to_whiten": 0,
    }  # fmt: skip
    assert {name: out.stats[name].item() for name in expected} == pytest.approx(expected)
    assert tuple(out.stats) == STATS


def test_without_discount_and_decay_the_return_is_the_sum_of_rewards_to_come() -> None:
    tokens = rollout()
    out = kl_shaped_gae(**tokens, kl_coef=0.3, gamma=1.0, lam=1.0, whiten=False)
    mask = tokens["mask"]
    penalty = torch.where(mask, -0.3 * (tokens["logprobs"] - tokens["ref_logprobs"]), 0)
    to_come = penalty.flip(1).cumsum(1).flip(1) + tokens["scores"][:, None] * mask.any(dim=1, keepdim=True)
    torch.testing.assert_close(out.returns, torch.where(mask, to_come, 0))


def test_with_lambda_zero_the_advantage_is_the_one_step_error() -> None:
    tokens = padded_on_the_right()
    out = kl_shaped_gae(**tokens, kl_coef=0.0, gamma=0.9, lam=0.0, whiten=False)
    row = int(tokens["mask"].sum(dim=1).argmax())
    last = int(tokens["mask"][row].sum()) - 1
    values = tokens["values"][row]
    assert out.advantages[row, last].item() == pytest.approx(float(tokens["scores"][row] - values[last]))
    for t in range(last):
        assert out.advantages[row, t].item() == pytest.approx(float(0.9 * values[t + 1] - values[t]))


# --- oracles: loops of other trainers, written out again -------------------------------------------------------------


def by_definition(tokens: dict[str, Tensor], kl_coef: float, gamma: float, lam: float) -> Tensor:
    """arXiv 1506.02438, eq. 16, as the double sum it is, on the unmasked tokens of each row alone."""
    advantages = torch.zeros_like(tokens["values"])
    for row in range(len(advantages)):
        at = tokens["mask"][row].nonzero()[:, 0].tolist()
        rewards = [-kl_coef * float(tokens["logprobs"][row, t] - tokens["ref_logprobs"][row, t]) for t in at]
        if at:
            rewards[-1] += float(tokens["scores"][row])
        values = [float(tokens["values"][row, t]) for t in at] + [0.0]
        deltas = [rewards[i] + gamma * values[i + 1] - values[i] for i in range(len(at))]
        for i, t in enumerate(at):
            advantages[row, t] = sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[i:]))
    return advantages


@pytest.mark.parametrize("make", [rollout, padded_on_the_right])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.0, 0.5)])
def test_equals_the_definition_on_the_unmasked_tokens(make: Any, gamma: float, lam: float) -> None:
    tokens = make()
    out = kl_shaped_gae(**tokens, kl_coef=0.2, gamma=gamma, lam=lam, whiten=False)
    torch.testing.assert_close(out.advantages, by_definition(tokens, 0.2, gamma, lam))


def test_equals_the_loop_of_verl() -> None:
    """Rule: accumulators carry through masked tokens; whitening is masked and unbiased. Compared on valid tokens."""
    tokens, gamma, lam = rollout(), 0.97, 0.9
    mask = tokens["mask"].double()
    rewards = -0.2 * (tokens["logprobs"] - tokens["ref_logprobs"])
    last = [int(row.nonzero()[-1]) for row in tokens["mask"]]
    rewards[torch.arange(6), last] += tokens["scores"]
    next_value = next_advantage = torch.zeros(6).double()
    reversed_advantages = []
    for t in reversed(range(9)):
        delta = rewards[:, t] + gamma * next_value - tokens["values"][:, t]
        advantage = delta + gamma * lam * next_advantage
        next_value = tokens["values"][:, t] * mask[:, t] + (1 - mask[:, t]) * next_value
        next_advantage = advantage * mask[:, t] + (1 - mask[:, t]) * next_advantage
        reversed_advantages.append(next_advantage)
    advantages = torch.stack(reversed_advantages[::-1], dim=1)
    returns = advantages + tokens["values"]
    valid = advantages[tokens["mask"]]
    whitened = (advantages - valid.mean()) * torch.rsqrt(valid.var() + 1e-8)
    out = kl_shaped_gae(**tokens, kl_coef=0.2, gamma=gamma, lam=lam)
    torch.testing.assert_close(out.advantages[tokens["mask"]], whitened[tokens["mask"]])
    torch.testing.assert_close(out.returns[tokens["mask"]], returns[tokens["mask"]])


def test_equals_the_loop_of_openrlhf_on_right_padding_and_differs_on_holes() -> None:
    """Rule: values and rewards are zeroed under the mask and nothing is carried."""

    def openrlhf(tokens: dict[str, Tensor], gamma: float, lam: float) -> Tensor:
        values = tokens["values"] * tokens["mask"]
        rewards = torch.zeros_like(values)
        last = [int(row.nonzero()[-1]) for row in tokens["mask"]]
        rewards[torch.arange(len(values)), last] = tokens["scores"]
        advantage, found = torch.zeros(len(values)).double(), []
        for t in reversed(range(values.shape[1])):
            next_value = values[:, t + 1] if t + 1 < values.shape[1] else 0.0
            advantage = rewards[:, t] + gamma * next_value - values[:, t] + gamma * lam * advantage
            found.append(advantage)
        return torch.stack(found[::-1], dim=1) * tokens["mask"]

    for tokens, equal in ((padded_on_the_right(), True), (rollout(), False)):
        out = kl_shaped_gae(**tokens, kl_coef=0.0, gamma=0.97, lam=0.9, whiten=False)
        assert torch.allclose(out.advantages, openrlhf(tokens, 0.97, 0.9)) == equal


def test_equals_the_loop_of_trl_1_12_on_one_more_token() -> None:
    """Rule of TRL up to 1.12: the score sits one position after the last token and that position has a value.

    So its answer of L tokens is ours of L + 1, the last of them without KL. The row that fills the whole width has no
    such position: there TRL puts the score on the last token, as we do.
    """
    tokens, gamma, lam, width = padded_on_the_right(), 0.97, 0.9, 9
    tokens["mask"][0] = True
    lengths = tokens["mask"].sum(dim=1)
    mask_p1 = torch.arange(width) < (lengths + 1)[:, None]
    values = torch.where(mask_p1, tokens["values"], 0)
    kl = torch.where(tokens["mask"], tokens["logprobs"] - tokens["ref_logprobs"], 0)
    rewards = -0.2 * kl
    rewards[torch.arange(6), lengths.clamp(max=width - 1)] += tokens["scores"]
    advantage, found = torch.zeros(6).double(), []
    for t in reversed(range(width)):
        next_value = values[:, t + 1] if t + 1 < width else 0.0
        advantage = rewards[:, t] + gamma * next_value - values[:, t] + gamma * lam * advantage
        found.append(advantage)
    theirs = torch.stack(found[::-1], dim=1)
    ours = kl_shaped_gae(
        tokens["scores"],
        kl,
        torch.zeros_like(kl),
        tokens["values"],
        mask_p1,
        kl_coef=0.2,
        gamma=gamma,
        lam=lam,
        whiten=False,
    )
    torch.testing.assert_close(ours.advantages[tokens["mask"]], theirs[tokens["mask"]])


# --- rewards ---------------------------------------------------------------------------------------------------------


def first_reward(logprob: float, kind: str) -> float:
    """The reward of one token without score or value, against a reference of 0, at a weight of 1."""
    zero = torch.zeros(1, 1, dtype=torch.float64)
    out = kl_shaped_gae(
        torch.zeros(1).double(), zero + logprob, zero, zero, torch.ones(1, 1).bool(),
        kl_coef=1.0, kl_estimator=kind, whiten=False,
    )  # fmt: skip
    return out.returns.item()


@pytest.mark.parametrize(
    ("kind", "difference", "estimate"),
    [
        ("k1", -0.5, -0.5),
        ("k2", -0.5, 0.125),
        ("k3", -0.5, math.exp(0.5) - 1 - 0.5),
        ("k3", 2.0, math.exp(-2) - 1 + 2),
        ("k1", -40.0, -20.0),
        ("k2", 40.0, 200.0),
        ("k3", -40.0, 10.0),
    ],
)
def test_kl_estimators_and_their_clamps(kind: str, difference: float, estimate: float) -> None:
    assert first_reward(difference, kind) == pytest.approx(-estimate)


def test_reward_per_token_replaces_the_score_and_is_dropped_under_the_mask() -> None:
    tokens = rollout()
    last = tokens["mask"] & (tokens["mask"].long().flip(1).cumsum(1).flip(1) == 1)
    dense = torch.where(last, tokens["scores"][:, None], 0)
    dense = torch.where(tokens["mask"], dense, 1e6)
    by_score = kl_shaped_gae(**tokens, kl_coef=0.1)
    by_token = kl_shaped_gae(**tokens | {"scores": dense}, kl_coef=0.1)
    torch.testing.assert_close(tuple(by_token), tuple(by_score))


def test_kl_weight_may_be_a_tensor_and_the_reference_may_be_missing() -> None:
    tokens = rollout()
    by_number = kl_shaped_gae(**tokens, kl_coef=0.3)
    torch.testing.assert_close(tuple(kl_shaped_gae(**tokens, kl_coef=torch.tensor(0.3).double())), tuple(by_number))
    without = kl_shaped_gae(**tokens | {"ref_logprobs": None}, kl_coef=0.3)
    torch.testing.assert_close(without.advantages, kl_shaped_gae(**tokens, kl_coef=0.0).advantages)
    assert without.stats["kl"] == 0


def test_bootstrap_value_continues_a_cut_answer() -> None:
    """An answer cut in two, the second half's first value as bootstrap: with lambda 0 the first half cannot tell."""
    tokens = padded_on_the_right(1, 9)
    tokens["mask"][:] = True
    whole = kl_shaped_gae(**tokens, kl_coef=0.1, gamma=0.9, lam=0.0, whiten=False)
    half = {name: x[:, :4] if x.ndim == 2 else 0 * x for name, x in tokens.items()}
    cut = kl_shaped_gae(**half, kl_coef=0.1, gamma=0.9, lam=0.0, whiten=False, bootstrap_values=tokens["values"][:, 4])
    torch.testing.assert_close(cut.advantages, whole.advantages[:, :4])


# --- masks and layouts -----------------------------------------------------------------------------------------------


def test_masked_tokens_do_not_matter_whatever_they_hold() -> None:
    tokens = rollout()
    expected = kl_shaped_gae(**tokens, kl_coef=0.1)
    for value in (math.nan, math.inf):
        poisoned = {
            name: torch.where(tokens["mask"], x, value) if x.ndim == 2 and name != "mask" else x
            for name, x in tokens.items()
        }
        assert all(
            torch.equal(a, b) for a, b in zip(kl_shaped_gae(**poisoned, kl_coef=0.1)[:3], expected[:3], strict=True)
        )
    assert (expected.advantages[~tokens["mask"]] == 0).all()
    assert (expected.returns[~tokens["mask"]] == 0).all()


def test_left_padding_equals_right_padding() -> None:
    right = padded_on_the_right()
    shifts = (9 - right["mask"].sum(dim=1)).tolist()
    left = {
        name: torch.stack([row.roll(shift, 0) for row, shift in zip(x, shifts, strict=True)]) if x.ndim == 2 else x
        for name, x in right.items()
    }
    out_right, out_left = (kl_shaped_gae(**tokens, kl_coef=0.1) for tokens in (right, left))
    torch.testing.assert_close(out_left.advantages[left["mask"]], out_right.advantages[right["mask"]])
    torch.testing.assert_close(out_left.returns[left["mask"]], out_right.returns[right["mask"]])
    torch.testing.assert_close(out_left.stats, out_right.stats)


@pytest.mark.parametrize("offset_dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("dense", [False, True])
def test_flat_equals_padded(dense: bool, offset_dtype: torch.dtype) -> None:
    tokens = rollout()
    if dense:
        tokens["scores"] = torch.randn(6, 9).double()
    lengths = torch.tensor([9, 0, 4, 1, 7, 9])
    inside = torch.arange(9) < lengths[:, None]
    tokens["mask"] &= inside
    flat = {name: x[inside] if x.ndim == 2 else x for name, x in tokens.items()}
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0))).to(offset_dtype)
    padded_out = kl_shaped_gae(**tokens, kl_coef=0.1)
    flat_out = kl_shaped_gae(**flat, kl_coef=0.1, cu_seqlens=offsets)
    torch.testing.assert_close(flat_out.advantages, padded_out.advantages[inside])
    torch.testing.assert_close(flat_out.returns, padded_out.returns[inside])
    torch.testing.assert_close(flat_out[2:], padded_out[2:])


def test_rows_do_not_see_each_other() -> None:
    tokens = rollout()
    order = torch.randperm(6)
    together = kl_shaped_gae(**tokens, kl_coef=0.1, whiten=False)
    shuffled = kl_shaped_gae(**{name: x[order] for name, x in tokens.items()}, kl_coef=0.1, whiten=False)
    torch.testing.assert_close(shuffled.advantages, together.advantages[order])
    alone = kl_shaped_gae(**{name: x[2:3] for name, x in tokens.items()}, kl_coef=0.1, whiten=False)
    torch.testing.assert_close(alone.advantages[0], together.advantages[2])


def test_strided_inputs_are_read_where_they_lie() -> None:
    tokens = rollout()
    strided = {name: x.t().contiguous().t() if x.ndim == 2 else x for name, x in tokens.items()}
    assert not strided["values"].is_contiguous()
    torch.testing.assert_close(
        tuple(kl_shaped_gae(**strided, kl_coef=0.1)), tuple(kl_shaped_gae(**tokens, kl_coef=0.1))
    )


# --- whitening -------------------------------------------------------------------------------------------------------


def test_whitening_is_masked_unbiased_and_leaves_returns_alone() -> None:
    tokens = rollout()
    mask = tokens["mask"]
    whitened = kl_shaped_gae(**tokens, kl_coef=0.1)
    raw = kl_shaped_gae(**tokens, kl_coef=0.1, whiten=False)
    assert whitened.advantages[mask].mean().item() == pytest.approx(0, abs=1e-12)
    assert whitened.advantages[mask].std().item() == pytest.approx(1, rel=1e-6)
    assert raw.moments.tolist() == pytest.approx(
        [raw.advantages[mask].mean().item(), (raw.advantages[mask].var() + 1e-8).rsqrt().item()]
    )
    assert torch.equal(whitened.moments, raw.moments)
    assert torch.equal(whitened.returns, raw.returns)
    applied_later = (raw.advantages - raw.moments[0]) * raw.moments[1]
    torch.testing.assert_close(applied_later[mask], whitened.advantages[mask])


@pytest.mark.parametrize("valid", [0, 1])
def test_too_few_tokens_are_flagged_and_stay_as_they_are(valid: int) -> None:
    tokens = rollout(2, 3)
    tokens["mask"] = torch.zeros(2, 3, dtype=torch.bool)
    tokens["mask"][0, :valid] = True
    out, raw = (kl_shaped_gae(**tokens, kl_coef=0.1, whiten=whiten) for whiten in (True, False))
    assert torch.equal(out.advantages, raw.advantages)
    assert out.moments.tolist() == [0, 1]
    assert (out.stats["too_few_to_whiten"], raw.stats["too_few_to_whiten"]) == (1, 0)
    assert all(x.isfinite() for x in out.stats.values())


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_nothing_at_all(shape: tuple[int, int]) -> None:
    out = kl_shaped_gae(**rollout(*shape), kl_coef=0.1)
    assert out.advantages.shape == out.returns.shape == shape
    assert out.stats["count"] == 0


def test_equal_advantages_whiten_to_zero() -> None:
    zeros = torch.zeros(2, 3)
    out = kl_shaped_gae(torch.zeros(2), zeros, zeros, zeros, zeros == 0, kl_coef=0.1)
    assert torch.equal(out.advantages, zeros)


# --- precision, registration, errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_is_as_accurate_as_eager(dtype: torch.dtype) -> None:
    """All arithmetic is float32 whatever comes in."""
    tokens = rollout(16, 40, dtype)
    assert tokens["values"].dtype == dtype
    actual = kl_shaped_gae(**tokens, kl_coef=0.05, gamma=0.99)
    settings: dict[str, Any] = {"kl_coef": 0.05, "gamma": 0.99}
    wide, exact = (
        {name: x.to(kind) if x.is_floating_point() else x for name, x in tokens.items()}
        for kind in (torch.float32, torch.float64)
    )
    eager, truth = kl_shaped_gae_reference(**wide, **settings), kl_shaped_gae_reference(**exact, **settings)
    for i, name in enumerate(GaeOutput._fields[:3]):
        assert actual[i].dtype == torch.float32
        assert_as_accurate_as_eager(actual[i], eager[i], truth[i], name=name)


def test_no_gradient_flows() -> None:
    tokens = rollout()
    for name in ("scores", "logprobs", "ref_logprobs", "values"):
        tokens[name].requires_grad_()
    out = kl_shaped_gae(**tokens, kl_coef=torch.tensor(0.1, requires_grad=True))
    assert not any(x.requires_grad for x in (*out[:3], *out.stats.values()))


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "empty", "flat"])
def test_opcheck(layout: str, backend: str) -> None:
    tokens = rollout(0 if layout == "empty" else 3, 4, torch.float32)
    offsets = None
    if layout == "transposed":
        tokens = {name: x.t().contiguous().t() if x.ndim == 2 else x for name, x in tokens.items()}
    if layout == "flat":
        tokens = {name: x.flatten() for name, x in tokens.items()}
        offsets = torch.tensor([0, 4, 4, 12])
    args = (*tokens.values(), torch.tensor(0.1), "k3", 1.0, 0.95, True, None, offsets, backend)
    torch.library.opcheck(torch.ops.rlsft.kl_shaped_gae.default, args)


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
@pytest.mark.parametrize("flat", [False, True])
def test_compiles_to_one_graph(flat: bool, compiler: str) -> None:
    tokens = rollout(3, 4, torch.float32)
    offsets = torch.tensor([0, 4, 8, 12]) if flat else None
    if flat:
        tokens = {name: x.flatten() for name, x in tokens.items()}

    def step(tokens: dict[str, Tensor], offsets: Tensor | None) -> GaeOutput:
        return kl_shaped_gae(**tokens, kl_coef=0.1, cu_seqlens=offsets)

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend=compiler)(tokens, offsets)
    torch.testing.assert_close(tuple(compiled), tuple(step(tokens, offsets)))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"logprobs": torch.zeros(3)}, ValueError, r"logprobs must be \[B, T\], or \[N\] together with cu_seqlens"),
        ({"values": torch.zeros(2, 2)}, ValueError, r"values must be shaped like logprobs \[2, 3\], got \[2, 2\]"),
        ({"ref_logprobs": torch.zeros(3)}, ValueError, r"ref_logprobs must be shaped like logprobs \[2, 3\]"),
        ({"mask": torch.ones(2, 3)}, TypeError, "mask must be bool or integer .*got torch.float32"),
        ({"scores": torch.zeros(3)}, ValueError, r"scores must be \[B\] = \[2\], one a sequence, or .*got \[3\]"),
        ({"scores": torch.zeros(2).int()}, TypeError, "scores must be float32 or .*got torch.int32"),
        ({"kl_coef": torch.zeros(1)}, ValueError, r"kl_coef must be a number or a 0-d tensor, got shape \[1\]"),
        ({"kl_coef": math.nan}, ValueError, "kl_coef must be finite, got nan"),
        ({"kl_estimator": "abs"}, ValueError, "kl_estimator must be one of 'k1', 'k2', 'k3', got 'abs'"),
        ({"gamma": 1.1}, ValueError, r"gamma must be in \[0, 1\], got 1.1"),
        ({"lam": -0.1}, ValueError, r"lam must be in \[0, 1\], got -0.1"),
        ({"bootstrap_values": torch.zeros(3)}, ValueError, r"bootstrap_values must be \[B\] = \[2\], got \[3\]"),
        ({"cu_seqlens": torch.tensor([0, 6])}, ValueError, r"logprobs must be \[N\] when cu_seqlens is given"),
        ({"backend": "triton"}, ValueError, "kl_shaped_gae: backend='triton' takes .* on cuda"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    zeros = torch.zeros(2, 3)
    arguments: dict[str, Any] = {
        "scores": torch.zeros(2), "logprobs": zeros, "ref_logprobs": zeros, "values": zeros,
        "mask": torch.ones(2, 3).bool(), "kl_coef": 0.1,
    }  # fmt: skip
    with pytest.raises(error, match=message):
        kl_shaped_gae(**arguments | changed)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 2, 5], r"cu_seqlens must start at 0 and end at the 6 tokens, got 0 \.\. 5"),
        ([0, 4, 2, 6], "cu_seqlens must never decrease"),
        ([0.0, 6.0], r"cu_seqlens must be \[B \+ 1\] int32 or int64 offsets, got \[2\] torch.float32"),
    ],
)
def test_offsets_are_checked(offsets: list[float], message: str) -> None:
    flat = torch.zeros(6)
    with pytest.raises(ValueError, match=message):
        kl_shaped_gae(
            torch.zeros(len(offsets) - 1), flat, flat, flat, flat == 0, kl_coef=0.1, cu_seqlens=torch.tensor(offsets)
        )


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_native_takes_rewards_per_token_and_a_weight_in_a_tensor(backend: str) -> None:
    tokens = rollout(4, 300, torch.float32)
    tokens["scores"] = torch.randn(4, 300)
    exact = {name: x.double() if x.is_floating_point() else x for name, x in tokens.items()}
    settings: dict[str, Any] = {"kl_estimator": "k3", "lam": 0.9}
    out = kl_shaped_gae(**tokens, kl_coef=torch.tensor(0.3), **settings, backend=backend)
    eager = kl_shaped_gae_reference(**tokens, kl_coef=torch.tensor(0.3), **settings)
    truth = kl_shaped_gae_reference(**exact, kl_coef=torch.tensor(0.3).double(), **settings)
    for i, name in enumerate(GaeOutput._fields[:3]):
        assert_as_accurate_as_eager(out[i], eager[i], truth[i], name=name)


# --- rows longer than a segment of the compiled core -----------------------------------------------------------------


def exact_rows(tokens: dict[str, Tensor], gamma: float, lam: float) -> Tensor:
    """Advantages of rows without KL, by NumPy in float64 on the unmasked tokens of each row."""
    advantages = torch.zeros_like(tokens["values"], dtype=torch.float64)
    for row in range(len(advantages)):
        at = tokens["mask"][row].nonzero()[:, 0]
        values = tokens["values"][row, at].double().tolist()
        carry, next_value = 0.0, float(tokens["bootstrap_values"][row])
        score, found = float(tokens["scores"][row]), []
        for value in reversed(values):
            carry = score + gamma * next_value - value + gamma * lam * carry
            score, next_value = 0.0, value
            found.append(carry)
        advantages[row, at] = torch.tensor(found[::-1], dtype=torch.float64)
    return advantages


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (1.0, 1.0), (0.999, 0.9999), (0.9, 0.0), (0.0, 0.9)])
@pytest.mark.parametrize("masking", ["holes", "a masked segment", "masked behind", "nothing masked"])
def test_long_rows_are_cut_and_connected(masking: str, gamma: float, lam: float) -> None:
    width = 3 * 8192 + 5
    tokens = rollout(2, width, torch.float32) | {"ref_logprobs": None, "bootstrap_values": torch.randn(2)}
    if masking == "a masked segment":
        tokens["mask"][:, 8192 : 2 * 8192] = False
    elif masking == "masked behind":
        tokens["mask"][:, 2 * 8192 - 1 :] = False
    elif masking == "nothing masked":
        tokens["mask"][:] = True
    out = kl_shaped_gae(**tokens, kl_coef=0.0, gamma=gamma, lam=lam, whiten=False, backend="native")
    truth = exact_rows(tokens, gamma, lam)
    assert_as_accurate_as_eager(out.advantages, truth.float(), truth, name="advantages")
    returns = torch.where(tokens["mask"], truth + tokens["values"].double(), 0)
    assert_as_accurate_as_eager(out.returns, returns.float(), returns, name="returns")
    valid, eager = truth[tokens["mask"]], truth.float()[tokens["mask"]]
    # together: the mean of advantages that nearly cancel is held to the size of what was added, not to its own
    moments = torch.stack([out.stats["advantages_mean"], out.stats["advantages_var"]])
    expected = [torch.stack([x.mean(), x.var()]) for x in (eager, valid)]
    assert_as_accurate_as_eager(moments, expected[0], expected[1], name="moments")


def test_a_long_row_poisoned_at_its_end_is_poisoned_to_its_start() -> None:
    """The connection stops early only where nothing that is left can change a float."""
    tokens = rollout(1, 2 * 8192 + 9, torch.float32)
    tokens["mask"][:] = True
    tokens["values"][0, -1] = math.nan
    out = kl_shaped_gae(**tokens, kl_coef=0.1, whiten=False)
    assert out.advantages.isnan().all()


def test_flat_rows_of_every_length_equal_rows_alone() -> None:
    lengths = [0, 1, 255, 256, 257, 0, 8191, 8192, 8193, 16384, 3]
    tokens = rollout(1, sum(lengths), torch.float32)
    flat = {name: x[0] for name, x in tokens.items() if name != "scores"} | {"scores": torch.randn(len(lengths))}
    bootstrap = torch.randn(len(lengths))
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    out = kl_shaped_gae(**flat, kl_coef=0.1, whiten=False, cu_seqlens=offsets, bootstrap_values=bootstrap)
    for row, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        alone = {name: x[None, begin:end] for name, x in flat.items() if name != "scores"}
        one = kl_shaped_gae(
            flat["scores"][row : row + 1], **alone, kl_coef=0.1, whiten=False, bootstrap_values=bootstrap[row : row + 1]
        )
        assert torch.equal(out.advantages[begin:end], one.advantages[0])
        assert torch.equal(out.returns[begin:end], one.returns[0])
