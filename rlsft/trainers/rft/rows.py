"""Which prompts a round learns from, and preferences in one form."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from rlsft.data import load_examples, preference_of
from rlsft.errors import ConfigError, DataError


def prompts_of_round(rows: Sequence[dict[str, Any]], count: int, number: int, *, seed: int) -> list[dict[str, Any]]:
    """`count` rows for round `number` (from 1): the next window of one shuffled order, begun again at its end.

    Rounds share no prompt until every one has been used; all rows when there are no more than `count`.
    """
    if count >= len(rows):
        return list(rows)
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    first = (number - 1) * count
    return [rows[order[(first + k) % len(rows)]] for k in range(count)]


def preference_rows(dataset: Any, path: str | None, weight: float) -> list[dict[str, Any]]:
    """`prompt`, `chosen`, `rejected` of every preference row: those of `dataset`, else those of the file `path`.

    Raises:
        ConfigError: rows without a weight, or a weight without rows.
        DataError: a row that is no preference, by its number.
    """
    if dataset is None and path is not None:
        dataset = load_examples(path)
    if dataset is None:
        if weight > 0:
            raise ConfigError(
                "preference_weight is above 0, but there are no preferences: give preference_data (a file of prompt, "
                "chosen, rejected rows), or preference_dataset"
            )
        return []
    if weight == 0:
        raise ConfigError("preference_dataset is given, but preference_weight is 0: set it, or leave the rows out")
    rows = []
    for number, row in enumerate(dataset, start=1):
        try:
            prompt, better, worse = preference_of(row)
        except DataError as error:
            raise DataError(f"preference row {number}: {error}") from None
        rows.append({"prompt": prompt, "chosen": better, "rejected": worse})
    if not rows:
        raise DataError("the preference data has no rows")
    return rows
