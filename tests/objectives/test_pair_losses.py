"""Every pair loss: its formula by hand, its value and slope where a round begins, masks, and losses of users."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlsft.errors import ConfigError
from rlsft.objectives import mean_pair_loss, pair_loss_names, register_pair_loss, sft_factor
from rlsft.objectives.pair_losses import _REGISTERED, FUSED

BETA, MU = 0.3, 2.0
LOG2 = math.log(2)
# kind -> loss at log-ratios of 0, and `a`: the first expected gradient is a times that of SFT
AT_ZERO = {
    "logistic": (LOG2, BETA / 2),
    "linear": (0.0, BETA),
    "hinge": (1.0, BETA),
    "bernoulli": (2 * LOG2, BETA / 2),
    "kliep": (1.0, BETA),
    "brier": (0.5, BETA / 4),
    "abs_hinge": (2.0, BETA),
    "lsif": (-0.5, BETA),
    "nce": (math.log(1 + MU) + MU * math.log((1 + MU) / MU), MU / (1 + MU)),
}


@pytest.fixture(autouse=True)
def _fresh_registry() -> Iterator[None]:
    kept = dict(_REGISTERED)
    yield
    _REGISTERED.clear()
    _REGISTERED.update(kept)


def policy_and_sequences() -> tuple[Tensor, list[tuple[int, ...]]]:
    """Logits of a policy over three letters and an end (0), a row for each of the first three places; all answers."""
    logits = torch.randn(3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    answers: list[tuple[int, ...]] = []
    for first in range(4):
        for second in range(4) if first else [-1]:
            thirds = range(4) if second > 0 else [-1]
            answers += [tuple(token for token in (first, second, third) if token >= 0) for third in thirds]
    return logits.requires_grad_(), answers


def logprob(logits: Tensor, answer: tuple[int, ...]) -> Tensor:
    """Of an answer: each token depends on its place and on the one before it."""
    before = (0, *answer)
    tokens = [logits[place, before[place]].log_softmax(-1)[token] for place, token in enumerate(answer)]
    return torch.stack(tokens).sum()


@pytest.mark.parametrize("kind", AT_ZERO)
def test_first_gradient_is_a_multiple_of_sft(kind: str) -> None:
    """E_z[grad loss] = a * grad NLL at the reference, every answer z enumerated; the end token belongs to it."""
    logits, answers = policy_and_sequences()
    total = sum(float(logprob(logits, answer).detach().exp()) for answer in answers)
    assert abs(total - 1) < 1e-12
    demonstration = (2, 1, 0)
    expected = torch.zeros_like(logits)
    for answer in answers:
        real, generated = logprob(logits, demonstration), logprob(logits, answer)
        loss, _ = mean_pair_loss(
            kind, (real - real.detach())[None], (generated - generated.detach())[None], beta=BETA, nce_mu=MU
        )
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        expected += float(generated.detach().exp()) * gradient
    (nll_gradient,) = torch.autograd.grad(-logprob(logits, demonstration), logits)
    value, factor = AT_ZERO[kind]
    assert torch.allclose(expected, factor * nll_gradient, rtol=1e-9, atol=1e-12)
    assert sft_factor(kind, BETA, nce_mu=MU) == pytest.approx(factor, rel=1e-12)
    zero = torch.zeros(3, dtype=torch.float64)
    assert float(mean_pair_loss(kind, zero, zero, beta=BETA, nce_mu=MU)[0]) == pytest.approx(value, abs=1e-12)


def test_the_table_covers_every_loss() -> None:
    assert set(AT_ZERO) == set(pair_loss_names())


@pytest.mark.parametrize(
    ("kind", "by_hand"),
    [
        ("brier", lambda r, g: (1 - 1 / (1 + math.exp(-r))) ** 2 + (1 / (1 + math.exp(-g))) ** 2),
        ("abs_hinge", lambda r, g: max(0, 1 - r) + max(0, 1 + g)),
        ("lsif", lambda r, g: -math.exp(r) + math.exp(2 * g) / 2),
    ],
)
def test_plain_losses_are_their_formulas(kind: str, by_hand: object) -> None:
    real, generated = torch.tensor([2.0, -1.0, 9.0]).double(), torch.tensor([-0.5, 3.0, -12.0]).double()
    offset = 0.2
    ours, stats = mean_pair_loss(kind, real, generated, beta=0.5, offset=offset)
    rhos = [(0.5 * float(r) + offset, 0.5 * float(g) + offset) for r, g in zip(real, generated, strict=True)]
    assert float(ours) == pytest.approx(sum(by_hand(*rho) for rho in rhos) / 3, rel=1e-12)  # type: ignore[operator]
    assert float(stats["accuracy"]) == pytest.approx(2 / 3)
    assert float(stats["margin"]) == pytest.approx(0.5 * float((real - generated).mean()))


def test_nce_is_its_formula() -> None:
    real, generated, mu = 0.7, -1.3, 3.0
    s_real, s_generated = (1 / (1 + mu * math.exp(-u)) for u in (real, generated))
    loss, _ = mean_pair_loss(
        "nce", torch.tensor([real]).double(), torch.tensor([generated]).double(), beta=9, nce_mu=mu
    )
    assert float(loss) == pytest.approx(-math.log(s_real) - mu * math.log(1 - s_generated), rel=1e-7)


@pytest.mark.parametrize("kind", ["lsif", "brier", "nce", "abs_hinge"])
def test_far_away_stays_finite(kind: str) -> None:
    real = torch.tensor([5000.0, -5000.0], requires_grad=True)
    generated = torch.tensor([5000.0, -5000.0], requires_grad=True)
    loss, _ = mean_pair_loss(kind, real, generated, beta=1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert real.grad is not None
    assert torch.isfinite(real.grad).all()


@pytest.mark.parametrize("kind", ["logistic", "brier"])
def test_masked_pairs_change_nothing(kind: str) -> None:
    """Whatever they hold, NaN included, in value, gradient and statistics; the divisor is the caller's."""
    real = torch.tensor([1.0, math.nan, -2.0], requires_grad=True)
    generated = torch.tensor([0.5, 4.0, 1.0], requires_grad=True)
    mask = torch.tensor([True, False, True])
    loss, stats = mean_pair_loss(kind, real, generated, beta=0.5, mask=mask, normalizer=torch.tensor(8))
    loss.backward()
    alone, alone_stats = mean_pair_loss(kind, real.detach()[mask], generated.detach()[mask], beta=0.5)
    assert loss.item() == pytest.approx(float(alone) * 2 / 8, rel=1e-6)
    assert real.grad is not None
    assert float(real.grad[1]) == 0
    assert float(stats["count"]) == 2
    for name in ("accuracy", "margin", "rewards/real", "rewards/generated", "loss"):
        assert float(stats[name]) == pytest.approx(float(alone_stats[name]), rel=1e-6)


def test_a_users_loss_is_used_by_name() -> None:
    register_pair_loss("squared", lambda real, generated, *, beta, offset: (1 - beta * (real - generated)) ** 2)
    assert "squared" in pair_loss_names()
    loss, _ = mean_pair_loss("squared", torch.tensor([3.0]), torch.tensor([1.0]), beta=0.25)
    assert float(loss) == pytest.approx(0.25)
    assert sft_factor("squared", 0.25) == pytest.approx(0.5)


def test_a_users_loss_is_found_in_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_pair_losses.py").write_text(
        "def half(real, generated, *, beta, offset):\n    return -beta * real / 2\n"
    )
    monkeypatch.chdir(tmp_path)
    loss, _ = mean_pair_loss("own_pair_losses:half", torch.tensor([3.0]), torch.tensor([1.0]), beta=1.0)
    assert float(loss) == -1.5
    with pytest.raises(ConfigError, match="no attribute 'third'"):
        mean_pair_loss("own_pair_losses:third", torch.tensor([3.0]), torch.tensor([1.0]), beta=1.0)


def test_mistakes_are_named() -> None:
    one = torch.ones(2)
    with pytest.raises(ConfigError, match="did you mean 'logistic'"):
        mean_pair_loss("logistics", one, one, beta=1.0)
    with pytest.raises(ConfigError, match="is a pair loss of rlsft already"):
        register_pair_loss(FUSED[0], lambda real, generated, *, beta, offset: real)
    with pytest.raises(ConfigError, match="one word"):
        register_pair_loss("a:b", lambda real, generated, *, beta, offset: real)
    register_pair_loss("mean", lambda real, generated, *, beta, offset: real.mean())
    with pytest.raises(ConfigError, match=r"shape \[2\], got \[\]"):
        mean_pair_loss("mean", one, one, beta=1.0)
