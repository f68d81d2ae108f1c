"""Datasets of rows to datasets of token ids, with the row number in every error."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import datasets

from rlsft.errors import DataError

Rows: TypeAlias = datasets.Dataset | Sequence[Mapping[str, Any]]
EncodeRow: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]


def encode_dataset(
    rows: Rows,
    encode_row: EncodeRow,
    *,
    name: str,
    encoded_columns: Sequence[str],
    num_proc: int | None = None,
    show_progress: bool = False,
) -> datasets.Dataset:
    """`rows` with `encode_row` applied to each; rows that are encoded already pass through.

    Args:
        rows: a `datasets.Dataset` or a list of dicts.
        encode_row: one row to its token ids and masks.
        name: the argument that holds the rows, for messages.
        encoded_columns: the columns by which an encoded dataset is known.
        num_proc: processes; None = this one.
        show_progress: draw the bar of `datasets`.

    Raises:
        DataError: no rows, a type that is not supported, or a bad row, named by its number.
    """
    dataset = _as_dataset(rows, name)
    if set(encoded_columns) <= set(dataset.column_names):
        return dataset

    def encode_numbered(row: Mapping[str, Any], number: int) -> dict[str, Any]:
        try:
            return encode_row(row)
        except DataError as error:
            raise DataError(f"{name}, row {number + 1}: {error}") from None

    with _progress_bars(show_progress):
        return dataset.map(
            encode_numbered,
            with_indices=True,
            remove_columns=dataset.column_names,
            num_proc=num_proc,
            desc=f"encoding {name}",
        )


def _as_dataset(rows: Rows, name: str) -> datasets.Dataset:
    if isinstance(rows, (datasets.IterableDataset, datasets.DatasetDict, datasets.IterableDatasetDict)):
        raise DataError(
            f"{name} must be one datasets.Dataset or a list of rows, got a {type(rows).__name__}; pick a "
            "split (data['train']), and load streamed data whole"
        )
    if len(rows) == 0:
        raise DataError(f"{name} has no rows; check the file, the split and the filters before it")
    if isinstance(rows, datasets.Dataset):
        return rows
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"{name}, row {number}: expected a dict of columns, got {type(row).__name__}")
    return datasets.Dataset.from_list(list(rows))  # type: ignore[arg-type]


@contextlib.contextmanager
def _progress_bars(shown: bool) -> Iterator[None]:
    """The bars of `datasets` on or off within the block."""
    were_off = datasets.are_progress_bars_disabled()
    shown = shown and sys.stderr.isatty()  # a bar in a file is noise
    (datasets.enable_progress_bars if shown else datasets.disable_progress_bars)()
    try:
        yield
    finally:
        (datasets.disable_progress_bars if were_off else datasets.enable_progress_bars)()
