"""Metrics files, progress, interruption and bad gradients, on the callbacks alone."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import TrainerControl, TrainerState

from rlsft.artifacts import read_jsonl
from rlsft.errors import RunError
from rlsft.trainers.callbacks import (
    EarlyStopping,
    MetricsCallback,
    NonFiniteGuard,
    ProgressCallback,
    RunInterrupted,
    StopOnInterrupt,
    gradients_are_finite,
    summary_of,
)


def arguments(**values: Any) -> Any:
    return SimpleNamespace(**{"output_dir": "out", "world_size": 1, "fp16": False, "learning_rate": 1e-3, **values})


def at_step(step: int, *, total: int = 10, is_main: bool = True) -> TrainerState:
    state = TrainerState(global_step=step, max_steps=total)
    state.is_world_process_zero = is_main
    return state


# ---- metrics ----------------------------------------------------------------------------------------------


def test_metrics_are_rows_with_stage_step_and_time(tmp_path: Path) -> None:
    callback = MetricsCallback(tmp_path / "run" / "metrics.jsonl", "sft")
    callback.on_log(arguments(), at_step(3), TrainerControl(), logs={"loss": 1.5, "grad_norm": float("nan")})
    callback.on_log(arguments(), at_step(4), TrainerControl(), logs={"loss": float("inf")})
    text = callback.path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    first, second = read_jsonl(callback.path)
    assert (first["stage"], first["step"], first["loss"], first["grad_norm"]) == ("sft", 3, 1.5, None)
    assert second["loss"] is None
    assert first["time"] > 1.6e9


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    callback = MetricsCallback(tmp_path / "metrics.jsonl", "sft")
    callback.on_log(arguments(), at_step(3, is_main=False), TrainerControl(), logs={"loss": 1.5})
    assert not callback.path.exists()


def test_a_resumed_stage_drops_its_own_later_rows_and_the_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"stage": "sft", "step": step} for step in (1, 2, 3)] + [{"stage": "reward", "step": 3}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"stage": "sft", "st')
    MetricsCallback(path, "sft").on_train_begin(arguments(), at_step(2), TrainerControl())
    assert read_jsonl(path) == [rows[0], rows[1], rows[3]]


# ---- progress ---------------------------------------------------------------------------------------------


def drive(callback: ProgressCallback, steps: int = 3) -> None:
    callback.on_train_begin(arguments(), at_step(0, total=steps), TrainerControl())
    for step in range(1, steps + 1):
        callback.on_step_end(arguments(), at_step(step, total=steps), TrainerControl())
        callback.on_log(arguments(), at_step(step, total=steps), TrainerControl(), logs={"loss": 2.0 / step})
    callback.on_train_end(arguments(), at_step(steps, total=steps), TrainerControl())


def test_a_terminal_gets_a_bar_with_steps_and_loss() -> None:
    screen = io.StringIO()
    drive(ProgressCallback("sft", console=Console(file=screen, force_terminal=True, width=120)))
    assert "3/3" in screen.getvalue()
    assert "loss 0.6667" in screen.getvalue()


@pytest.mark.parametrize("show", [None, False])
def test_no_terminal_gets_nothing_unasked(show: bool | None) -> None:
    screen = io.StringIO()
    drive(ProgressCallback("sft", show=show, console=Console(file=screen, width=120)))
    assert screen.getvalue() == ""


def test_no_terminal_gets_one_line_a_log_when_asked() -> None:
    screen = io.StringIO()
    drive(ProgressCallback("sft", show=True, console=Console(file=screen, width=120)))
    lines = screen.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["sft 1/3 loss 2", "sft 2/3 loss 1", "sft 3/3 loss 0.6667"]
    assert lines[0].endswith("left")


def test_the_summary_names_what_a_person_watches() -> None:
    assert summary_of({"loss": 1.23456, "epoch": 1.0, "eval_accuracy": 0.5, "objective/kl": 0.25}) == (
        "loss 1.235, eval accuracy 0.5, KL 0.25"
    )
    assert summary_of({"train_runtime": 3.0}) == ""


# ---- interruption -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(number: signal.Signals, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    callback, control, args = StopOnInterrupt(), TrainerControl(), arguments(output_dir=str(tmp_path))
    callback.on_train_begin(args, at_step(0), control)
    callback.on_step_end(args, at_step(1), control)
    assert not control.should_training_stop
    os.kill(os.getpid(), number)
    callback.on_step_end(args, at_step(2), control)
    assert control.should_save
    assert control.should_training_stop
    with pytest.raises(
        RunInterrupted, match=r"interrupted after step 2; .*resume_from_checkpoint='.*checkpoint-2'"
    ) as caught:
        callback.on_train_end(args, at_step(2), control)
    assert caught.value.checkpoint == tmp_path / "checkpoint-2"
    assert signal.getsignal(number) == before


def test_a_second_signal_acts_at_once() -> None:
    # a process started in the background (nohup) begins with SIGINT ignored, and would go on ignoring the second one
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        callback = StopOnInterrupt()
        callback.on_train_begin(arguments(), at_step(0), TrainerControl())
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_without_a_signal_nothing_is_raised_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    callback = StopOnInterrupt()
    callback.on_train_begin(arguments(), at_step(0), TrainerControl())
    assert signal.getsignal(signal.SIGTERM) != before
    callback.on_train_end(arguments(), at_step(9), TrainerControl())
    assert signal.getsignal(signal.SIGTERM) == before


# ---- gradients that are not finite ------------------------------------------------------------------------


def model_with_gradient(value: float) -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)
    return model, optimizer


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_step_with_a_bad_gradient_moves_nothing_and_is_counted(value: float) -> None:
    model, optimizer = model_with_gradient(1.0)
    model.bias.grad[0] = value
    before = [p.detach().clone() for p in model.parameters()]
    guard = NonFiniteGuard(max_consecutive=3)
    guard.on_pre_optimizer_step(arguments(), at_step(4), TrainerControl(), model=model)
    optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert guard.skipped == 1


def test_a_good_gradient_passes_untouched() -> None:
    model, _ = model_with_gradient(1.0)
    assert gradients_are_finite(model)
    guard = NonFiniteGuard()
    guard.on_pre_optimizer_step(arguments(), at_step(4), TrainerControl(), model=model)
    assert guard.skipped == 0
    assert model.bias.grad is not None


def test_bad_gradients_in_a_row_are_an_error_that_names_the_step() -> None:
    guard = NonFiniteGuard(max_consecutive=2)
    good, bad = model_with_gradient(1.0)[0], float("nan")
    for model in (model_with_gradient(bad)[0], good, model_with_gradient(bad)[0]):
        guard.on_pre_optimizer_step(arguments(), at_step(6), TrainerControl(), model=model)
    with pytest.raises(
        RunError, match=r"step 8: the gradient is NaN or infinite, 2 step\(s\) in a row.*Lower learning_rate"
    ):
        guard.on_pre_optimizer_step(arguments(), at_step(7), TrainerControl(), model=model_with_gradient(bad)[0])


def test_zero_tolerance_raises_at_the_first_and_fp16_is_left_to_its_scaler() -> None:
    model, _ = model_with_gradient(float("inf"))
    NonFiniteGuard(0).on_pre_optimizer_step(arguments(fp16=True), at_step(0), TrainerControl(), model=model)
    assert model.bias.grad is not None
    with pytest.raises(RunError, match="step 1"):
        NonFiniteGuard(0).on_pre_optimizer_step(arguments(), at_step(0), TrainerControl(), model=model)


# ---- early stopping ---------------------------------------------------------------------------------------


def test_the_count_of_waits_survives_a_resume() -> None:
    callback = EarlyStopping(early_stopping_patience=3)
    callback.early_stopping_patience_counter = 2
    state = at_step(5)
    state.stateful_callbacks = {"EarlyStopping": callback.state()}
    args = arguments(load_best_model_at_end=True, metric_for_best_model="accuracy", eval_strategy="steps")
    resumed = EarlyStopping(early_stopping_patience=3)
    resumed.on_train_begin(args, state, TrainerControl())
    assert resumed.early_stopping_patience_counter == 2
