"""What surrounds the algorithm of `IRFTTrainer`: checkpoints, held-out evaluation, metrics, speed."""

from __future__ import annotations

import copy
import math
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlsft.models import evaluation_mode, merge_lora
from rlsft.trainers.base import RlsftTrainer
from rlsft.trainers.irft.advice import Advisor
from rlsft.trainers.irft.config import IRFTConfig
from rlsft.trainers.irft.maker import PairMaker
from rlsft.trainers.irft.negatives import drop_later
from rlsft.trainers.irft.pairs import Demonstrations, Pair
from rlsft.trainers.irft.reference import answer_logprobs
from rlsft.trainers.irft.rounds import Rounds
from rlsft.trainers.irft.state import RoundState
from rlsft.trainers.sft import SFTTrainer


class IRFTBase(RlsftTrainer):
    """Files, evaluation and metrics; `IRFTTrainer` adds the learning."""

    stage = "irft"
    args: IRFTConfig
    maker: PairMaker
    rounds: Rounds | None = None
    advisor: Advisor
    lr_scheduler: Any
    held_out_data: dict[str, Demonstrations]

    # NLL, perplexity and accuracy of held-out demonstrations, as SFT reports them
    evaluation_rows = SFTTrainer.evaluation_rows  # type: ignore[assignment]
    metrics_of_rows = SFTTrainer.metrics_of_rows  # type: ignore[assignment]

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._train_seconds = 0.0
        self._train_tokens = 0
        self._eval_name: str | None = None

    @property
    def policy(self) -> Any:
        """The policy, with its adapter if it has one."""
        return self.model

    # ---- evaluation ---------------------------------------------------------------------------------------

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """NLL and perplexity of held-out demonstrations, and how well the reward tells them from fresh answers.

        `eval_accuracy`, `eval_margin`: on one answer a prompt, drawn and scored as the round in progress began; missing
        before the first round.
        """
        self._eval_name = eval_dataset if isinstance(eval_dataset, str) else "" if eval_dataset is None else None
        return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)  # type: ignore[arg-type]

    def evaluation_loop(self, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        """The loop of all trainers, with the reward accuracy on the round's held-out answers."""
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        held_out = self.rounds.state.held_out if self.rounds is not None else {}
        pairs = [] if self._eval_name is None else held_out.get(self._eval_name, [])
        if pairs:
            prefix = kwargs.get("metric_key_prefix", "eval")
            own = self._reward_metrics(self.held_out_data[self._eval_name or ""], pairs)
            output.metrics.update({f"{prefix}_{name}": value for name, value in own.items()})  # type: ignore[union-attr]
        return output

    @torch.no_grad()
    def _reward_metrics(self, data: Demonstrations, pairs: list[Pair]) -> dict[str, float]:
        """Accuracy and margin of the implicit reward; every rank takes its share of the pairs."""
        sums = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        size = self.args.per_device_eval_batch_size
        with evaluation_mode(self.policy), self.accelerator.autocast():
            for start in range(self.args.process_index * size, len(pairs), size * self.args.world_size):
                batch = self.maker.to_device(self.maker.collate(pairs[start : start + size], data))
                real, generated = self._log_ratios(
                    answer_logprobs(self.policy, batch, temperature=self._temperature), batch
                )
                sums += torch.stack([(real > generated).sum(), (real - generated).sum(), torch.tensor(len(real))]).to(
                    sums
                )
        right, margin, count = self.accelerator.reduce(sums, "sum").tolist()
        return {"accuracy": right / count, "margin": self.args.beta * margin / count}

    @property
    def _temperature(self) -> float:
        return self.args.sampling().scoring_temperature

    def _log_ratios(self, sums: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Log-ratios `[P]` of demonstrations and answers to the reference, a token where lengths are normalised."""
        ratios = sums - batch["reference_sums"]
        if self.args.normalize_length:
            ratios = ratios / batch["completion_mask"].sum(dim=1)
        real, generated = ratios.view(2, -1).unbind()
        return real, generated

    # ---- metrics ------------------------------------------------------------------------------------------

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        begun = time.monotonic()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._train_seconds += time.monotonic() - begun
        self._train_tokens += int(inputs["attention_mask"].sum())
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what IRFT measures to a training row, and advice where it is due; NaN is left out."""
        if "loss" in logs:
            logs |= self.stats.reduce(self.accelerator)
            logs |= {"round": float(self._round_number), **self._speed()}
            self.advisor.after_log(logs)
            logs |= self.advisor.flags()
        for name in [name for name, value in logs.items() if isinstance(value, float) and not math.isfinite(value)]:
            del logs[name]
        super().log(logs, start_time)

    @property
    def _round_number(self) -> int:
        return self.rounds.state.number if self.rounds is not None else -1

    def _speed(self) -> dict[str, float]:
        """Shares of the time since the run (or its resumption) began, and tokens a second of this rank's training."""
        seconds = {**self.maker.seconds, "training": self._train_seconds}
        total = max(sum(seconds.values()), 1e-9)
        shares = {f"perf/{name}_share": value / total for name, value in seconds.items()}
        return {**shares, "perf/tokens_per_second": self._train_tokens / max(self._train_seconds, 1e-9)}

    def floating_point_ops(self, inputs: dict[str, Tensor]) -> int:  # type: ignore[override]
        """Six operations a parameter and token, as transformers counts them."""
        return 6 * inputs["input_ids"].numel() * self.policy.num_parameters(exclude_embeddings=True)

    # ---- files --------------------------------------------------------------------------------------------

    def save_policy(self, path: str | os.PathLike[str]) -> None:
        """Write the policy as a plain transformers folder with its tokenizer, an adapter merged into a copy."""
        if self.args.should_save:
            merge_lora(copy.deepcopy(self.policy)).save_pretrained(path)
            self.processing_class.save_pretrained(path)  # type: ignore[union-attr]

    def finish_step(self) -> None:
        """Take note of the step that was just made; a schedule may depend on it."""

    def _save_rng_state(self, output_dir: str) -> None:
        """Before `trainer_state.json`, which marks a checkpoint as whole."""
        super()._save_rng_state(output_dir)
        self.finish_step()
        if self.args.should_save and self.rounds is not None:
            self.rounds.state.save(output_dir, num_rows=len(self.rounds.data))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        state = None
        if self.rounds is not None:
            state = RoundState.load(resume_from_checkpoint, num_rows=len(self.rounds.data))
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[arg-type]
        if self.rounds is not None and state is not None:
            self.rounds.state = state
        step = int(Path(resume_from_checkpoint).name.rpartition("-")[2])
        drop_later(str(self.args.output_dir), step, self.args.process_index)
