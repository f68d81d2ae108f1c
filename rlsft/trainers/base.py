"""What SFT and reward training share on `transformers.Trainer`: exact token counts, own metrics, clean stops."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers import ProgressCallback as TqdmCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput, EvalPrediction, TrainOutput

from rlsft.artifacts import write_jsonl
from rlsft.errors import RunError
from rlsft.models import freed_memory_kept
from rlsft.trainers.arguments import RlsftArguments
from rlsft.trainers.callbacks import (
    EarlyStopping,
    MetricsCallback,
    NonFiniteGuard,
    ProgressCallback,
    StopOnInterrupt,
)
from rlsft.trainers.encoded import Rows
from rlsft.trainers.running import RunningStats

MAX_DUMPS = 5


class RlsftTrainer(Trainer):
    """`transformers.Trainer` whose loss is a mean over all items of an optimizer step, however it is cut up.

    Items are trained tokens (SFT) or pairs (reward model): one count over all micro-batches and ranks, so
    that batch 8, batch 4 with two accumulation steps and two ranks with batch 4 give the same gradient.

    A subclass gives `stage`, `count_items`, `compute_loss`, `evaluation_rows` and `metrics_of_rows`.
    """

    stage: ClassVar[str]
    args: RlsftArguments

    def __init__(
        self,
        *,
        model: nn.Module,
        args: RlsftArguments,
        data_collator: Callable[[list[dict[str, Any]]], dict[str, Tensor]],
        train_dataset: datasets.Dataset | None,
        eval_dataset: datasets.Dataset | dict[str, datasets.Dataset] | None,
        processing_class: Any,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None,
        callbacks: Sequence[TrainerCallback] | None,
        optimizers: tuple[Any, Any],
    ):
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,  # type: ignore[arg-type]
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=list(callbacks or []),
            optimizers=optimizers,
        )
        self.model_accepts_loss_kwargs = True
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the count of the whole step
        self.stats = RunningStats()
        self._rows: list[Tensor] = []
        self._dumps = 0
        self._install_callbacks()

    def _install_callbacks(self) -> None:
        """Our metrics and progress in place of transformers' printing; the interrupt handler last, as it raises."""
        self.remove_callback(TqdmCallback)
        self.remove_callback(PrinterCallback)
        self.guard = NonFiniteGuard(self.args.max_nonfinite_steps)
        self.progress = ProgressCallback(self.stage, show=self.args.show_progress)
        self.interrupt = StopOnInterrupt()
        if self.args.early_stopping_patience is not None:
            self.add_callback(EarlyStopping(early_stopping_patience=self.args.early_stopping_patience))
        for callback in (
            self.guard,
            MetricsCallback(self.args.metrics_file, self.stage),
            self.progress,
            self.interrupt,
        ):
            self.add_callback(callback)

    # ---- training -----------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train, or go on from a checkpoint with the result that an uninterrupted run would have had.

        Args:
            resume_from_checkpoint: a `checkpoint-N` folder, or True for the last whole one in `output_dir`;
                None takes `args.resume_from_checkpoint`.

        Raises:
            RunInterrupted: Ctrl-C or SIGTERM; a checkpoint is written and named.
            RunError: nothing to resume from, gradients that stay NaN, or a full disk.
        """
        asked = self.args.resume_from_checkpoint if resume_from_checkpoint is None else resume_from_checkpoint
        try:
            with freed_memory_kept(self.args.keep_freed_memory and self.args.device.type == "cpu"):
                return super().train(resume_from_checkpoint=self._checkpoint(asked), **kwargs)
        except Exception as error:
            if is_disk_full(error):
                raise RunError(
                    f"no space left on the disk while writing under {self.args.output_dir}; earlier "
                    "checkpoints are intact. Free some space (or lower save_total_limit) and resume with "
                    "resume_from_checkpoint=True."
                ) from error
            raise
        finally:
            self.interrupt.restore()
            self.progress.close()

    def _checkpoint(self, asked: str | bool | None) -> str | None:
        if asked is None or asked is False or str(asked).lower() == "false":
            return None
        if asked is True or str(asked).lower() == "true":
            found = last_checkpoint(str(self.args.output_dir))
            if found is None:
                raise RunError(
                    f"resume_from_checkpoint=True, but {self.args.output_dir} holds no whole "
                    f"{PREFIX_CHECKPOINT_DIR}-N folder. Start without it, or name the folder."
                )
            return str(found)
        if not (Path(asked) / "trainer_state.json").is_file():
            raise RunError(
                f"resume_from_checkpoint must be a {PREFIX_CHECKPOINT_DIR}-N folder with a "
                f"trainer_state.json, got {asked!r}, which has none. True takes the last whole one in "
                "output_dir."
            )
        return str(asked)

    def count_items(self, batch: dict[str, Tensor]) -> Tensor:
        """int64 [2]: the items that the loss of `batch` is a mean of, and its real tokens."""
        raise NotImplementedError

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Tensor]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        """The micro-batches of one optimizer step and the number of items in them, over all ranks."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[arg-type]
        if not batches:
            return batches, None
        counts = torch.stack([self.count_items(batch) for batch in batches]).sum(dim=0).to(device)
        items, tokens = self.accelerator.reduce(counts, "sum")
        if self.args.include_num_input_tokens_seen == "no":  # otherwise transformers counts, its own way
            self.state.num_input_tokens_seen += int(tokens)  # a field that checkpoints keep
        return batches, items

    def scale_loss(self, mean_over_items: Tensor) -> Tensor:
        """Undo the average that data parallelism takes over the ranks: the count is already a global one."""
        return mean_over_items * self.accelerator.num_processes

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """One forward and backward; the batch behind a loss that is not finite is written to `debug/`."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss) and self._dumps < MAX_DUMPS:
            self._dump(inputs, float(loss))
        return loss

    def _dump(self, inputs: dict[str, Tensor], loss: float) -> None:
        self._dumps += 1
        step, rank = self.state.global_step + 1, self.args.process_index
        rows = [
            {
                "loss": loss,
                "text": self.processing_class.decode(row[row_mask.bool()]),
                "input_ids": row[row_mask.bool()],
            }
            for ids, mask in _sequences(inputs)
            for row, row_mask in zip(ids, mask, strict=True)
        ]
        write_jsonl(Path(str(self.args.output_dir)) / "debug" / f"nonfinite_step_{step}_rank_{rank}.jsonl", rows)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the window's own statistics to a training row, then log as transformers does."""
        if "loss" in logs:
            logs |= self.stats.reduce(self.accelerator)
            logs["num_tokens"] = self.state.num_input_tokens_seen
        if self.guard.skipped:
            logs["nonfinite_steps"] = self.guard.skipped
        super().log(logs, start_time)

    # ---- evaluation ---------------------------------------------------------------------------------------

    def evaluation_rows(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """`(rows [B, K], predictions [B, ...], labels [B, ...])` of one batch; the last two are for
        `compute_metrics`."""
        raise NotImplementedError

    def metrics_of_rows(self, rows: np.ndarray) -> dict[str, float]:
        """Metrics, `loss` among them, of float64 `rows` [N, K] of the whole dataset."""
        raise NotImplementedError

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Collect one row a sample; samples that pad the last distributed batch are dropped by the gather."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            rows, predictions, labels = self.evaluation_rows(model, inputs)
        self._rows.append(self.accelerator.gather_for_metrics(rows).double().cpu())
        return (None, None, None) if prediction_loss_only else (None, predictions, labels)

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """transformers' loop, with metrics over all items of the dataset instead of a mean of batch means."""
        self._rows = []
        if self.compute_metrics is None:  # no reason to carry predictions around
            kwargs["prediction_loss_only"] = True
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        if self._rows:
            own = self.metrics_of_rows(torch.cat(self._rows).numpy())
            output.metrics.update({f"{prefix}_{name}": value for name, value in own.items()})  # type: ignore[union-attr]
        self._rows = []
        return output


def encoded_eval(eval_dataset: Any, encoded: Callable[[Rows, str], Any]) -> Any:
    """An evaluation dataset, none, or a dict of several, each encoded under its own name."""
    if eval_dataset is None:
        return None
    if isinstance(eval_dataset, Mapping):
        return {key: encoded(rows, f"eval_dataset[{key!r}]") for key, rows in eval_dataset.items()}
    return encoded(eval_dataset, "eval_dataset")


def last_checkpoint(folder: str | Path) -> Path | None:
    """The newest `checkpoint-N` under `folder` that was written to its end, or None.

    `trainer_state.json` is the last file of a checkpoint, so a folder without it is what a kill left behind.
    """
    found = [
        (int(number), path)
        for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (number := path.name.rpartition("-")[2]).isdigit() and (path / "trainer_state.json").is_file()
    ]
    return max(found)[1] if found else None


def trained_tokens(trainer: Trainer) -> int:
    """Tokens the trainer saw, as its log says."""
    for entry in reversed(trainer.state.log_history):
        if "num_tokens" in entry:
            return int(entry["num_tokens"])
    return 0


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` means that no space is left, also where a library reports it in words only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return not isinstance(error, RunError) and os.strerror(errno.ENOSPC).lower() in str(error).lower()


def _sequences(inputs: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Every `(…input_ids, …attention_mask)` of a batch, whatever the prefix."""
    suffix = "input_ids"
    prefixes = [name.removesuffix(suffix) for name in inputs if name.endswith(suffix)]
    return [(inputs[f"{p}input_ids"].cpu(), inputs[f"{p}attention_mask"].cpu()) for p in prefixes]
