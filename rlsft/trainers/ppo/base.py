"""What surrounds the algorithm of `PPOTrainer`: checkpoints, held-out evaluation, tables of answers."""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerControl
from transformers.trainer import TRAINING_ARGS_NAME

from rlsft.errors import ConfigError
from rlsft.models import merge_lora
from rlsft.rollouts import RolloutBatch
from rlsft.trainers.base import RlsftTrainer
from rlsft.trainers.ppo.config import PPOConfig
from rlsft.trainers.ppo.evaluation import draw_held_out, evaluate_policy
from rlsft.trainers.ppo.prompts import PromptRows, eval_rows, write_completions
from rlsft.trainers.ppo.rollout import ExperienceMaker, Rollouts
from rlsft.trainers.ppo.schedule import PPOSchedule
from rlsft.trainers.ppo.state import (
    VALUE_FOLDER,
    buffer_file,
    load_policy,
    load_rollouts,
    load_state,
    load_value,
    save_rollouts,
    save_state,
)
from rlsft.trainers.ppo.value import ValueModel


class PPOBase(RlsftTrainer):
    """Files and evaluation of a policy with its value model; `PPOTrainer` adds the learning."""

    stage = "ppo"
    args: PPOConfig
    maker: ExperienceMaker
    schedule: PPOSchedule | None
    kl_control: Any
    control: TrainerControl

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._batch: RolloutBatch | None = None
        self._iteration = -1  # whose answers `_batch` holds
        self._clock = (time.monotonic(), 0)  # since when, and the episodes that were done then

    @property
    def policy(self) -> Any:
        """The policy alone, with its adapter if it has one."""
        return self.maker.actor_critic.policy

    @property
    def value(self) -> ValueModel | None:
        """The value model; None where advantages need none."""
        return self.maker.actor_critic.value

    def _sampling_seed(self, iteration: int) -> int:
        """Iteration -1 is the fixed seed of held-out prompts."""
        return self.args.seed * 1_000_003 + iteration + 1

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """One answer to every held-out prompt: mean score, KL to the reference, length, health.

        Raises:
            ConfigError: no eval_dataset.
        """
        rows = self.eval_dataset if eval_dataset is None else eval_rows(eval_dataset)
        if rows is None:
            raise ConfigError("eval_dataset is missing: evaluate() needs held-out prompts")
        begun = time.monotonic()
        metrics: dict[str, float] = {}
        for name, part in rows.items() if isinstance(rows, dict) else [("", rows)]:
            prefix = f"{metric_key_prefix}_{name}_" if name else f"{metric_key_prefix}_"
            found = evaluate_policy(
                self.maker, part, seed=self._sampling_seed(-1), batch_size=self.args.per_device_eval_batch_size,
                rank=self.args.process_index, num_ranks=self.args.world_size,
                reduce=self.accelerator.reduce, compute_metrics=self.compute_metrics,  # type: ignore[arg-type]
            )  # fmt: skip
            metrics |= {f"{prefix}{key}": value for key, value in found.items()}
        metrics[f"{metric_key_prefix}_runtime"] = round(time.monotonic() - begun, 4)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def generate_completions(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Answers to the first `limit` held-out prompts (training prompts where there are none), with their scores."""
        rows = next(iter(self.eval_dataset.values())) if isinstance(self.eval_dataset, dict) else self.eval_dataset
        rows = rows if rows is not None else self.train_dataset
        count = min(limit or len(rows), len(rows))  # type: ignore[arg-type]
        shown = PromptRows([rows[i] for i in range(count)], "eval_dataset")  # type: ignore[index]
        rollouts = draw_held_out(self.maker, shown, seed=self._sampling_seed(-1), rank=0, num_ranks=1)
        assert rollouts is not None, "rank 0 of 1 has every row"
        answers, scores = rollouts.answers, rollouts.batch.need("raw_scores")[0].tolist()
        return [
            {"prompt": prompt, "completion": completion, "score": score}
            for prompt, completion, score in zip(answers.prompts, answers.completions, scores, strict=True)
        ]

    def _maybe_show_generations(self, iteration: int) -> None:
        times = self.args.num_sample_generations
        if times == 0 or self.eval_dataset is None or not self.args.should_save:
            return
        assert self.schedule is not None
        if iteration % max(1, self.schedule.num_iterations // times) == 0:
            rows = self.generate_completions(self.args.per_device_eval_batch_size)
            columns = {name: [row[name] for row in rows] for name in rows[0]}
            write_completions(self._table("generations"), self.state.global_step, columns)

    def _write_table(self, name: str, rollouts: Rollouts) -> None:
        if not self.args.should_save:
            return
        batch, answers = rollouts.batch, rollouts.answers
        raw_scores, scores, advantages = batch.need("raw_scores", "scores", "advantages")
        columns: dict[str, Any] = {"prompt": answers.prompts, "completion": answers.completions, **rollouts.by_reward}
        columns |= {"score": raw_scores.tolist(), "shaped_score": scores.tolist()}
        columns["advantage"] = (advantages.sum(dim=1) / batch.lengths).tolist()
        write_completions(self._table(name), self.state.global_step, columns)

    def _table(self, name: str) -> Path:
        return Path(str(self.args.output_dir)) / "completions" / f"{name}_{self.state.global_step:05d}.parquet"

    def save_policy(self, path: str | os.PathLike[str]) -> None:
        """Write the policy as a plain transformers folder with its tokenizer, an adapter merged into a copy."""
        if self.args.should_save:
            plain = merge_lora(copy.deepcopy(self.policy))
            plain.save_pretrained(path)
            self.processing_class.save_pretrained(path)  # type: ignore[union-attr]

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        if state_dict is not None:  # gathered from shards, under the names of the pair
            state_dict = {k.removeprefix("policy."): v for k, v in state_dict.items() if k.startswith("policy.")}
        self.policy.save_pretrained(folder, state_dict=state_dict)
        if self.value is not None:
            self.value.save_pretrained(folder / VALUE_FOLDER)
        self.processing_class.save_pretrained(folder)  # type: ignore[union-attr]
        torch.save(self.args, folder / TRAINING_ARGS_NAME)

    def _save_rng_state(self, output_dir: str) -> None:
        """Before `trainer_state.json`, which marks a checkpoint as whole."""
        super()._save_rng_state(output_dir)
        in_use = self._batch is not None and self.state.global_step % self.args.steps_per_iteration != 0
        if in_use:
            assert self._batch is not None
            save_rollouts(Path(output_dir) / buffer_file(self.args.process_index), self._batch)
        if self.args.should_save:
            counters = {"iteration": self._iteration, "answers_in_use": in_use}
            save_state(output_dir, {**counters, "kl_control": self.kl_control.state_dict()})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        state = load_state(folder)
        self._load_weights(folder)
        self.kl_control.load_state_dict(state["kl_control"])
        self._iteration, self._batch = state["iteration"], None
        if state["answers_in_use"]:
            self._batch = load_rollouts(folder / buffer_file(self.args.process_index), self.args.device)
        assert self.args.rollout_batch_size is not None
        self._clock = (time.monotonic(), (self._iteration + 1) * self.args.rollout_batch_size)

    def _load_best_model(self) -> None:
        self._load_weights(Path(str(self.state.best_model_checkpoint)))

    def _load_weights(self, folder: Path) -> None:
        load_policy(self.policy, folder)
        if self.value is not None:
            load_value(self.value, folder / VALUE_FOLDER)

    def _dump(self, inputs: RolloutBatch, loss: float) -> None:  # type: ignore[override]
        self._dumps += 1
        name = f"nonfinite_step_{self.state.global_step + 1}_rank_{self.args.process_index}.safetensors"
        save_rollouts(Path(str(self.args.output_dir)) / "debug" / name, inputs)
