"""The KL controllers: the formula by hand, convergence on a scripted policy, state, refusals."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from rlsft.errors import ConfigError
from rlsft.objectives import AdaptiveKLController, FixedKLController


def test_fixed_stays_where_it_was_put() -> None:
    controller = FixedKLController(0.05)
    controller.update(1000.0, 64)
    assert controller.value == 0.05
    assert FixedKLController(0.0).value == 0


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (6.0, 1.0),  # on target
        (6.6, 1 + 0.1 * 0.01),  # 10 % above, 100 answers of a horizon of 10,000
        (5.4, 1 - 0.1 * 0.01),
        (60.0, 1 + 0.2 * 0.01),  # far above: the error is cut to 0.2
        (0.0, 1 - 0.2 * 0.01),
        (-3.0, 1 - 0.2 * 0.01),  # an estimate of KL may be negative
    ],
)
def test_adaptive_step_by_hand(kl: float, factor: float) -> None:
    controller = AdaptiveKLController(0.5, target=6.0, horizon=10_000)
    controller.update(kl, 100)
    assert controller.value == pytest.approx(0.5 * factor, rel=1e-12)


def test_adaptive_finds_the_weight_whose_kl_is_the_target() -> None:
    """A scripted policy whose KL falls with the weight as 1.2 / kl_coef: KL 6 belongs to a weight of 0.2."""
    for start in (0.01, 3.0):
        controller = AdaptiveKLController(start, target=6.0, horizon=1000)
        for _ in range(400):
            controller.update(1.2 / controller.value, 100)
        assert controller.value == pytest.approx(0.2, rel=1e-3)


def test_a_batch_of_many_horizons_does_not_turn_the_sign() -> None:
    controller = AdaptiveKLController(0.1, target=6.0, horizon=10)
    controller.update(0.0, 1000)
    assert controller.value == pytest.approx(0.08)


def test_state_survives_json() -> None:
    controller = AdaptiveKLController(0.1, target=4.0, horizon=500)
    controller.update(9.0, 32)
    resumed = AdaptiveKLController(0.1, target=4.0, horizon=500)
    resumed.load_state_dict(json.loads(json.dumps(controller.state_dict())))
    for one in (controller, resumed):
        one.update(2.0, 32)
    assert resumed.value == controller.value != 0.1


def test_divergence_is_named_and_leaves_the_weight() -> None:
    controller = AdaptiveKLController(0.1)
    with pytest.raises(ValueError, match="kl must be finite to control its weight, got nan"):
        controller.update(math.nan, 8)
    assert controller.value == 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kl_coef": 0.0}, "kl_coef must be finite and > 0 .*got 0.0"),
        ({"kl_coef": -1.0}, "kl_coef must be a finite KL weight >= 0, got -1.0"),
        ({"target": 0.0}, "target must be finite and > 0 .*got 0.0"),
        ({"horizon": 0}, "horizon must be finite and > 0 .*got 0"),
        ({"target": math.inf}, "target must be finite and > 0 .*got inf"),
    ],
)
def test_settings_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AdaptiveKLController(**{"kl_coef": 0.1} | arguments)


def test_broken_state_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"state\['value'\] must be a finite KL weight"):
        FixedKLController(0.1).load_state_dict({})
