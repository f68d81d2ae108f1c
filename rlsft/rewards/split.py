"""Training and held-out rows with no prompt on both sides."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from rlsft.data.formats import preference_of, prompt_text
from rlsft.errors import ConfigError, DataError

Rows = TypeVar("Rows", bound=Sequence[Mapping[str, Any]])


def split_by_prompt(rows: Rows, eval_fraction: float = 0.1, *, seed: int = 0) -> tuple[Rows, Rows]:
    """Split `rows` so that all rows of one prompt stay on one side.

    Pairs of one prompt share their prompt's difficulty and often an answer; a split by row would put them on
    both sides, and held-out accuracy would be too good.

    Args:
        rows: a `datasets.Dataset` or a list of dicts with `prompt` (or with the prompt inside `chosen` and
            `rejected`).
        eval_fraction: share of the prompts held out, below 1; at least one prompt on each side, or none held out
            when it is 0.
        seed: of the shuffle of the prompts.

    Returns:
        `(train, held_out)`, of the type given, rows in their old order.

    Raises:
        ConfigError: `eval_fraction` out of range.
        DataError: fewer than two different prompts.
    """
    if not 0.0 <= eval_fraction < 1.0:
        raise ConfigError(f"eval_fraction must be at least 0 and below 1, got {eval_fraction!r}: training needs rows")
    if eval_fraction == 0.0:
        return rows, _take(rows, [])
    keys = [_prompt_key(rows[i]) for i in range(len(rows))]
    prompts = sorted(set(keys))
    if len(prompts) < 2:
        raise DataError(f"rows must hold at least two different prompts to split by prompt, got {len(prompts)}")
    random.Random(seed).shuffle(prompts)
    num_held_out = min(max(1, round(eval_fraction * len(prompts))), len(prompts) - 1)
    held_out = set(prompts[:num_held_out])
    sides = [[i for i, key in enumerate(keys) if (key in held_out) is side] for side in (False, True)]
    train, evaluation = (_take(rows, indices) for indices in sides)
    return train, evaluation


def _prompt_key(row: Mapping[str, Any]) -> str:
    prompt = row["prompt"] if row.get("prompt") is not None else preference_of(row)[0]
    return prompt_text(prompt)


def _take(rows: Any, indices: list[int]) -> Any:
    return rows.select(indices) if hasattr(rows, "select") else [rows[i] for i in indices]
