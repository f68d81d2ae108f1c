"""Warnings that teach: each appears for its cause, once, with its remedy and its numbers, and not without the cause."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rlsft.trainers.irft.advice import Advisor, contraction_factor
from rlsft.trainers.irft.pairs import Pair
from tests.support.irft import irft_settings, irft_trainer

HEALTHY = {"accuracy": 0.7, "saturation": 0.1, "rewards/real": 0.02, "logps/real": -40.0}


def test_the_contraction_factor() -> None:
    """SPIN's population update: 1 is solved in one round, 0.5 oscillates, 0.4 diverges, 0.1 has factor 9."""
    assert [contraction_factor(beta) for beta in (2, 1, 0.5, 0.4, 0.1)] == pytest.approx([0.5, 0, 1, 1.5, 9])
    assert contraction_factor(0.1, alpha=0.15) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("name", "row", "settings", "message"),
    [
        ("instability", {"accuracy": 0.99}, {}, r"99% .* beta=0.1.* up to 9 for alpha = 1.* needs alpha < 0.2"),
        ("saturation", {"saturation": 0.95}, {}, r"95% of the pairs pull no more"),
        ("collapse", {"rewards/real": -0.3}, {}, r"3 nats below the reference.*sft_coef"),
        ("collapse", {"rewards/real": -0.02}, {"normalize_length": True}, r"0.2 nats below"),
    ],
)
def test_logged_rows_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, row: dict[str, float], settings: dict[str, Any],
    message: str,
) -> None:  # fmt: skip
    advisor = Advisor(irft_settings(tmp_path, beta=0.1, **settings))
    for _ in range(3):
        advisor.after_log(HEALTHY)
    assert advisor.flags() == {}
    advisor.after_log({**HEALTHY, **row})
    advisor.after_log({**HEALTHY, **row})
    advisor.after_log(HEALTHY)  # not three in a row
    assert advisor.flags() == {}
    for _ in range(6):
        advisor.after_log({**HEALTHY, **row})
    assert advisor.flags() == {f"advice/{name}": 1.0}
    assert advisor.flags() == {}
    assert len(caplog.messages) == 1
    assert re.search(message, caplog.messages[0])


@pytest.mark.parametrize("settings", [{"beta": 0.6}, {"rounds": 1}, {"reference": "initial"}, {"loss_type": "hinge"}])
def test_where_rounds_converge_nothing_is_said(tmp_path: Path, settings: dict[str, Any]) -> None:
    advisor = Advisor(irft_settings(tmp_path, **settings))
    for _ in range(5):
        advisor.after_log({**HEALTHY, "accuracy": 1.0})
    assert advisor.flags() == {}


def test_draws_are_looked_at(tmp_path: Path) -> None:
    good = [Pair(prompt=0, generated=[5, 6, 7, 2], ended=True)] * 3
    empty = [Pair(prompt=0, generated=[2], ended=True)] * 4
    endless = [Pair(prompt=0, generated=[5] * 6)] * 40
    for pairs, names in (
        (good, set()),
        (good + empty, {"advice/short_answers"}),
        (good + endless, {"advice/unending_answers"}),
    ):
        advisor = Advisor(irft_settings(tmp_path))
        advisor.after_drawing(pairs)
        assert set(advisor.flags()) == names
    advisor = Advisor(irft_settings(tmp_path, generation_template="### {prompt}"))
    advisor.after_drawing(good)
    assert set(advisor.flags()) == {"advice/off_template"}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, set()),
        ({"temperature": 0.8}, {"advice/tempered_sampling"}),
        ({"top_p": 0.9}, {"advice/truncated_sampling"}),
        ({"temperature": 0.0}, {"advice/truncated_sampling"}),
        ({"loss_type": "linear", "epochs_per_round": 20}, {"advice/linear_many_steps"}),
        ({"loss_type": "linear"}, set()),
    ],
)
def test_settings_are_looked_at_and_the_log_shows_it(tmp_path: Path, settings: dict[str, Any], names: set[str]) -> None:
    trainer = irft_trainer(tmp_path, max_steps=1, **settings)
    trainer.train()
    assert {name for name in trainer.state.log_history[0] if name.startswith("advice/")} == names
