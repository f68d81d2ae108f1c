"""Train, validation and test by the hash of a group, so that what belongs together stays on one side for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from rlsft.data.formats import demonstration_of, prompt_text, require_columns
from rlsft.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_of(group: str, *, test_percent: int = 10, validation_percent: int = 10) -> Split:
    """The side on which `group` lands: by SHA-256, so the same on every machine and whatever else is in the data."""
    bucket = int(hashlib.sha256(group.encode()).hexdigest(), 16) % 100
    if bucket < test_percent:
        return "test"
    return "validation" if bucket < test_percent + validation_percent else "train"


def split_by_group(
    dataset: Dataset, *, column: str | None = None, test_percent: int = 10, validation_percent: int = 10
) -> dict[Split, Dataset]:
    """Cut `dataset` into train, validation and test without tearing a group apart.

    Args:
        dataset: any rows.
        column: whose equal values belong together (a conversation, a user); None = equal prompts belong together.
        test_percent: whole per cent of the groups, 0 to 100.
        validation_percent: the same; train gets the rest.

    Returns:
        One dataset a side, the order of rows kept; a side may be empty.

    Raises:
        DataError: no such column, or per cents that do not fit.
    """
    if min(test_percent, validation_percent) < 0 or test_percent + validation_percent > 100:
        raise DataError(
            f"test_percent and validation_percent must be >= 0 and at most 100 together, "
            f"got {test_percent} and {validation_percent}"
        )
    key: Callable[[Mapping[str, Any]], str] = _prompt_of
    if column is not None:
        require_columns(dataset.column_names, [column])
        name = column
        key = lambda row: str(row[name])  # noqa: E731
    rows: dict[Split, list[int]] = {side: [] for side in SPLITS}
    for number, row in enumerate(dataset):
        side = split_of(key(row), test_percent=test_percent, validation_percent=validation_percent)
        rows[side].append(number)
    return {side: dataset.select(numbers) for side, numbers in rows.items()}


def _prompt_of(row: Mapping[str, Any]) -> str:
    if row.get("prompt"):
        return prompt_text(row["prompt"])
    prompt, completion = demonstration_of(row)
    return prompt_text(prompt or completion)
