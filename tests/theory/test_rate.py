"""Alg. 1 of arXiv 2405.17888, and SPIN's loss in Alg. 2, become stationary as 1 / sqrt(T K) on six answers, in float64.

T rounds of K steps, each with one demonstration and one answer of the policy that the round began with; step size
`c / sqrt(T K)`. What falls is the mean over all steps of `|p_data - pi|^2`, the squared gradient of the demonstrations'
log-likelihood in the rewards (times beta) or in the policy's logits. The paper's constants are not tested.
"""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from rlsft.objectives import bounded_rewards, mean_pair_loss, pair_losses
from tests.theory.test_rft import V, best_response, simplex

RUNS, SEED, BETA, BOUND = 64, 0, 1.0, 4.0  # independent runs that are averaged
FEW, MANY = 64, 512  # steps in all
C = {"rft": 4.0, "irft": 4.0}
P_DATA, PI_REF = simplex(0), simplex(1)


def policies(method: str, x_RV: Tensor) -> Tensor:
    """The best response to RFT's bounded reward; IRFT's parameters are the policy's logits."""
    if method == "irft":
        return x_RV.softmax(1)
    return best_response(PI_REF[:, None], bounded_rewards(x_RV, BOUND).T, BETA).T


def step_loss(method: str, x_RV: Tensor, generator_RV: Tensor, chosen_R1: Tensor, drawn_R1: Tensor) -> Tensor:
    """Of one pair a run: linear in the explicit reward, logistic in the implicit one; summed over the runs."""
    if method == "rft":
        reward_RV = bounded_rewards(x_RV, BOUND)
        return pair_losses(reward_RV.gather(1, chosen_R1), reward_RV.gather(1, drawn_R1), kind="linear").sum()
    ratio_RV = x_RV.log_softmax(1) - generator_RV.log()
    chosen_R, drawn_R = ratio_RV.gather(1, chosen_R1)[:, 0], ratio_RV.gather(1, drawn_R1)[:, 0]
    return mean_pair_loss("logistic", chosen_R, drawn_R, beta=BETA, normalizer=1.0)[0]


@cache
def stationarity(method: str, rounds: int, steps: int, size: float) -> float:
    """Mean over runs and steps of the squared gradient."""
    chance = torch.Generator().manual_seed(SEED)
    start_V = torch.zeros(V, dtype=torch.float64) if method == "rft" else PI_REF.log()
    x_RV, total = start_V.repeat(RUNS, 1), 0.0
    for step in range(rounds * steps):
        policy_RV = policies(method, x_RV)
        total += float((P_DATA - policy_RV).square().sum(1).mean())
        if step % steps == 0:
            generator_RV = policy_RV
        chosen_R1 = torch.multinomial(P_DATA.expand(RUNS, V), 1, generator=chance)
        drawn_R1 = torch.multinomial(generator_RV, 1, generator=chance)
        x_RV.requires_grad_(True)
        (slope_RV,) = torch.autograd.grad(step_loss(method, x_RV, generator_RV, chosen_R1, drawn_R1), x_RV)
        x_RV = x_RV.detach() - size * slope_RV
    return total / (rounds * steps)


def of_theorem(method: str, total: int, steps: int) -> float:
    """With the step size that shrinks with the root of all steps."""
    return stationarity(method, total // steps, steps, C[method] / math.sqrt(total))


@pytest.mark.parametrize("method", ["rft", "irft"])
def test_gradients_fall_with_the_root_of_all_steps(method: str) -> None:
    exponent = math.log(of_theorem(method, MANY, 4) / of_theorem(method, FEW, 4)) / math.log(MANY / FEW)
    assert exponent == pytest.approx(-0.5, abs=0.1)


def test_rounds_and_steps_of_rft_count_by_their_product() -> None:
    assert of_theorem("rft", MANY, 16) == pytest.approx(of_theorem("rft", MANY, 4), rel=0.15)


def test_one_round_of_the_linear_loss_does_not_become_stationary() -> None:
    """The answers stay those of the start, and the reward runs to its bounds."""
    assert of_theorem("rft", MANY, MANY) > 3 * of_theorem("rft", MANY, 4)


def test_a_step_size_that_does_not_shrink_leaves_noise() -> None:
    assert stationarity("irft", MANY // 4, 4, 1.0) > 0.7 * stationarity("irft", FEW // 4, 4, 1.0)
