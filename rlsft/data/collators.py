"""Rows of token ids to padded tensors. Padding is known from lengths, so pad may equal the end token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rlsft.errors import DataError

PaddingSide = Literal["left", "right"]


def pad(rows: Sequence[Sequence[Any]], value: Any, *, dtype: torch.dtype, side: PaddingSide, width: int) -> Tensor:
    """`rows` as one `[len(rows), width]` tensor, filled with `value` on `side`."""
    padded = torch.full((len(rows), width), value, dtype=dtype)
    for target, row in zip(padded, rows, strict=True):
        if len(row):
            begin = width - len(row) if side == "left" else 0
            target[begin : begin + len(row)] = torch.as_tensor(row, dtype=dtype)
    return padded


def _width(rows: Sequence[Sequence[Any]], multiple: int | None) -> int:
    longest = max((len(row) for row in rows), default=0)
    return longest if not multiple else -(-longest // multiple) * multiple


def _padded(
    ids: Sequence[Sequence[int]],
    masks: Sequence[Sequence[bool]] | None,
    pad_token_id: int,
    side: PaddingSide,
    width: int,
) -> dict[str, Tensor]:
    batch = {
        "input_ids": pad(ids, pad_token_id, dtype=torch.int64, side=side, width=width),
        "attention_mask": pad([[1] * len(row) for row in ids], 0, dtype=torch.int64, side=side, width=width),
    }
    if masks is not None:
        batch["completion_mask"] = pad(masks, False, dtype=torch.bool, side=side, width=width)
    return batch


def _numbers(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, Tensor]:
    """Column `name` as float32 [B] where every row has it, else nothing; a weight that some rows lack is an error."""
    missing = [row.get(name) is None for row in rows]
    if name == "weight" and any(missing) and not all(missing):
        raise DataError("column 'weight' must stand in every row or in none; give 1.0 to rows of ordinary weight")
    if any(missing) or not rows:
        return {}
    return {name: torch.tensor([float(row[name]) for row in rows], dtype=torch.float32)}


def _check(pad_token_id: int | None, padding_side: str) -> None:
    if not isinstance(pad_token_id, int):
        raise DataError(
            f"pad_token_id must be a token id, got {pad_token_id!r}; load_tokenizer(path, pad_token=...) sets one"
        )
    if padding_side not in ("left", "right"):
        raise DataError(f"padding_side must be 'left' or 'right', got {padding_side!r}")


@dataclass(frozen=True)
class DemonstrationCollator:
    """Pads `{"input_ids", "completion_mask"}` rows to one batch.

    Returns `input_ids` and `attention_mask` (int64 [B, T], 1 = real token), `completion_mask` (bool [B, T]), and
    `weight` (float32 [B]) where every row has one.
    """

    pad_token_id: int
    padding_side: PaddingSide = "right"
    pad_to_multiple_of: int | None = None

    def __post_init__(self) -> None:
        _check(self.pad_token_id, self.padding_side)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        ids = [row["input_ids"] for row in rows]
        masks = [row["completion_mask"] for row in rows]
        batch = _padded(ids, masks, self.pad_token_id, self.padding_side, _width(ids, self.pad_to_multiple_of))
        return batch | _numbers(rows, "weight")


@dataclass(frozen=True)
class PairCollator:
    """Pads rows of `encode_pair`; chosen and rejected get one width, so that they can be stacked into one pass.

    Returns `{chosen,rejected}_{input_ids,attention_mask}` (int64 [B, T]), `…_completion_mask` (bool [B, T]) where the
    rows have them, and `margin` and `weight` (float32 [B]) where every row has one.
    """

    pad_token_id: int
    padding_side: PaddingSide = "right"
    pad_to_multiple_of: int | None = None

    def __post_init__(self) -> None:
        _check(self.pad_token_id, self.padding_side)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        sides = ("chosen", "rejected")
        width = _width([row[f"{side}_input_ids"] for row in rows for side in sides], self.pad_to_multiple_of)
        batch: dict[str, Tensor] = {}
        for side in sides:
            ids = [row[f"{side}_input_ids"] for row in rows]
            has_masks = all(f"{side}_completion_mask" in row for row in rows)
            masks = [row[f"{side}_completion_mask"] for row in rows] if has_masks else None
            padded = _padded(ids, masks, self.pad_token_id, self.padding_side, width)
            batch.update({f"{side}_{name}": tensor for name, tensor in padded.items()})
        return batch | _numbers(rows, "margin") | _numbers(rows, "weight")


@dataclass(frozen=True)
class PromptCollator:
    """Pads prompts on the left, where generation continues on the right; other columns pass through as lists."""

    pad_token_id: int
    padding_side: PaddingSide = "left"

    def __post_init__(self) -> None:
        _check(self.pad_token_id, self.padding_side)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        ids = [row["input_ids"] for row in rows]
        batch: dict[str, Any] = dict(_padded(ids, None, self.pad_token_id, self.padding_side, _width(ids, None)))
        for name in rows[0] if rows else ():
            if name not in batch:
                batch[name] = [row[name] for row in rows]
        return batch
