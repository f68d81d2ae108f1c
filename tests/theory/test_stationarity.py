"""Alg. 2 of arXiv 2405.17888 on a vocabulary that can be enumerated: stationarity falls as 1 / sqrt(T K).

T rounds of K stochastic steps on the linear pair loss of the implicit reward, each with one demonstration and one
answer of the policy that the round began with, step size `c / sqrt(T K)`. What falls is the mean over all steps of the
squared gradient of the bilevel objective, which is the log-likelihood of the demonstrations. The paper's constants and
assumptions are not tested, only the trend.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from rlsft.objectives import pair_losses

V, CHAINS = 6, 128  # answers; independent runs that are averaged
P_DATA = torch.randn(V, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(0)
STEP = 2.0


def stationarity(rounds: int, steps: int, *, seed: int = 0, refresh: bool = True) -> float:
    """Mean over steps and chains of the squared gradient norm of the log-likelihood in the policy's logits."""
    chance = torch.Generator().manual_seed(seed)
    logits_CV = torch.zeros(CHAINS, V, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([logits_CV], lr=STEP / math.sqrt(rounds * steps))
    reference_CV = logits_CV.detach().log_softmax(1)
    squares = 0.0
    for _ in range(rounds):
        if refresh:
            reference_CV = logits_CV.detach().log_softmax(1)
        for _ in range(steps):
            squares += float((P_DATA - logits_CV.detach().softmax(1)).square().sum(1).mean())
            real_C1 = drawn(P_DATA.expand(CHAINS, V), chance)
            generated_C1 = drawn(reference_CV.exp(), chance)
            rewards_CV = logits_CV.log_softmax(1) - reference_CV
            loss_C = pair_losses(rewards_CV.gather(1, real_C1), rewards_CV.gather(1, generated_C1), kind="linear")
            optimizer.zero_grad()
            loss_C.sum().backward()
            optimizer.step()
    return squares / (rounds * steps)


def drawn(probabilities_CV: Tensor, chance: torch.Generator) -> Tensor:
    return torch.multinomial(probabilities_CV, 1, generator=chance)


@pytest.mark.parametrize("steps", [1, 4])
def test_the_gradient_falls_with_the_square_root_of_all_steps(steps: int) -> None:
    counts = (64, 256, 1024)
    found = [stationarity(count // steps, steps) for count in counts]
    slopes = [math.log(b / a) / math.log(4) for a, b in itertools.pairwise(found)]
    assert slopes == pytest.approx([-0.5, -0.5], abs=0.12), found


def test_rounds_and_steps_count_by_their_product() -> None:
    found = {steps: stationarity(512 // steps, steps) for steps in (1, 2, 4)}
    assert max(found.values()) < 1.15 * min(found.values()), found


def test_without_new_answers_it_does_not_fall() -> None:
    stale = [stationarity(count, 1, refresh=False) for count in (64, 256)]
    assert stale[1] > stale[0]
    assert stale[1] > 3 * stationarity(256, 1)
