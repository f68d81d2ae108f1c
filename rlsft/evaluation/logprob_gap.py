"""How much likelier a model finds good answers than bad ones: the log-probability gap of chosen and rejected."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlsft.errors import DataError
from rlsft.metrics import Interval, bootstrap_mean, paired_bootstrap

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LogprobGap:
    """`log p(chosen | x) - log p(rejected | x)` over pairs; 95 % bootstrap intervals, prompts resampled whole."""

    gap: Interval  # in nats
    accuracy: Interval  # share of pairs whose chosen answer is likelier; a tie counts one half
    chosen: Interval  # mean log-probability of the chosen answers
    rejected: Interval
    per_token: bool  # whether log-probabilities are means over the tokens and not sums
    gaps: NDArray[np.float64]  # [pairs], in the order given
    groups: tuple[str, ...]  # [pairs], the prompt of each

    def change_from(self, before: LogprobGap, *, seed: int = 0) -> Interval:
        """Mean of `gap - before.gap` over the same pairs, with its paired interval.

        Raises:
            DataError: the two were measured on other pairs, or one a token and one a sum.
        """
        if self.groups != before.groups or self.per_token != before.per_token:
            raise DataError("both gaps must be of the same pairs in the same order, and both sums or both per token")
        return paired_bootstrap(before.gaps, self.gaps, groups=self.groups, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """Numbers with their intervals, for a file."""
        named = {"gap": self.gap, "accuracy": self.accuracy, "chosen": self.chosen, "rejected": self.rejected}
        values = {name: {"mean": x.mean, "low": x.low, "high": x.high} for name, x in named.items()}
        return {**values, "pairs": self.gap.n, "prompts": self.gap.units, "per_token": self.per_token}


def logprob_gap(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    batch_size: int = 16,
    max_length: int = 1024,
    system_prompt: str | None = None,
    truncate_prompt: bool = False,
    per_token: bool = False,
    seed: int = 0,
    on_batch: Callable[[int], None] | None = None,
) -> LogprobGap:
    """The mean gap `log p(y_chosen | x) - log p(y_rejected | x)` of a model, with its interval.

    It is what Figure 1 of arXiv 2405.17888 plots over a training on chosen answers alone: a method that raises the
    likelihood of every fluent answer leaves it where it was.

    Args:
        model: a causal LM, in any mode.
        tokenizer: with a pad token.
        rows: `prompt`, `chosen`, `rejected` (strings or chat lists), or the prompt inside both chats.
        batch_size: answers a forward.
        max_length: tokens of prompt and answer together.
        system_prompt: as in training.
        truncate_prompt: drop the oldest prompt tokens when there is no room; False = such a prompt is an error.
        per_token: mean over the tokens of an answer, the end token included, instead of their sum: a sum favours the
            shorter answer.
        seed: of the bootstrap.
        on_batch: called with the number of answers of each finished batch (progress).

    Raises:
        DataError: no rows, or one that is no pair (named by its number).
    """
    from rlsft.data import prompt_text
    from rlsft.data.formats import preference_of
    from rlsft.models import token_logprobs

    options = {"max_length": max_length, "system_prompt": system_prompt, "truncate_prompt": truncate_prompt}
    pairs = [_encoded(number, row, tokenizer, options) for number, row in enumerate(rows, start=1)]
    if not pairs:
        raise DataError("rows must hold at least one pair of chosen and rejected, got none")
    answers = [
        {"input_ids": pair[f"{side}_input_ids"], "completion_mask": pair[f"{side}_completion_mask"]}
        for side in ("chosen", "rejected")
        for pair in pairs
    ]
    scored = token_logprobs(
        model, answers, pad_token_id=tokenizer.pad_token_id, batch_size=batch_size, on_batch=on_batch
    )
    sums = np.array([row.mean(dtype=np.float64) if per_token else row.sum(dtype=np.float64) for row in scored])
    chosen, rejected = sums.reshape(2, -1)
    groups = tuple(prompt_text(preference_of(row)[0]) for row in rows)
    gaps = chosen - rejected
    _check_finite(gaps)

    def interval(values: NDArray[np.float64]) -> Interval:
        return bootstrap_mean(values, groups=groups, seed=seed)

    is_right = np.where(gaps == 0, 0.5, (gaps > 0).astype(np.float64))
    return LogprobGap(
        gap=interval(gaps), accuracy=interval(is_right), chosen=interval(chosen), rejected=interval(rejected),
        per_token=per_token, gaps=gaps, groups=groups,
    )  # fmt: skip


def _encoded(number: int, row: Mapping[str, Any], tokenizer: Any, options: dict[str, Any]) -> dict[str, Any]:
    from rlsft.data import encode_pair

    missing = [name for name in ("chosen", "rejected") if name not in row]
    if missing:
        raise DataError(f"row {number} has no {missing[0]!r}; pairs are rows of prompt, chosen and rejected")
    try:
        return encode_pair(row, tokenizer, **options)
    except DataError as error:
        raise DataError(f"row {number}: {error}") from None


def _check_finite(gaps: NDArray[np.float64]) -> None:
    bad = np.flatnonzero(~np.isfinite(gaps))
    if bad.size:
        raise DataError(
            f"the log-probabilities of row {bad[0] + 1} are not finite: the model's weights are broken, or overflow in "
            "their dtype; try dtype='float32'"
        )
