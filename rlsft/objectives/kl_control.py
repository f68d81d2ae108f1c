"""Controllers of the weight of the KL penalty: constant, or proportional to how far the KL is from a target."""

from __future__ import annotations

import math

from rlsft.errors import ConfigError

MAX_ERROR = 0.2  # one measurement moves the weight by at most this share of num_answers / horizon


class FixedKLController:
    """Keeps the weight it was given."""

    def __init__(self, kl_coef: float) -> None:
        self.value = _checked_weight("kl_coef", kl_coef)

    def update(self, kl: float, num_answers: int) -> None:
        """Does nothing: the same call works for both controllers."""

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps, as plain numbers."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Takes a kept weight back.

        Raises:
            ConfigError: the state holds no weight that could be used.
        """
        self.value = _checked_weight("state['value']", state.get("value", math.nan))


class AdaptiveKLController(FixedKLController):
    """Raises the weight while the KL is above its target and lowers it below (Ziegler et al. 2019, section 2.2).

    `e = clip(kl / target - 1, -0.2, 0.2)`, `kl_coef *= 1 + e * num_answers / horizon` (arXiv 1909.08593).

    Args:
        kl_coef: the weight to start from; 0 would stay 0 for ever and is refused.
        target: KL an answer to aim at, in nats, summed over its tokens.
        horizon: answers over which the controller reacts; a smaller one is quicker.

    Raises:
        ConfigError: a setting is not finite or not above 0.
    """

    def __init__(self, kl_coef: float, *, target: float = 6.0, horizon: float = 10_000) -> None:
        super().__init__(kl_coef)
        self._require_positive("kl_coef", kl_coef, "a product never leaves 0; use the fixed controller")
        self._require_positive("target", target, "it is the KL an answer to aim at, in nats")
        self._require_positive("horizon", horizon, "it is a number of answers")
        self.target = float(target)
        self.horizon = float(horizon)

    @staticmethod
    def _require_positive(name: str, value: float, why: str) -> None:
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} must be finite and > 0 for adaptive KL control ({why}), got {value!r}")

    def update(self, kl: float, num_answers: int) -> None:
        """Moves the weight after a batch.

        Args:
            kl: mean over the batch of the KL of an answer, in nats.
            num_answers: how many answers the mean is over, on all processes together.

        Raises:
            ValueError: the KL is not finite; the weight stays as it was.
        """
        if not math.isfinite(kl):
            raise ValueError(f"kl must be finite to control its weight, got {kl!r}: the policy has diverged")
        error = min(max(kl / self.target - 1, -MAX_ERROR), MAX_ERROR)
        # a batch larger than five horizons would otherwise turn the sign of the weight
        self.value *= max(1 + error * num_answers / self.horizon, 1 - MAX_ERROR)


def _checked_weight(name: str, value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name} must be a finite KL weight >= 0, got {value!r}")
    return float(value)
