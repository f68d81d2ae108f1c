"""PPO on a learned reward, with the KL to a reference policy (arXiv 1707.06347, 2402.18284)."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from rlsft.errors import ConfigError
from rlsft.models import disable_dropout, lm_head_of
from rlsft.rollouts import RolloutBatch, RolloutEngine
from rlsft.trainers.ppo.actor_critic import ActorCritic, PolicyOutputs
from rlsft.trainers.ppo.base import PPOBase
from rlsft.trainers.ppo.building import experience_maker, kl_controller, loaded
from rlsft.trainers.ppo.config import PPOConfig
from rlsft.trainers.ppo.guard import RatioGuard, check_same_policy
from rlsft.trainers.ppo.losses import apa_regression_loss, clipped_loss
from rlsft.trainers.ppo.metrics import KLWatch, add_rollout_metrics, add_update_metrics
from rlsft.trainers.ppo.prompts import PromptRows, eval_rows
from rlsft.trainers.ppo.reference import Reference
from rlsft.trainers.ppo.rollout import Rollouts, forward_inputs
from rlsft.trainers.ppo.schedule import PPOSchedule
from rlsft.trainers.ppo.shaping import token_kl
from rlsft.trainers.ppo.value import ValueModel, value_model_for
from rlsft.trainers.preparation import adapt, length_limit, tokenizer_for


class PPOTrainer(PPOBase):
    """Improve a causal LM on a reward, close to a reference.

    An iteration draws answers, scores them and takes `num_ppo_epochs * num_mini_batches` optimizer steps on them.
    Every optimizer step is one `global_step`, so schedules, logging, saving and callbacks work as in any trainer of
    transformers. Checkpoints hold policy, value model, optimizer, KL controller and the answers in use: a run that
    is stopped anywhere resumes as if it had not been.

    `trainer.model` is policy and value model together; `trainer.policy` is the policy, `trainer.value` the value
    model. `save_model` writes the policy as it is trained (an adapter stays one) and `value_model/`; `save_policy`
    writes a plain transformers folder with the adapter merged.

    Args:
        model: a folder, or a loaded causal LM (with an adapter or without).
        args: settings; None = `PPOConfig("ppo")`.
        reward_model: a `RewardModel`, an `ImplicitReward`, or the folder of one; a callable `list[(prompt, completion)]
            -> floats`; or a list of reward functions with TRL's signature. An `ImplicitReward` with
            `token_level=True` rewards each token where it stands.
        ref_model: the reference of the KL; None = the policy as it is now (below a fresh adapter, or a copy).
        value_model: a `ValueModel`, its folder, or a transformers model that becomes a separate one; None = as
            `args.value_model` says.
        train_dataset: rows with a `prompt` (string or chat list); other columns reach the reward functions.
        eval_dataset: the same, or a dict of several, for `evaluate()`.
        processing_class: the tokenizer; None = the one in the model's folder.
        compute_metrics: called by `evaluate()` with the `Rollouts` of the held-out prompts.
        callbacks: added to transformers' and our own.
        optimizers: optimizer and scheduler, or (None, None) for those of `args`.
        peft_config: a `peft.PeftConfig` or a mapping of LoRA fields; None = the `lora_*` fields when `use_peft`.
        engine: draws the answers; None = `TransformersEngine` on the policy.
        reward_processing_class: the reward model's tokenizer; None = the policy's.

    Raises:
        ConfigError, DataError, ModelError: see the message; nothing has been written then.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module,
        args: PPOConfig | None = None,
        reward_model: Any = None,
        ref_model: str | os.PathLike[str] | nn.Module | None = None,
        value_model: ValueModel | str | os.PathLike[str] | nn.Module | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Callable[[Rollouts], dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
        engine: RolloutEngine | None = None,
        reward_processing_class: Any = None,
    ):
        args = args or PPOConfig("ppo")
        if reward_model is None:
            raise ConfigError("reward_model is missing: PPO needs a RewardModel, its folder, or reward functions")
        tokenizer = tokenizer_for(model, processing_class)
        policy = loaded(model, args)
        value = value_model_for(policy, value_model, kind=None if args.advantage == "rloo" else args.value_model)
        policy = adapt(policy, args, peft_config, "CAUSAL_LM")
        lm_head_of(policy)  # says at once when the head is of a kind that the loss cannot use
        if value is not None and args.disable_dropout:
            disable_dropout(value)
        max_length = length_limit(args.max_length, policy)
        if args.max_completion_length >= max_length:
            raise ConfigError(
                f"max_completion_length={args.max_completion_length} leaves no room for a prompt within {max_length} "
                "tokens (max_length, or the model's context)"
            )
        train_rows = None if train_dataset is None else PromptRows(train_dataset, "train_dataset")
        self.schedule = None if train_rows is None else PPOSchedule.of(args, len(train_rows))
        if self.schedule is not None and args.max_steps <= 0:
            args.max_steps = self.schedule.max_steps
        actor_critic = ActorCritic(policy, value, args.logits_memory_mb * 2**20)
        reference = Reference(policy, None if ref_model is None else loaded(ref_model, args))
        super().__init__(
            model=actor_critic,
            args=args,
            data_collator=lambda rows: rows[0],
            train_dataset=train_rows,  # type: ignore[arg-type]
            eval_dataset=eval_rows(eval_dataset),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,  # type: ignore[arg-type]
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.maker = experience_maker(
            args, actor_critic, reference, tokenizer, max_length,
            reward=reward_model, reward_tokenizer=reward_processing_class, engine=engine, accelerator=self.accelerator,
        )  # fmt: skip
        self.kl_control = kl_controller(args)
        self._kl_watch = KLWatch()
        self._checked_ratio = False
        self._step_ratio = torch.zeros(2)  # sum of the ratios of a step, and their number

    def _install_callbacks(self) -> None:
        self.ratio_guard = RatioGuard(self._mean_ratio, self.args.ratio_threshold)
        self.add_callback(self.ratio_guard)
        super()._install_callbacks()

    def get_train_dataloader(self) -> DataLoader:
        """Micro-batch numbers: transformers counts steps and epochs with it; the rows come from the schedule."""
        if self.schedule is None:
            raise ConfigError("train_dataset is missing: PPO needs prompts to train on")
        steps = self.schedule.iterations_per_epoch * self.args.steps_per_iteration
        numbers = range(steps * self.args.gradient_accumulation_steps)
        return DataLoader(numbers, batch_size=1, collate_fn=self.data_collator)  # type: ignore[arg-type]

    def get_batch_samples(  # type: ignore[override]
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[RolloutBatch], Tensor | None]:
        """The micro-batches of one optimizer step, and its action tokens over all ranks."""
        assert self.schedule is not None
        for _ in itertools.islice(epoch_iterator, num_batches):
            pass
        iteration, step = divmod(self.state.global_step, self.args.steps_per_iteration)
        batch = self._answers_of(iteration)
        parts = [batch.select(rows.to(device)) for rows in self.schedule.micro_batches(iteration, step)]
        counts = torch.tensor([[int(part.completion_mask.sum()), int(part.attention_mask.sum())] for part in parts])
        items, tokens = self.accelerator.reduce(counts.sum(dim=0).to(device), "sum")
        self.state.num_input_tokens_seen += int(tokens)
        self._step_ratio = torch.zeros(2, device=device)
        return parts, items

    def _answers_of(self, iteration: int) -> RolloutBatch:
        """The answers that this iteration learns from; drawn when it begins."""
        if self._batch is None or self._iteration != iteration:
            self._batch, self._iteration = self._new_answers(iteration), iteration
        return self._batch

    def _new_answers(self, iteration: int) -> RolloutBatch:
        args, schedule = self.args, self.schedule
        assert schedule is not None
        self._maybe_show_generations(iteration)
        indices = schedule.prompt_indices(iteration)
        share = len(indices) // args.world_size
        mine = range(args.process_index * share, (args.process_index + 1) * share)
        begun = time.monotonic()
        rollouts = self.maker.draw(
            self.train_dataset.take([indices[i] for i in mine]),  # type: ignore[union-attr]
            self.maker.sampling(self._sampling_seed(iteration), mine.start),
            args.samples_per_prompt,
        )
        seconds = time.monotonic() - begun
        batch = self.maker.score_policy(
            rollouts.batch, schedule.scoring_batches(iteration, args.local_rollout_forward_batch_size)
        )
        if iteration == 0 and args.disable_dropout and self.maker.reference.equals_policy:
            old_logprobs, ref_logprobs = batch.need("old_logprobs", "ref_logprobs")
            check_same_policy("kl", old_logprobs, ref_logprobs, batch.completion_mask, self._dtype())
        kl_coef = self.kl_control.value
        # APA's regression holds the KL itself: in the reward it would count twice
        batch = self.maker.shape_rewards(batch, 0.0 if args.policy_loss == "apa" else kl_coef)
        rollouts = Rollouts(batch, rollouts.answers, rollouts.by_reward)
        add_rollout_metrics(self.stats, rollouts, kl_coef, args.samples_per_prompt)
        self.stats.add("perf/tokens_per_second", batch.lengths.sum(), seconds)
        self._steer_kl(batch)
        if args.log_completions:
            self._write_table("completions", rollouts)
        return batch

    def _steer_kl(self, batch: RolloutBatch) -> None:
        mean_kl = float(self.accelerator.gather(token_kl(batch, "k1").sum(dim=1)).mean())
        self._kl_watch.check(mean_kl)
        assert self.args.rollout_batch_size is not None
        self.kl_control.update(mean_kl, self.args.rollout_batch_size)

    def compute_loss(  # type: ignore[override]
        self,
        model: nn.Module,
        inputs: RolloutBatch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Policy and value loss of a micro-batch over `num_items_in_batch` action tokens."""
        out: PolicyOutputs = model(**forward_inputs(inputs))
        self._check_first_ratio(out, inputs)
        normalizer = None if num_items_in_batch is None else num_items_in_batch.clamp(min=1)
        loss_of = apa_regression_loss if self.args.policy_loss == "apa" else clipped_loss
        loss, stats = loss_of(out, inputs, self.args, normalizer)
        add_update_metrics(self.stats, stats)
        self._step_ratio += torch.stack([stats["ratio_mean"] * stats["count"], stats["count"]]).float()
        if num_items_in_batch is not None:
            loss = self.scale_loss(loss)
        return (loss, {}) if return_outputs else loss

    def _check_first_ratio(self, out: PolicyOutputs, batch: RolloutBatch) -> None:
        if self._checked_ratio:
            return
        self._checked_ratio = True
        if self.state.global_step == 0 and self.args.disable_dropout:
            (old_logprobs,) = batch.need("old_logprobs")
            check_same_policy("ratio", out.logprobs.detach(), old_logprobs, batch.completion_mask, self._dtype())

    def _mean_ratio(self) -> float:
        """Over the action tokens of the step, however it is cut up."""
        total, count = self.accelerator.reduce(self._step_ratio, "sum")
        return float(total / count.clamp(min=1))

    def _dtype(self) -> torch.dtype:
        """In which the policy computes."""
        return torch.bfloat16 if self.accelerator.mixed_precision != "no" else next(self.policy.parameters()).dtype

    def floating_point_ops(self, inputs: RolloutBatch) -> int:  # type: ignore[override]
        """Six operations a parameter and token, as transformers counts them."""
        return 6 * inputs.input_ids.numel() * self.policy.num_parameters(exclude_embeddings=True)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """transformers' optimizer, with the value model in groups of its own where it has its own learning rate."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new and self.args.value_learning_rate is not None and self.value is not None:
            of_value = {id(parameter) for parameter in self.value.parameters()}
            for group in list(optimizer.param_groups):
                theirs = [p for p in group["params"] if id(p) in of_value]
                if theirs:
                    group["params"] = [p for p in group["params"] if id(p) not in of_value]
                    optimizer.add_param_group({**group, "params": theirs, "lr": self.args.value_learning_rate})
        return optimizer

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what PPO counts to a training row, then log as transformers does; NaN is left out."""
        if "loss" in logs:
            assert self.args.rollout_batch_size is not None
            logs |= self.stats.reduce(self.accelerator)
            episode = (self._iteration + 1) * self.args.rollout_batch_size
            begun, first = self._clock
            elapsed = max(time.monotonic() - begun, 1e-9)
            logs |= {"lr": logs["learning_rate"], "episode": episode, "eps": (episode - first) / elapsed}
            if self.ratio_guard.skipped:
                logs["skipped_ratio_steps"] = self.ratio_guard.skipped
            if torch.cuda.is_available():
                logs["memory/peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        for name in [name for name, value in logs.items() if isinstance(value, float) and not math.isfinite(value)]:
            del logs[name]
        super().log(logs, start_time)
