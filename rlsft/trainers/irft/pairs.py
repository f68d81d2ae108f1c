"""Demonstrations as token ids, pairs of a demonstration and a drawn answer, and both as tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rlsft.data.collators import pad
from rlsft.data.encoding import encode_demonstration, encode_pair
from rlsft.data.formats import demonstration_of, prompt_text
from rlsft.errors import DataError
from rlsft.trainers.encoded import Rows, encode_dataset
from rlsft.trainers.irft.config import IRFTConfig

NAN = math.nan


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A demonstration (by its row) and a drawn answer to its prompt, with their reference log-probabilities.

    The end token belongs to the answer where it was drawn (`ended`); an answer that was cut off has none.
    """

    prompt: int  # row of the demonstrations
    generated: list[int] | None = None  # token ids; None = not drawn yet
    ended: bool = False
    generator_logprob: float = NAN  # of the answer under the policy that drew it, as far as it is known
    reference_real: float = NAN  # summed log-probability of the demonstration under the reference
    reference_generated: float = NAN

    def answer(self) -> list[int]:
        """The drawn tokens."""
        assert self.generated is not None, "the answer has not been drawn yet"
        return self.generated

    def unscored(self) -> Pair:
        """The same answer as a replay: under a new reference, no longer drawn by it."""
        return replace(self, generator_logprob=NAN, reference_real=NAN, reference_generated=NAN)

    def to_row(self) -> dict[str, Any]:
        """For JSON, where NaN becomes null; every finite number comes back with its very bits."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Pair:
        """What `to_row` gave."""
        known: dict[str, Any] = dict(row)
        unknown = [name for name, value in row.items() if value is None and name != "generated"]
        return cls(**known | dict.fromkeys(unknown, NAN))


class Demonstrations:
    """Encoded demonstrations in memory: prompt and answer of a row, and what its answers are drawn from.

    Args:
        encoded: a dataset with `input_ids` and `completion_mask`; `generated_ids` for given pairs; `draw_ids` where
            answers are drawn from another text than the prompt.
    """

    def __init__(self, encoded: Any):
        masks = encoded["completion_mask"]
        self._ids = [list(ids) for ids in encoded["input_ids"]]
        self._cuts = [prompt_length(mask) for mask in masks]
        self._draw = list(encoded["draw_ids"]) if "draw_ids" in encoded.column_names else None
        self._given = list(encoded["generated_ids"]) if "generated_ids" in encoded.column_names else None

    def __len__(self) -> int:
        return len(self._ids)

    def prompt(self, row: int) -> list[int]:
        """Tokens before the answer."""
        return self._ids[row][: self._cuts[row]]

    def real(self, row: int) -> list[int]:
        """Tokens of the demonstration's answer."""
        return self._ids[row][self._cuts[row] :]

    def drawn_from(self, row: int) -> list[int]:
        """Tokens that the model continues."""
        return self.prompt(row) if self._draw is None else list(self._draw[row])

    def given_pairs(self) -> list[Pair]:
        """One pair a row, of a data set that brings the other answer."""
        if self._given is None:
            raise DataError(
                "train_dataset has no pairs: refresh='none' needs the columns chosen and rejected (and prompt); "
                "another refresh draws the other answer itself"
            )
        return [Pair(prompt=row, generated=list(ids), ended=True) for row, ids in enumerate(self._given)]

    def length(self, pair: Pair) -> int:
        """Tokens of the longer side with its prompt."""
        prompt = self._cuts[pair.prompt]
        return max(len(self._ids[pair.prompt]), prompt + len(pair.generated or ()))


def prompt_length(completion_mask: Sequence[bool]) -> int:
    """Tokens before the first one that is trained.

    Raises:
        DataError: none is trained.
    """
    if True not in completion_mask:
        raise DataError("a row has no token to train: its answer is empty, or one token without a prompt before it")
    return list(completion_mask).index(True)


def collate(
    pairs: Sequence[Pair],
    demonstrations: Demonstrations,
    pad_token_id: int,
    *,
    counted: bool = True,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """P pairs as one padded batch of 2P sequences, the demonstrations first.

    Args:
        pairs: with their answers.
        demonstrations: that the pairs' rows mean.
        pad_token_id: fills the gaps; may equal the end token.
        counted: whether the loss counts them.
        dtype: of the log-probabilities.

    Returns:
        `input_ids`, `attention_mask` int64 [2P, T]; `completion_mask` bool [2P, T]; `reference_sums` [2P];
        `generator_sums` [P], NaN where unknown; `counted` bool [P].
    """
    prompts = [demonstrations.prompt(pair.prompt) for pair in pairs] * 2
    answers = [demonstrations.real(pair.prompt) for pair in pairs] + [pair.answer() for pair in pairs]
    rows = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    masks = [[False] * len(prompt) + [True] * len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
    width = max(map(len, rows))
    references = [pair.reference_real for pair in pairs] + [pair.reference_generated for pair in pairs]
    return {
        "input_ids": pad(rows, pad_token_id, dtype=torch.int64, side="right", width=width),
        "attention_mask": pad([[1] * len(row) for row in rows], 0, dtype=torch.int64, side="right", width=width),
        "completion_mask": pad(masks, False, dtype=torch.bool, side="right", width=width),
        "reference_sums": torch.tensor(references, dtype=dtype),
        "generator_sums": torch.tensor([pair.generator_logprob for pair in pairs], dtype=dtype),
        "counted": torch.full((len(pairs),), counted, dtype=torch.bool),
    }


def encode_rows(rows: Rows, tokenizer: Any, args: IRFTConfig, max_length: int, name: str, *, pairs: bool) -> Any:
    """`rows` as a dataset for `Demonstrations`.

    Args:
        rows: demonstrations, or rows with chosen and rejected answers where `pairs`.
        tokenizer: the policy's.
        args: settings.
        max_length: tokens of prompt and answer together.
        name: the argument that holds the rows, for messages.
        pairs: whether the other answer is taken from the rows.

    Raises:
        DataError: a bad row, by its number, or a prompt that leaves no room for a drawn answer.
    """
    limits = {"max_length": max_length, "system_prompt": args.system_prompt, "truncate_prompt": args.truncate_prompt}

    def encode_row(row: Mapping[str, Any]) -> dict[str, Any]:
        if pairs:
            both = encode_pair(row, tokenizer, **limits)  # type: ignore[arg-type]
            return _given(both)
        encoded = encode_demonstration(row, tokenizer, **limits)  # type: ignore[arg-type]
        encoded = _with_room(encoded, max_length - args.max_completion_length, args)
        if args.generation_template is not None:
            text = args.generation_template.format(prompt=prompt_text(demonstration_of(row)[0]))
            ids = list(tokenizer(text, verbose=False)["input_ids"])
            encoded["draw_ids"] = ids[-(max_length - args.max_completion_length) :]
        return encoded

    columns = ("input_ids", "completion_mask", *(("generated_ids",) if pairs else ()))
    return encode_dataset(
        rows, encode_row, name=name, encoded_columns=columns, num_proc=args.dataset_num_proc,
        show_progress=args.shows_progress,
    )  # fmt: skip


def _given(both: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen answer as the demonstration, the rejected one as the other answer to the same prompt."""
    ids, mask = both["chosen_input_ids"], both["chosen_completion_mask"]
    cut, start = prompt_length(mask), prompt_length(both["rejected_completion_mask"])
    rejected = both["rejected_input_ids"]
    # each side is cut to max_length by itself; one prompt serves both, the shorter of the two
    keep = min(cut, start)
    return {
        "input_ids": ids[cut - keep :],
        "completion_mask": mask[cut - keep :],
        "generated_ids": rejected[start:],
    }


def _with_room(encoded: dict[str, Any], limit: int, args: IRFTConfig) -> dict[str, Any]:
    """`encoded` with a prompt of at most `limit` tokens, so that a drawn answer fits behind it."""
    ids, mask = encoded["input_ids"], encoded["completion_mask"]
    cut = prompt_length(mask)
    if cut <= limit:
        return encoded
    if not args.truncate_prompt:
        raise DataError(
            f"prompt has {cut} tokens, which leaves no room for a drawn answer of max_completion_length="
            f"{args.max_completion_length}; raise max_length, or set truncate_prompt to drop its oldest tokens"
        )
    return {"input_ids": ids[cut - limit :], "completion_mask": mask[cut - limit :]}
