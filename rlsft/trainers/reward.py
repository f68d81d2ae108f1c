"""Reward-model training on pairs: Bradley-Terry, one forward for both sides, calibration on held-out pairs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EvalPrediction, TrainerCallback

from rlsft.data.collators import PairCollator
from rlsft.data.encoding import encode_pair
from rlsft.errors import DataError
from rlsft.metrics.calibration import mean_margin, pair_calibration, reward_accuracy
from rlsft.objectives import bounded_rewards, divergence_losses, pair_losses
from rlsft.rewards import RewardModel, pooled_scores, split_by_prompt, token_scores
from rlsft.rewards.model import SEQ_CLS, classification_config, safe_pad_token
from rlsft.rewards.pooling import classifier_of, last_real_token
from rlsft.trainers.base import RlsftTrainer, encoded_eval
from rlsft.trainers.encoded import Rows, encode_dataset
from rlsft.trainers.preparation import adapt, length_limit, tokenizer_for
from rlsft.trainers.reward_config import RewardConfig
from rlsft_kernels import pairwise_reward_loss

__all__ = ["RewardConfig", "RewardTrainer", "split_by_prompt"]

ENCODED_COLUMNS = ("chosen_input_ids", "rejected_input_ids")
SATURATED = 0.98  # a pair that the reward model is surer of than this teaches next to nothing


class RewardTrainer(RlsftTrainer):
    """Train a reward model on pairs of a better and a worse answer.

    Loss (Bradley-Terry): `-mean log sigmoid(r_chosen - r_rejected - margin) + c * mean (r_chosen +
    r_rejected)^2` over the pairs of an optimizer step. Rewards are read at the last real token, the end token
    included. `pair_loss`, `reward_bound` and `reward_span` choose the losses of RFT (arXiv 2405.17888). A column
    `weight` multiplies the loss of its pair; the sum is still divided by the number of pairs.

    Args:
        model: a folder (reward model, causal LM or encoder; a missing head is new), a `RewardModel`, or a
            loaded sequence-classification model with one label.
        args: settings; None = `RewardConfig("reward")`.
        train_dataset: rows of `prompt`, `chosen`, `rejected` (strings or chat lists; the prompt may stand
            inside both lists) and perhaps `margin` and `weight`; or rows of `chosen_input_ids` + `rejected_input_ids`.
        eval_dataset: the same, or a dict of several; `evaluate()` gives `eval_loss`, `eval_accuracy`,
            `eval_margin`, `eval_{min,mean,max}_reward`, `eval_ece` and `eval_brier` of `sigmoid(margin)`, and
            `eval_saturation`, the share of pairs with `sigmoid(margin)` above 0.98.
        processing_class: the tokenizer; None = the one in the model's folder.
        compute_metrics: called with rewards `[N, 2]` (chosen, rejected) as predictions, and zeros `[N]` (the
            better column) as labels.
        callbacks: added to transformers' and our own.
        optimizers: optimizer and scheduler, or (None, None) for those of `args`.
        peft_config: a `peft.PeftConfig` or a mapping of LoRA fields; None = the `lora_*` fields when
            `use_peft`.

    Raises:
        ConfigError, DataError, ModelError: see the message; nothing has been written then.
    """

    stage = "reward"
    args: RewardConfig

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module,
        args: RewardConfig | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | Mapping[str, Rows] | None = None,
        processing_class: Any = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
    ):
        args = args or RewardConfig("reward")
        backbone = model.backbone if isinstance(model, RewardModel) else model
        tokenizer = tokenizer_for(backbone, processing_class)
        if not isinstance(backbone, nn.Module):
            backbone = RewardModel.from_pretrained(
                backbone, dtype=args.dtype, attn_implementation=args.attn_implementation, seed=args.seed
            ).backbone
        classifier_of(backbone)
        if args.reward_bound is not None:
            RewardModel(backbone).set_bound(args.reward_bound)
        if peft_config is not None:
            peft_config = classification_config(peft_config)
        backbone = adapt(backbone, args, peft_config, SEQ_CLS)
        limit = length_limit(args.max_length, classifier_of(backbone))

        def encoded(rows: Rows, name: str) -> Any:
            return encode_pairs(rows, tokenizer, args, limit, name)

        super().__init__(
            model=backbone,
            args=args,
            data_collator=PairCollator(tokenizer.pad_token_id, args.padding_side, args.pad_to_multiple_of),
            train_dataset=None if train_dataset is None else encoded(train_dataset, "train_dataset"),
            eval_dataset=encoded_eval(eval_dataset, encoded),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
        )

    @property
    def reward_model(self) -> RewardModel:
        """The model being trained, ready to score; it shares the weights."""
        return RewardModel(unwrapped(self))

    def count_items(self, batch: dict[str, Tensor]) -> Tensor:
        tokens = batch["chosen_attention_mask"].sum() + batch["rejected_attention_mask"].sum()
        return torch.stack([torch.tensor(len(batch["chosen_input_ids"]), device=tokens.device), tokens])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """The pairwise loss of the batch, weighted by its share of the `num_items_in_batch` pairs of the step."""
        losses, chosen, rejected = self.pairs_of(model, inputs)
        loss = losses.mean() if losses.ndim else losses
        self._watch(chosen.detach(), rejected.detach())
        if num_items_in_batch is not None:
            loss = self.scale_loss(loss * len(chosen) / num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def pairs_of(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of the pairs [B], times their weights, or their mean as a 0-d tensor; and both rewards [B]."""
        weight = inputs.get("weight")
        if self.args.reward_span == "divergence":
            losses, chosen, rejected = self._token_pairs(model, inputs)
        else:
            chosen, rejected = self.both_rewards(model, inputs)
            if self.args.pair_loss == "logistic" and weight is None:  # the fused op knows this one
                return self.pair_loss(chosen, rejected, inputs.get("margin"))[0], chosen, rejected
            losses = self.losses_of(chosen, rejected, inputs.get("margin"))
        return (losses if weight is None else losses * weight), chosen, rejected

    def both_rewards(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Rewards [B] of both sides from one forward over the 2B sequences."""
        ids, mask = both_sides(inputs)
        with self.accelerator.autocast():
            scores = pooled_scores(model, ids, mask)
        chosen, rejected = bounded_rewards(scores, self._bound()).chunk(2)
        return chosen, rejected

    def _token_pairs(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Losses [B] over the tokens from the divergence on, and both rewards [B] at the last token."""
        if "chosen_completion_mask" not in inputs:
            raise DataError(
                "reward_span='divergence' must know where answers begin: encoded rows need the columns "
                "chosen_completion_mask and rejected_completion_mask (encode_pair writes them)"
            )
        ids, mask = both_sides(inputs)
        with self.accelerator.autocast():
            scores_BT = bounded_rewards(token_scores(model, ids, mask), self._bound())
        chosen_BT, rejected_BT = scores_BT.chunk(2)
        losses = divergence_losses(
            chosen_BT,
            rejected_BT,
            inputs["chosen_input_ids"],
            inputs["rejected_input_ids"],
            inputs["chosen_completion_mask"],
            inputs["rejected_completion_mask"],
            margin=inputs.get("margin"),
            kind=self.args.pair_loss,
            center_coef=self.args.center_rewards_coefficient or 0.0,
        )
        chosen, rejected = scores_BT.gather(1, last_real_token(mask)[:, None])[:, 0].chunk(2)
        return losses, chosen, rejected

    def _bound(self) -> float | None:
        return RewardModel(unwrapped(self)).bound

    def pair_loss(self, chosen: Tensor, rejected: Tensor, margin: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean pairwise loss with the settings of this run."""
        center = self.args.center_rewards_coefficient or 0.0
        return pairwise_reward_loss(chosen, rejected, margin=margin, center_coef=center)

    def losses_of(self, chosen: Tensor, rejected: Tensor, margin: Tensor | None) -> Tensor:
        """Loss of each pair [B] on the rewards at the last token, with the settings of this run."""
        center = self.args.center_rewards_coefficient or 0.0
        return pair_losses(chosen, rejected, margin=margin, kind=self.args.pair_loss, center_coef=center)

    def _watch(self, chosen: Tensor, rejected: Tensor) -> None:
        both = torch.cat([chosen, rejected])
        self.stats.add("accuracy", (chosen > rejected).sum() + 0.5 * (chosen == rejected).sum(), len(chosen))
        self.stats.add("margin", (chosen - rejected).sum(), len(chosen))
        self.stats.add("saturation", ((chosen - rejected).sigmoid() > SATURATED).sum(), len(chosen))
        self.stats.add("mean_reward", both.sum(), len(both))
        self.stats.add_range("min_reward", "max_reward", both)

    def evaluation_rows(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Chosen reward, rejected reward and weighted loss of every pair."""
        if self.args.reward_span == "divergence":
            losses, chosen, rejected = self._token_pairs(model, inputs)
        else:
            chosen, rejected = (rewards.double() for rewards in self.both_rewards(model, inputs))
            losses = self.losses_of(chosen, rejected, inputs.get("margin"))
        losses = losses * inputs.get("weight", torch.ones_like(losses))
        rows_BK = torch.stack([chosen.double(), rejected.double(), losses.double()], dim=1)
        return rows_BK, rows_BK[:, :2], torch.zeros_like(chosen, dtype=torch.int64)

    def metrics_of_rows(self, rows: np.ndarray) -> dict[str, float]:
        rewards = rows[:, :2]
        metrics = {
            "loss": float(rows[:, 2].mean()),
            "min_reward": float(rewards.min()),
            "mean_reward": float(rewards.mean()),
            "max_reward": float(rewards.max()),
        }
        if not np.isfinite(rewards).all():
            return metrics | dict.fromkeys(("accuracy", "margin", "ece", "brier", "saturation"), float("nan"))
        sides = (rows[:, 0], rows[:, 1])
        calibration = pair_calibration(*sides)
        return metrics | {
            "accuracy": reward_accuracy(*sides),
            "margin": mean_margin(*sides),
            "saturation": float(
                (torch.from_numpy(rewards[:, 0] - rewards[:, 1]).sigmoid() > SATURATED).double().mean()
            ),
            "ece": calibration.ece,
            "brier": calibration.brier,
        }

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write model and tokenizer; without a pad token in the config where it is the end token (see RewardModel)."""
        with safe_pad_token(unwrapped(self)):
            super().save_model(output_dir, _internal_call=_internal_call)


def both_sides(inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Ids and attention mask [2B, T]: the chosen answers, then the rejected ones."""
    ids, mask = (
        torch.cat([inputs[f"chosen_{name}"], inputs[f"rejected_{name}"]]) for name in ("input_ids", "attention_mask")
    )
    return ids, mask


def encode_pairs(rows: Rows, tokenizer: Any, args: RewardConfig, max_length: int, name: str) -> Any:
    """`rows` as `chosen_input_ids` + `rejected_input_ids` (+ `margin`), ready for the collator."""

    def encode_row(row: Mapping[str, Any]) -> dict[str, Any]:
        return encode_pair(
            row,
            tokenizer,
            max_length=max_length,
            system_prompt=args.system_prompt,
            truncate_prompt=args.truncate_prompt,
        )

    return encode_dataset(
        rows,
        encode_row,
        name=name,
        encoded_columns=ENCODED_COLUMNS,
        num_proc=args.dataset_num_proc,
        show_progress=args.shows_progress,
    )


def unwrapped(trainer: RlsftTrainer) -> Any:
    """The trainer's model without the wrappers of data parallelism; an adapter stays."""
    return trainer.accelerator.unwrap_model(trainer.model)
