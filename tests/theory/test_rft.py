"""The theory of RFT on a vocabulary that can be enumerated, in float64 (arXiv 2405.17888).

Notation: `p_data` the demonstrations, `pi_ref` the reference, `r` a reward, `beta` the weight of the KL;
`pi_r ∝ pi_ref exp(r / beta)` maximises `E_pi[r] - beta KL(pi || pi_ref)`.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rlsft.objectives import apa_loss, bounded_rewards, exponential_weights, pair_losses
from rlsft.trainers.rft.monitors import oscillation_warning
from tests.support.rft import rft_settings

V = 6  # answers


def simplex(seed: int, count: int = V) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).softmax(0)


def normals(seed: int, count: int = V) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def best_response(pi_ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    return (pi_ref.log() + reward / beta).softmax(0)


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p.log() - q.log())).sum()


def log_likelihood(p_data: Tensor, pi_ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    """The bilevel objective: log-likelihood of the demonstrations under the best response to the reward."""
    return (p_data * best_response(pi_ref, reward, beta).log()).sum()


def descend(loss: object, start: Tensor, steps: int = 400) -> Tensor:
    """The minimiser of `loss(x)` by L-BFGS in float64."""
    x = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([x], max_iter=steps, tolerance_grad=1e-13, tolerance_change=1e-16,
                                  line_search_fn="strong_wolfe")  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(x)  # type: ignore[operator]
        value.backward()
        return value

    optimizer.step(closure)
    return x.detach()


def expected_pair_loss(reward: Tensor, p_data: Tensor, p_generated: Tensor, kind: str) -> Tensor:
    """Population value of the product's pair loss: every demonstration against every generated answer."""
    weights = p_data[:, None] * p_generated[None, :]
    chosen, rejected = reward[:, None].expand(V, V), reward[None, :].expand(V, V)
    return (weights * pair_losses(chosen, rejected, kind=kind)).sum()  # type: ignore[arg-type]


# ---- the closed form and the identities of the bilevel problem ------------------------------------------------------
@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_the_closed_form_is_the_policy_that_gains_most(beta: float) -> None:
    pi_ref, reward = simplex(0), normals(1)
    found = descend(
        lambda z: -((z.softmax(0) * reward).sum() - beta * kl(z.softmax(0), pi_ref)), torch.zeros(V).double()
    ).softmax(0)
    torch.testing.assert_close(found, best_response(pi_ref, reward, beta), atol=1e-6, rtol=0)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_likelihood_is_reward_minus_log_partition(beta: float) -> None:
    p_data, pi_ref, reward = simplex(0), simplex(1), normals(2)
    log_z = (pi_ref * (reward / beta).exp()).sum().log()
    expected = (p_data * reward).sum() / beta - log_z + (p_data * pi_ref.log()).sum()
    torch.testing.assert_close(log_likelihood(p_data, pi_ref, reward, beta), expected)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_minimax_value_equals_the_likelihood_and_its_inner_minimiser_the_closed_form(beta: float) -> None:
    p_data, pi_ref, reward = simplex(0), simplex(1), normals(2)

    def inner(logits: Tensor) -> Tensor:
        pi = logits.softmax(0)
        return ((p_data - pi) * reward).sum() / beta + kl(pi, pi_ref)

    logits = descend(inner, torch.zeros(V).double())
    torch.testing.assert_close(logits.softmax(0), best_response(pi_ref, reward, beta), atol=1e-6, rtol=0)
    likelihood = log_likelihood(p_data, pi_ref, reward, beta)
    torch.testing.assert_close(inner(logits), likelihood - (p_data * pi_ref.log()).sum(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_linear_pair_loss_has_the_bilevel_gradient_when_answers_come_from_the_best_response(beta: float) -> None:
    p_data, pi_ref = simplex(0), simplex(1)
    reward = normals(2).requires_grad_(True)
    (by_enumeration,) = torch.autograd.grad(log_likelihood(p_data, pi_ref, reward, beta), reward)
    on_policy = best_response(pi_ref, reward.detach(), beta)
    (by_pairs,) = torch.autograd.grad(-expected_pair_loss(reward, p_data, on_policy, "linear") / beta, reward)
    torch.testing.assert_close(by_pairs, by_enumeration, atol=1e-12, rtol=0)
    # with answers of another policy, as after the first of several steps on one set of samples, it is biased
    (stale,) = torch.autograd.grad(-expected_pair_loss(reward, p_data, pi_ref, "linear") / beta, reward)
    assert (stale - by_enumeration).abs().max() > 0.01


def test_logistic_gradient_is_the_linear_one_times_the_doubt() -> None:
    chosen, rejected = normals(0).requires_grad_(True), normals(1)
    (logistic,) = torch.autograd.grad(pair_losses(chosen, rejected, kind="logistic").sum(), chosen)
    (linear,) = torch.autograd.grad(pair_losses(chosen, rejected, kind="linear").sum(), chosen)
    torch.testing.assert_close(logistic, linear * (rejected - chosen.detach()).sigmoid())


# ---- the toy of Table 1 ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("bound", "demonstrated", "unseen"),
    [(1.0, 0.576117, 0.211942), (2.0, 0.786986, 0.106507), (5.0, 0.986703, 0.006648)],
)
def test_toy_with_a_bounded_reward(bound: float, demonstrated: float, unseen: float) -> None:
    """One demonstrated action of three, uniform reference, beta 1: the optimum is r = (R, 0, 0)."""
    p_data = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    pi_ref = torch.full((3,), 1 / 3, dtype=torch.float64)
    # the head runs away to where the sigmoid is flat; from there on it is the limit that the table states
    head = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([head], lr=0.5)
    for _ in range(1500):
        reward = bounded_rewards(head, bound)
        on_policy = best_response(pi_ref, reward.detach(), 1.0)
        loss = -((p_data - on_policy) * reward).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    policy = best_response(pi_ref, bounded_rewards(head.detach(), bound), 1.0)
    expected = torch.tensor([demonstrated, unseen, unseen], dtype=torch.float64)
    torch.testing.assert_close(policy, expected, atol=2e-4, rtol=0)
    exact = best_response(pi_ref, torch.tensor([bound, 0.0, 0.0], dtype=torch.float64), 1.0)
    torch.testing.assert_close(exact, expected, atol=6e-7, rtol=0)
    assert log_likelihood(p_data, pi_ref, torch.tensor([bound, 0, 0], dtype=torch.float64), 1.0) == pytest.approx(
        math.log(math.exp(bound) / (math.exp(bound) + 2))
    )


def test_unseen_actions_keep_the_ratio_of_the_reference() -> None:
    pi_ref = torch.tensor([0.2, 0.6, 0.2], dtype=torch.float64)
    policy = best_response(pi_ref, torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64), 1.0)
    assert policy[1] / policy[2] == pytest.approx(3.0)
    assert policy[0] > pi_ref[0]


def test_an_unrestricted_reward_reaches_the_data_as_fine_tuning_does() -> None:
    p_data, pi_ref = simplex(3), simplex(4)
    reward = descend(lambda r: -log_likelihood(p_data, pi_ref, r, 0.7), torch.zeros(V).double())
    torch.testing.assert_close(best_response(pi_ref, reward, 0.7), p_data, atol=1e-6, rtol=0)


# ---- rounds ---------------------------------------------------------------------------------------------------------
def solved_reward(p_data: Tensor, p_negative: Tensor) -> Tensor:
    """Minimiser of the logistic pair loss, by its own optimisation; known up to a constant."""
    reward = descend(lambda r: expected_pair_loss(r, p_data, p_negative, "logistic"), torch.zeros(V).double())
    return reward - reward.mean()


def test_a_solved_logistic_reward_is_the_log_ratio_of_data_and_policy() -> None:
    p_data, policy = simplex(5), simplex(6)
    expected = p_data.log() - policy.log()
    torch.testing.assert_close(solved_reward(p_data, policy), expected - expected.mean(), atol=1e-5, rtol=0)


def rounds(beta: float, count: int, *, accumulate: bool = False, reference: str = "initial") -> list[float]:
    """Distance in logarithms to the fixed point (or to the data) after every round, from `pi_ref` on."""
    p_data, pi_ref = simplex(7), simplex(8)
    target = ((beta * pi_ref.log() + p_data.log()) / (1 + beta)).softmax(0) if reference == "initial" else p_data
    policies, distances = [pi_ref], []
    for _ in range(count):
        negatives = torch.stack(policies).mean(0) if accumulate else policies[-1]
        reward = p_data.log() - negatives.log()  # the solved reward: the test above
        base = pi_ref if reference == "initial" else policies[-1]
        policies.append(best_response(base, reward, beta))
        gap = policies[-1].log() - target.log()
        distances.append(float((gap - gap.mean()).abs().max()))
    return distances


@pytest.mark.parametrize("beta", [0.8, 1.0, 2.0, 5.0])
def test_each_round_multiplies_the_distance_to_the_fixed_point_by_one_over_beta(beta: float) -> None:
    distances = rounds(beta, 6)
    for before, after in itertools.pairwise(distances):
        assert after / before == pytest.approx(1 / beta, rel=1e-9)
    assert (distances[-1] < distances[0] / 4) == (beta >= 2)
    assert (distances[-1] > 2 * distances[0]) == (beta < 1)


def test_the_factor_is_negative_rounds_swing_to_the_other_side() -> None:
    p_data, pi_ref, beta = simplex(7), simplex(8), 2.0
    target = ((beta * pi_ref.log() + p_data.log()) / (1 + beta)).softmax(0).log()
    gaps, policy = [], pi_ref
    for _ in range(3):
        gap = policy.log() - target
        gaps.append(gap - gap.mean())
        policy = best_response(pi_ref, p_data.log() - policy.log(), beta)
    torch.testing.assert_close(gaps[1], -gaps[0] / beta, atol=1e-12, rtol=0)
    torch.testing.assert_close(gaps[2], gaps[0] / beta**2, atol=1e-12, rtol=0)


@pytest.mark.parametrize("beta", [0.5, 0.8, 1.0, 2.0, 5.0])
def test_with_the_pairs_of_all_rounds_the_same_fixed_point_is_reached_for_every_beta(beta: float) -> None:
    distances = rounds(beta, 400, accumulate=True)
    assert distances[-1] < 0.02 * max(distances[0], 0.05)
    assert distances[-1] < distances[99] < distances[24]


@pytest.mark.parametrize(("beta", "factor"), [(2.0, 0.5), (1.0, 0.0), (0.8, 0.25)])
def test_with_the_previous_policy_as_reference_rounds_go_to_the_data(beta: float, factor: float) -> None:
    distances = rounds(beta, 4, reference="previous")
    for before, after in itertools.pairwise(distances):
        assert after == pytest.approx(factor * before, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("changes", "saturation", "warns"),
    [
        ({}, 0.9, True),
        ({"kl_coef": 1.0}, 0.9, True),
        ({"kl_coef": 1.01}, 0.9, False),  # converges
        ({"accumulate_negatives": True}, 0.9, False),
        ({"reference": "previous"}, 0.9, False),
        ({"pair_loss": "linear", "reward_bound": 2.0}, 0.9, False),
        ({"rounds": 1}, 0.9, False),
        ({}, 0.2, False),  # the reward is not solved
        ({}, None, False),
    ],
)
def test_the_run_warns_exactly_where_rounds_would_not_converge(
    tmp_path: object, changes: dict[str, object], saturation: float | None, warns: bool
) -> None:
    args = rft_settings(str(tmp_path), **{"rounds": 3, "kl_coef": 0.5, "accumulate_negatives": False, **changes})
    warning = oscillation_warning(args, saturation)
    assert (warning is not None) == warns
    if warning:
        assert f"-1/beta = {-1 / args.kl_coef:.2g}" in warning
        assert "accumulate_negatives=True" in warning


# ---- policy steps ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("beta", [0.4, 1.5])
def test_the_minimiser_of_apa_is_the_closed_form(beta: float) -> None:
    """With the advantage `r - beta log Z` the regression has one zero, the closed form, whoever drew the answers."""
    pi_ref, reward, drawn_from = simplex(9), normals(10), simplex(11)
    log_z = (pi_ref * (reward / beta).exp()).sum().log()
    advantages = (reward - beta * log_z)[:, None]
    mask = torch.ones(V, 1, dtype=torch.bool)

    def loss(logits: Tensor) -> Tensor:
        logprobs = logits.log_softmax(0)[:, None]
        per_answer = [
            apa_loss(logprobs[i : i + 1], pi_ref.log()[i : i + 1, None], advantages[i : i + 1], mask[:1], beta=beta)[0]
            for i in range(V)
        ]
        return (drawn_from * torch.stack(per_answer)).sum()

    logits = descend(loss, torch.zeros(V).double())
    torch.testing.assert_close(logits.softmax(0), best_response(pi_ref, reward, beta), atol=1e-6, rtol=0)
    assert float(loss(logits)) < 1e-12


@pytest.mark.parametrize("beta", [0.4, 1.5])
@pytest.mark.parametrize("reference", ["drawn_from", "other"])
def test_weighted_fine_tuning_projects_on_the_closed_form(beta: float, reference: str) -> None:
    """Answers in exact proportion to their probability: the weighted likelihood is largest at the closed form."""
    counts = np.array([5, 2, 7, 1, 3, 6])
    drawn_from = torch.tensor(counts / counts.sum())
    pi_ref = drawn_from if reference == "drawn_from" else simplex(12)
    reward = normals(13)
    answers = np.repeat(np.arange(V), counts)
    log_weights = (reward / beta + pi_ref.log() - drawn_from.log()).numpy()[answers]
    weights = torch.from_numpy(exponential_weights(log_weights))
    assert float(weights.mean()) == pytest.approx(1.0)
    logits = descend(lambda z: -(weights * z.log_softmax(0)[answers]).mean(), torch.zeros(V).double())
    torch.testing.assert_close(logits.softmax(0), best_response(pi_ref, reward, beta), atol=1e-6, rtol=0)


def test_weights_are_normalised_within_prompts_and_capped() -> None:
    weights = exponential_weights([0.0, math.log(3.0), 5.0, 5.0], groups=["a", "a", "b", "b"])
    np.testing.assert_allclose(weights, [0.5, 1.5, 1.0, 1.0])
    assert exponential_weights([1000.0, 0.0, 0.0, 0.0], cap=2.0).tolist() == [2.0, 0.0, 0.0, 0.0]
    shifted = exponential_weights([10.0, 10.0 + math.log(3.0), -5.0, -5.0], groups=["a", "a", "b", "b"])
    np.testing.assert_allclose(shifted, weights)  # a constant of the prompt says nothing
    with pytest.raises(ValueError, match="finite numbers"):
        exponential_weights([math.nan])
    with pytest.raises(ValueError, match="one entry a row, 2, got 1"):
        exponential_weights([1.0, 2.0], groups=["a"])
