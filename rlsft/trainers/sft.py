"""Supervised fine-tuning on demonstrations: cross-entropy of the completion, logits never built."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import EvalPrediction, TrainerCallback

from rlsft.data.collators import DemonstrationCollator
from rlsft.data.encoding import encode_demonstration
from rlsft.models import completion_logprobs, hidden_states, lm_head_of, load_causal_lm
from rlsft.trainers.arguments import RlsftArguments, one_of
from rlsft.trainers.base import RlsftTrainer, encoded_eval
from rlsft.trainers.encoded import Rows, encode_dataset
from rlsft.trainers.preparation import adapt, length_limit, tokenizer_for
from rlsft_kernels import linear_cross_entropy

IGNORED = -100  # transformers' label of a position without a loss


@dataclass
class SFTConfig(RlsftArguments):
    """Settings of `SFTTrainer`; names and defaults are TRL's where it has them."""

    learning_rate: float = field(default=2e-5, metadata={"help": "Peak learning rate of AdamW. LoRA likes 2e-4."})
    completion_only_loss: bool = field(
        default=True,
        metadata={"help": "Train the completion only. Off: the prompt too, from its second token on."},
    )
    loss_type: Literal["nll", "dft"] = field(
        default="nll",
        metadata={
            "help": "nll: cross-entropy. dft: each token's cross-entropy times its own probability, held constant "
            "(dynamic fine-tuning, arXiv 2508.05629). eval_loss is the cross-entropy either way, so that runs compare."
        },
    )
    padding_side: Literal["right", "left"] = field(
        default="right", metadata={"help": "Where batches are padded; it changes no result."}
    )
    pad_to_multiple_of: int | None = field(
        default=None,
        metadata={"help": "Pad batches to a multiple of so many tokens. Unset: to the longest row."},
    )

    def __post_init__(self) -> None:
        one_of("padding_side", self.padding_side, ("right", "left"))
        one_of("loss_type", self.loss_type, ("nll", "dft"))
        super().__post_init__()


class SFTTrainer(RlsftTrainer):
    """Fine-tune a causal LM on demonstrations.

    Loss: `-sum w log p(token) / n` over the `n` trained tokens of an optimizer step, all micro-batches and
        ranks together; `w` is the row's `weight`, 1 without such a column. The end-of-turn token is trained;
        masks come from lengths, so pad may equal the end token. With `loss_type="dft"` each token's term is
        weighted by its probability, `-sum w sg(p) log p / n` (arXiv 2508.05629); training rows then carry the
        plain cross-entropy as `nll`.

    Args:
        model: a folder, or a loaded causal LM (with an adapter or without).
        args: settings; None = `SFTConfig("sft")`.
        train_dataset: rows of `prompt` + `completion`, `messages` or `text` (strings or chat lists), as a
            `datasets.Dataset` or a list of dicts; or rows of `input_ids` + `completion_mask`. A column `weight`
            multiplies the loss of its row; evaluation and the other statistics leave it out.
        eval_dataset: the same, or a dict of several; `evaluate()` gives `eval_loss` (mean over trained
            tokens), `eval_mean_token_accuracy`, `eval_entropy`, `eval_perplexity`.
        processing_class: the tokenizer; None = the one in the model's folder.
        compute_metrics: called with log-probabilities `[N, T]` of the labels as predictions, and labels `[N,
            T]` that are -100 outside the trained tokens.
        callbacks: added to transformers' and our own.
        optimizers: optimizer and scheduler, or (None, None) for those of `args`.
        peft_config: a `peft.PeftConfig` or a mapping of LoRA fields; None = the `lora_*` fields when
            `use_peft`.

    Raises:
        ConfigError, DataError, ModelError: see the message; nothing has been written then.
    """

    stage = "sft"
    args: SFTConfig

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module,
        args: SFTConfig | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | Mapping[str, Rows] | None = None,
        processing_class: Any = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        peft_config: Any = None,
    ):
        args = args or SFTConfig("sft")
        tokenizer = tokenizer_for(model, processing_class)
        if not isinstance(model, nn.Module):
            model = load_causal_lm(model, dtype=args.dtype, attn_implementation=args.attn_implementation)
        policy = adapt(model, args, peft_config, "CAUSAL_LM")  # type: ignore[arg-type]
        lm_head_of(policy)  # says at once when the head is of a kind that the loss cannot use
        limit = length_limit(args.max_length, policy)

        def encoded(rows: Rows, name: str) -> Any:
            return encode_demonstrations(rows, tokenizer, args, limit, name)

        super().__init__(
            model=policy,
            args=args,
            data_collator=DemonstrationCollator(tokenizer.pad_token_id, args.padding_side, args.pad_to_multiple_of),
            train_dataset=None if train_dataset is None else encoded(train_dataset, "train_dataset"),
            eval_dataset=encoded_eval(eval_dataset, encoded),
            processing_class=tokenizer,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
        )

    def count_items(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.stack([trained_tokens(batch).sum(), batch["attention_mask"].sum()])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Cross-entropy of the trained tokens over `num_items_in_batch`; only their hidden states meet the head."""
        input_ids, trained_BT = inputs["input_ids"], trained_tokens(inputs)
        hidden_BTH = hidden_states(model, input_ids, inputs["attention_mask"])
        head = lm_head_of(model)
        num_tokens = trained_BT.sum()
        weight = inputs.get("weight")
        normalizer = num_tokens if num_items_in_batch is None else num_items_in_batch
        loss, stats = linear_cross_entropy(
            hidden_BTH[:, :-1],  # the state at t-1 predicts the token at t
            head.weight.to(hidden_BTH.dtype),
            input_ids.masked_fill(~trained_BT, IGNORED)[:, 1:],
            bias=None if head.bias is None else head.bias.to(hidden_BTH.dtype),
            ignore_index=IGNORED,
            softcap=head.softcap,
            logit_scale=head.logit_scale,
            normalizer=normalizer.clamp(min=1),
            token_weights=None if weight is None else weight[:, None].expand_as(input_ids[:, 1:]),
            kind=self.args.loss_type,
        )
        self._watch(stats, num_tokens)
        if num_items_in_batch is not None:
            loss = self.scale_loss(loss)
        return (loss, {}) if return_outputs else loss

    def _watch(self, stats: Mapping[str, Tensor], num_tokens: Tensor) -> None:
        self.stats.add("entropy", stats["entropy"] * num_tokens, num_tokens)
        self.stats.add("mean_token_accuracy", stats["accuracy"] * num_tokens, num_tokens)
        if self.args.loss_type != "nll":  # the loss itself says it otherwise
            self.stats.add("nll", stats["sum_nll"], num_tokens)

    def evaluation_rows(self, model: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Sums a row: negative log-likelihood, right tokens, entropy, and the number of trained tokens."""
        trained_BT = trained_tokens(inputs)
        scored = completion_logprobs(
            model,
            inputs["input_ids"],
            inputs["attention_mask"],
            trained_BT,
            outputs=("logprob", "entropy", "is_top1"),
        )
        logprob, entropy, is_top1 = (torch.as_tensor(x) for x in (scored.logprob, scored.entropy, scored.is_top1))
        columns = (-logprob, is_top1, entropy, trained_BT)
        rows_BK = torch.stack([column.double().sum(dim=1) for column in columns], dim=1)
        return rows_BK, logprob, inputs["input_ids"].masked_fill(~trained_BT, IGNORED)

    def metrics_of_rows(self, rows: np.ndarray) -> dict[str, float]:
        nll, right, entropy, count = rows.sum(axis=0) / max(rows[:, 3].sum(), 1.0)
        if count == 0:
            return dict.fromkeys(("loss", "mean_token_accuracy", "entropy", "perplexity"), float("nan"))
        return {
            "loss": float(nll),
            "mean_token_accuracy": float(right),
            "entropy": float(entropy),
            "perplexity": float(np.exp(min(nll, 700.0))),  # exp(710) is the end of float64
        }


def trained_tokens(batch: Mapping[str, Tensor]) -> Tensor:
    """bool [B, T]: real tokens of the completion that have a real token before them to be predicted from."""
    real_BT = batch["attention_mask"].bool()
    trained_BT = batch["completion_mask"].bool() & real_BT
    trained_BT[:, 1:] &= real_BT[:, :-1]
    trained_BT[:, 0] = False
    return trained_BT


def encode_demonstrations(rows: Rows, tokenizer: Any, args: SFTConfig, max_length: int, name: str) -> Any:
    """`rows` as `input_ids` + `completion_mask`, ready for the collator."""

    def encode_row(row: Mapping[str, Any]) -> dict[str, Any]:
        encoded = encode_demonstration(
            row,
            tokenizer,
            max_length=max_length,
            system_prompt=args.system_prompt,
            truncate_prompt=args.truncate_prompt,
        )
        if not args.completion_only_loss:
            encoded["completion_mask"] = [position > 0 for position in range(len(encoded["input_ids"]))]
        return encoded

    return encode_dataset(
        rows,
        encode_row,
        name=name,
        encoded_columns=("input_ids", "completion_mask"),
        num_proc=args.dataset_num_proc,
        show_progress=args.shows_progress,
    )
