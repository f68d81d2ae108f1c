"""IRFT: rounds of drawing answers and telling the demonstrations from them (arXiv 2405.17888, Alg. 2)."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, TrainerCallback

from rlsft.data.collators import DemonstrationCollator
from rlsft.errors import ConfigError
from rlsft.models import lm_head_of, load_causal_lm
from rlsft.objectives.pair_losses import mean_pair_loss
from rlsft.rollouts import RolloutEngine, TransformersEngine
from rlsft.trainers.base import encoded_eval
from rlsft.trainers.encoded import Rows
from rlsft.trainers.irft.advice import Advisor
from rlsft.trainers.irft.base import IRFTBase
from rlsft.trainers.irft.config import IRFTConfig
from rlsft.trainers.irft.maker import PairMaker
from rlsft.trainers.irft.optimizer import forget, schedule_per_round
from rlsft.trainers.irft.pairs import Demonstrations, encode_rows
from rlsft.trainers.irft.reference import Reference, answer_logprobs
from rlsft.trainers.irft.refresh import StepSignal
from rlsft.trainers.irft.rounds import Rounds
from rlsft.trainers.irft.schedule import IRFTSchedule
from rlsft.trainers.irft.state import RoundState
from rlsft.trainers.preparation import adapt, length_limit, tokenizer_for

# statistic of the pair losses -> our name, all means over pairs
LOGGED = ("accuracy", "margin", "rewards/real", "rewards/generated", "saturation")


class IRFTTrainer(IRFTBase):
    """Fine-tune a causal LM on demonstrations against its own answers.

    The reward of an answer is `beta * log(pi(answer) / pi_ref(answer))`. A round draws answers `z` to its prompts from
    the policy as it is, notes the log-probabilities of both sides under the reference, and takes K steps on
    `-log sigmoid(beta * (log-ratio of y - log-ratio of z))`, or on another loss of `loss_type`. With one round this is
    an iteration of SPIN (arXiv 2401.01335); with given pairs (`refresh="none"`) it is DPO (arXiv 2305.18290).

    Where the reference is the policy as the round begins, its log-probabilities are noted then, in the micro-batches of
    the training steps: no second copy of the weights, no second forward a step, and the first loss of each round is
    log 2. One `transformers.Trainer` runs over all rounds; a checkpoint in the middle of one holds its answers, so a
    run that is stopped anywhere goes on as if it had not been. Answers also go to `negatives/` as they are drawn.

    Args:
        model: a folder, or a loaded causal LM (with an adapter or without).
        args: settings; None = `IRFTConfig("irft")`.
        train_dataset: demonstrations as in `SFTTrainer`; with `refresh="none"` rows of `chosen` and `rejected`.
        eval_dataset: the same, or a dict of several.
        processing_class: the tokenizer; None = the one in the model's folder.
        compute_metrics: as in `SFTTrainer`, over the held-out demonstrations.
        callbacks: added to transformers' and our own.
        optimizers: optimizer and scheduler, or (None, None) for those of `args`.
        peft_config: a `peft.PeftConfig` or a mapping of LoRA fields; None = the `lora_*` fields when `use_peft`.
        engine: draws the answers; None = `TransformersEngine` on the policy.

    Raises:
        ConfigError, DataError, ModelError: see the message; nothing has been written then.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module,
        args: IRFTConfig | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | Mapping[str, Rows] | None = None,
        processing_class: Any = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
        engine: RolloutEngine | None = None,
    ):
        args = args or IRFTConfig("irft")
        tokenizer = tokenizer_for(model, processing_class)
        if not isinstance(model, nn.Module):
            model = load_causal_lm(model, dtype=args.dtype, attn_implementation=args.attn_implementation)
        policy = adapt(model, args, peft_config, "CAUSAL_LM")  # type: ignore[arg-type]
        lm_head_of(policy)  # says at once when the head is of a kind that the loss cannot use
        limit = _room_for_answers(args, length_limit(args.max_length, policy))

        def encoded(rows: Rows, name: str) -> Any:
            return encode_rows(rows, tokenizer, args, limit, name, pairs=args.refresh == "none")

        train = None if train_dataset is None else encoded(train_dataset, "train_dataset")
        held_out = encoded_eval(eval_dataset, encoded)
        schedule = None if train is None else IRFTSchedule.of(args, len(train))
        if schedule is not None and args.max_steps <= 0:
            args.max_steps = schedule.max_steps
        super().__init__(
            model=policy,
            args=args,
            data_collator=DemonstrationCollator(tokenizer.pad_token_id),
            train_dataset=train,
            eval_dataset=held_out,
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.maker = self._maker(policy, engine)
        self.advisor = Advisor(args)
        self.held_out_data = {name: Demonstrations(rows) for name, rows in _by_name(held_out).items()}
        if train is not None:
            data = Demonstrations(train)
            self.rounds = Rounds(args, data, self.held_out_data, self.maker, self.advisor, self.stats)
        self._step_sums = torch.zeros(4, dtype=torch.float64)  # pairs, right ones, nats, answers of known generator
        self._unfinished = False

    def _maker(self, policy: nn.Module, engine: RolloutEngine | None) -> PairMaker:
        args = self.args
        if engine is None:
            engine = TransformersEngine(policy, self.processing_class, batch_size=args.generation_batch_size)
        return PairMaker(
            args, policy, Reference(policy, args), engine, self.processing_class,
            autocast=self.accelerator.autocast, gather=gather_object,
            rank=args.process_index, num_ranks=args.world_size,
        )  # fmt: skip

    # ---- rounds -------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """See `RlsftTrainer.train`; what the settings alone tell is said first."""
        if self.rounds is not None:
            self.rounds.state = RoundState()
            self.advisor.before_training(max(self.rounds.schedule.round_lengths()))
        return super().train(resume_from_checkpoint, **kwargs)

    def get_train_dataloader(self) -> DataLoader:
        """Micro-batch numbers: transformers counts steps and epochs with it; the rows come from the schedule."""
        if self.rounds is None:
            raise ConfigError("train_dataset is missing: IRFT needs demonstrations to train on")
        numbers = range(self.rounds.schedule.steps_of_epoch(0) * self.args.gradient_accumulation_steps)
        return DataLoader(numbers, batch_size=1, collate_fn=_first)  # type: ignore[arg-type]

    def get_batch_samples(  # type: ignore[override]
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Tensor]], Tensor | None]:
        """The micro-batches of one optimizer step, and its pairs over all ranks."""
        assert self.rounds is not None
        for _ in itertools.islice(epoch_iterator, num_batches):
            pass
        self.finish_step()
        began = self.rounds.begin_if_due(self.state.global_step)
        if began and self.rounds.state.number > 0 and self.args.optimizer_per_round == "restart":
            forget(self.optimizer)
        batches, num_pairs = self.rounds.batches(self.state.global_step)
        real = [batch["attention_mask"].sum() * batch["counted"].any() for batch in batches]
        tokens = torch.stack(real).sum().to(device)
        self.state.num_input_tokens_seen += int(self.accelerator.reduce(tokens, "sum"))
        self._unfinished = True
        return batches, torch.tensor(num_pairs, device=device)

    # ---- learning -----------------------------------------------------------------------------------------

    def compute_loss(  # type: ignore[override]
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Pair loss of a micro-batch over `num_items_in_batch` pairs, and the demonstrations' NLL by `sft_coef`.

        This is `rlsft_kernels.linear_pair_loss` in its two halves, because the sums of each answer between them are
        needed for the KL, the NLL term and the losses of users.
        """
        args, counted = self.args, inputs["counted"]
        budget = args.logits_memory_mb * 2**20
        sums = answer_logprobs(model, inputs, temperature=self._temperature, memory_budget=budget)
        real, generated = self._log_ratios(sums, inputs)
        items = counted.sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        loss, stats = mean_pair_loss(
            args.loss_type, real, generated, beta=args.beta, offset=args.offset,
            label_smoothing=args.label_smoothing, nce_mu=args.nce_mu, mask=counted, normalizer=items,
        )  # fmt: skip
        self.stats.add("loss/pair", stats["loss"].double() * stats["count"], stats["count"])
        if args.sft_coef:
            nll = -sums[: len(counted)]
            if args.normalize_length:
                nll = nll / inputs["completion_mask"][: len(counted)].sum(dim=1)
            loss = loss + args.sft_coef * torch.where(counted, nll, 0.0).sum() / items
        self._watch_step(stats, sums.detach(), inputs)
        if num_items_in_batch is not None:
            loss = self.scale_loss(loss)
        return (loss, {}) if return_outputs else loss

    def _watch_step(self, stats: Mapping[str, Tensor], sums: Tensor, inputs: Mapping[str, Tensor]) -> None:
        count = stats["count"].double()
        for name in LOGGED:
            if name in stats:
                self.stats.add(name, stats[name].double() * count, count)
        real, generated = torch.where(inputs["counted"], sums.view(2, -1).double(), 0.0).sum(dim=1).unbind()
        self.stats.add("logps/real", real, count)
        self.stats.add("logps/generated", generated, count)
        known = inputs["counted"] & inputs["generator_sums"].isfinite()
        nats = torch.where(known, inputs["generator_sums"] - sums[len(known) :], 0.0).double().sum()
        self.stats.add("kl/generator", nats, known.sum())
        right = stats["accuracy"].double() * count
        self._step_sums = self._step_sums.to(sums.device) + torch.stack([count, right, nats, known.sum().double()])

    def finish_step(self) -> None:
        """Note accuracy and KL of the step that was just made, where the schedule of rounds depends on them."""
        if self._unfinished and self.args.refresh == "adaptive":
            count, right, nats, known = self.accelerator.reduce(self._step_sums, "sum").tolist()
            signal = StepSignal(right / max(count, 1), nats / known if known else float("nan"))
            state = self.rounds.state  # type: ignore[union-attr]
            state.signals = [*state.signals, signal][-self.args.adaptive_window :]
        self._unfinished = False
        self._step_sums = torch.zeros(4, dtype=torch.float64)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """transformers' schedule over the run, or one a round where the length of a round is known beforehand."""
        restarts = self.args.optimizer_per_round == "restart"
        if self.lr_scheduler is None and self.rounds is not None and restarts:
            schedule = self.rounds.schedule
            if schedule.refresh.has_fixed_rounds:
                optimizer = optimizer or self.optimizer  # type: ignore[assignment]
                self.lr_scheduler = schedule_per_round(optimizer, self.args, schedule.round_lengths())  # type: ignore[arg-type]
                self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)


def _room_for_answers(args: IRFTConfig, limit: int) -> int:
    """`limit`, when a prompt and a drawn answer fit in it.

    Raises:
        ConfigError: they do not.
    """
    if args.refresh != "none" and args.max_completion_length >= limit:
        raise ConfigError(
            f"max_completion_length={args.max_completion_length} leaves no room for a prompt within {limit} tokens "
            "(max_length, or the model's context)"
        )
    return limit


def _first(rows: Sequence[int]) -> int:
    return rows[0]


def _by_name(held_out: Any) -> dict[str, Any]:
    if held_out is None:
        return {}
    return dict(held_out) if isinstance(held_out, Mapping) else {"": held_out}
