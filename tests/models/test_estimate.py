"""The estimate counts what can be counted by hand, from a folder as from a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlsft.errors import ModelError
from rlsft.models import add_lora, estimate_training
from rlsft.models.estimate import format_bytes, format_seconds, matmul_flops_per_second
from tests.support.models import FAMILIES, tiny_model

SPEED = 1e9


def test_full_training_by_hand() -> None:
    model = tiny_model()
    count = sum(p.numel() for p in model.parameters())
    estimate = estimate_training(
        model, batch_size=4, sequence_length=64, num_examples=100, num_epochs=2, flops_per_second=SPEED, frozen_copies=1
    )
    assert estimate.parameters == estimate.trainable_parameters == count
    assert estimate.weight_bytes == 2 * 4 * count
    assert estimate.gradient_bytes == 4 * count
    assert estimate.optimizer_bytes == 8 * count
    assert estimate.logits_bytes_avoided == 2 * 4 * (4 * 64) * 400
    assert estimate.flops_per_step == 6 * count * 4 * 64
    assert estimate.num_steps == 50
    assert estimate.total_seconds == pytest.approx(50 * estimate.seconds_per_step)
    assert estimate.total_bytes == 16 * count + estimate.activation_bytes + 4 * count


def test_checkpointing_trades_memory_for_arithmetic() -> None:
    plain, saving = (
        estimate_training(
            tiny_model(num_hidden_layers=6),
            batch_size=4,
            sequence_length=64,
            gradient_checkpointing=flag,
            flops_per_second=SPEED,
        )
        for flag in (False, True)
    )
    assert saving.activation_bytes < plain.activation_bytes / 2
    assert plain.checkpointed_activation_bytes == saving.activation_bytes
    advice = dict(plain.rows())["peak with gradient_checkpointing=True"]
    assert advice.startswith(dict(saving.rows())["peak memory (estimate)"])
    assert "peak with gradient_checkpointing=True" not in dict(saving.rows())
    assert saving.flops_per_step == pytest.approx(plain.flops_per_step * 8 / 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lora_count_is_that_of_a_real_adapter(family: str) -> None:
    lora = add_lora(tiny_model(family), {"r": 4})
    expected = sum(p.numel() for p in lora.parameters() if p.requires_grad)
    estimate = estimate_training(tiny_model(family), batch_size=1, sequence_length=8, lora_r=4, flops_per_second=SPEED)
    assert estimate.trainable_parameters == expected > 0
    assert estimate.gradient_bytes == 4 * expected
    assert estimate.flops_per_step == 2 * 8 * (2 * estimate.parameters + expected)  # no backward into frozen weights


def test_a_folder_is_estimated_without_its_weights(tmp_path: Path) -> None:
    model = tiny_model()
    model.config.save_pretrained(tmp_path)  # no weights are written at all
    estimate = estimate_training(tmp_path, batch_size=2, sequence_length=8, dtype="bf16", flops_per_second=SPEED)
    assert estimate.parameters == sum(p.numel() for p in model.parameters())
    assert estimate.weight_bytes == 2 * estimate.parameters


def test_every_line_is_labelled_and_time_needs_a_number_of_steps() -> None:
    estimate = estimate_training(tiny_model(), batch_size=1, sequence_length=8, flops_per_second=SPEED)
    labels = [label for label, _ in estimate.rows()]
    assert "peak memory (estimate)" in labels
    assert not any("steps" in label for label in labels)
    assert estimate.total_seconds is None

    from rich.console import Console

    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(estimate)
    console.file.close()
    assert "not measured" in console.export_text()


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ModelError, match="batch_size and sequence_length must be at least 1, got 0 and 8"):
        estimate_training(tiny_model(), batch_size=0, sequence_length=8)


def test_the_speed_is_measured_when_none_is_given() -> None:
    assert matmul_flops_per_second("cpu", torch.float32, size=64, budget_seconds=0.01) > 1e6


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")])
def test_bytes_read_well(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.25, "0.25 s"), (75, "1 min 15 s"), (7320, "2 h 2 min")])
def test_seconds_read_well(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
