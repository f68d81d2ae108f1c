"""What every run does besides learning: write metrics, show progress, stop cleanly, survive a bad step."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rlsft.artifacts import append_jsonl, write_text
from rlsft.errors import RunError

logger = logging.getLogger(__name__)


class RunInterrupted(RunError):  # noqa: N818 (an interruption is not an error of anybody's)
    """Ctrl-C or SIGTERM stopped the run after a whole step; `checkpoint` holds everything needed to go on."""

    exit_status = 130  # what shells report for a process that Ctrl-C ended

    def __init__(self, step: int, checkpoint: Path):
        self.step = step
        self.checkpoint = checkpoint
        super().__init__(
            f"interrupted after step {step}; everything is saved in {checkpoint}. To go on from there, start "
            f"the same run with resume_from_checkpoint={str(checkpoint)!r} (the result equals a run that was "
            "never stopped)."
        )


class MetricsCallback(TrainerCallback):
    """Append every logged row to a JSON-lines file as `{"stage", "step", "time", ...}`; rank 0 writes.

    When a stage starts again, its own rows after the starting step are dropped first, so that a curve never
    doubles back; other stages in the same file stay. NaN and infinity become null.

    Args:
        path: the file, usually `metrics.jsonl` of the run.
        stage: the word under `stage`: `sft`, `reward`, `ppo`.
    """

    def __init__(self, path: str | Path, stage: str):
        self.path = Path(path)
        self.stage = stage

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if not self._is_later(line, state.global_step)]
            if len(kept) != len(lines):
                write_text(self.path, "".join(f"{line}\n" for line in kept))

    def _is_later(self, line: str, step: int) -> bool:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            return True  # the line that a kill cut off
        return row.get("stage") == self.stage and row.get("step", 0) > step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if state.is_world_process_zero and logs:
            append_jsonl(
                self.path,
                {"stage": self.stage, "step": state.global_step, "time": round(time.time(), 3), **logs},
            )


class ProgressCallback(TrainerCallback):
    """A bar with the time left on a terminal; elsewhere one line a log, where progress was asked for.

    Args:
        label: the word before the bar.
        show: None shows it on a terminal only; True always; False never.
        console: where to draw (default: standard error, so that piped results stay clean).
    """

    def __init__(self, label: str, *, show: bool | None = None, console: Console | None = None):
        self.label = label
        self.console = console or Console(stderr=True)
        self.bar = show is not False and self.console.is_terminal
        self.lines = show is True and not self.console.is_terminal
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._started = (0.0, 0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._started = (time.monotonic(), state.global_step)
        if not (self.bar and state.is_world_process_zero):
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[news]}"),
            console=self.console,
        )
        self._progress.start()
        self._task = self._progress.add_task(self.label, total=state.max_steps, completed=state.global_step, news="")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        news = summary_of(logs or {})
        if not news or not state.is_world_process_zero:
            return
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, news=news)
        elif self.lines:
            self.console.print(
                f"{self.label} {state.global_step}/{state.max_steps} {news}{self._time_left(state)}",
                highlight=False,
            )

    def _time_left(self, state: TrainerState) -> str:
        begun, first_step = self._started
        done = state.global_step - first_step
        if done <= 0 or state.max_steps <= state.global_step:
            return ""
        seconds = int((time.monotonic() - begun) / done * (state.max_steps - state.global_step))
        return f", {seconds // 60}:{seconds % 60:02d} left"

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar down, whatever state the run is in."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


SUMMARY_KEYS = {
    "round": "round",
    "loss": "loss",
    "eval_loss": "eval loss",
    "accuracy": "accuracy",
    "eval_accuracy": "eval accuracy",
    "objective/scores": "score",
    "objective/kl": "KL",
    "kl/generator": "KL",
    "perf/generation_share": "drawing",
}


def summary_of(logs: Mapping[str, Any]) -> str:
    """The few numbers of a logged row that a person watches, as `loss 1.23, KL 0.04`."""
    parts = [
        f"{word} {logs[key]:.4g}"
        for key, word in SUMMARY_KEYS.items()
        if isinstance(logs.get(key), (int, float)) and not isinstance(logs[key], bool)
    ]
    return ", ".join(parts)


class StopOnInterrupt(TrainerCallback):
    """Finish the step, save a checkpoint and raise `RunInterrupted` on the first Ctrl-C (SIGINT) or SIGTERM.

    A second signal acts at once, as it would without this callback. With several ranks, a signal to one stops
    all of them after the same step. Add it last: `on_train_end` raises, and callbacks behind it would not
    run.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._stopped = False
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.requested = self._stopped = False
        if threading.current_thread() is threading.main_thread():  # Python delivers signals there only
            for number in self.SIGNALS:
                self._previous[number] = signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: Any) -> None:
        self.requested = True
        self.restore()
        logger.warning("stopping after this step and saving a checkpoint; a second signal stops at once")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._any_rank_asked(args):
            self._stopped = True
            control.should_save = True
            control.should_training_stop = True
        return control

    def _any_rank_asked(self, args: TrainingArguments) -> bool:
        if args.world_size == 1 or not torch.distributed.is_initialized():
            return self.requested
        flag = torch.tensor([int(self.requested)], device=args.device)
        torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX)
        return bool(flag.item())

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.restore()
        if self._stopped:
            self._stopped = False
            folder = f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            raise RunInterrupted(state.global_step, Path(str(args.output_dir)) / folder)

    def restore(self) -> None:
        """Give the signals back to whoever had them before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()


class EarlyStopping(EarlyStoppingCallback):
    """transformers' early stopping, whose count of evaluations without progress survives a stop and resume."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        saved = (state.stateful_callbacks or {}).get(type(self).__name__)
        if isinstance(saved, dict):  # what the checkpoint holds; zero in a fresh run
            self.early_stopping_patience_counter = saved["attributes"]["early_stopping_patience_counter"]


class NonFiniteGuard(TrainerCallback):
    """Skip an optimizer step whose gradient is NaN or infinite: no weight moves, the skip is counted.

    With gradients set to None an optimizer leaves the parameter, its moments and its decay alone. In fp16 the
    loss scaler does this already and overflow is part of its search, so the guard stays out of the way.

    Args:
        max_consecutive: so many skipped steps in a row raise a `RunError`; 0 raises at the first.
    """

    def __init__(self, max_consecutive: int = 3):
        self.max_consecutive = max_consecutive
        self.skipped = 0
        self._in_a_row = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.skipped = self._in_a_row = 0

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        if args.fp16 or gradients_are_finite(model):
            self._in_a_row = 0
            return
        model.zero_grad(set_to_none=True)
        self.skipped += 1
        self._in_a_row += 1
        step = state.global_step + 1
        logger.warning("step %d skipped: its gradient is not finite (%d skipped so far)", step, self.skipped)
        if self._in_a_row >= max(1, self.max_consecutive):
            raise RunError(
                f"step {step}: the gradient is NaN or infinite, {self._in_a_row} step(s) in a row "
                f"(max_nonfinite_steps={self.max_consecutive}). The weights are still those of the last good "
                f"step. Lower learning_rate (now {args.learning_rate:g}), set max_grad_norm, train in "
                f"float32, or look at the batches in {Path(str(args.output_dir)) / 'debug'}."
            )


@torch.no_grad()
def gradients_are_finite(model: torch.nn.Module) -> bool:
    """Whether the norm over all gradients of `model` is a finite number (sharded gradients included)."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not gradients:
        return True
    norm = torch.nn.utils.get_total_norm(gradients)
    if hasattr(norm, "full_tensor"):
        norm = norm.full_tensor()
    return bool(torch.isfinite(norm).item())
