"""A user's file or folder to a `datasets.Dataset`; whatever is wrong with it is named by file, line and column."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rlsft.data.columns import apply_column_map, parse_column_map
from rlsft.data.readers import READERS, Reader, Table, check_one_type_a_column
from rlsft.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

ColumnMap = Mapping[str, str] | str | None


def load_examples(
    path: str | os.PathLike[str],
    *,
    column_map: ColumnMap = None,
    limit: int | None = None,
    split: str | None = None,
) -> Dataset:
    """Load examples from JSONL, JSON, CSV, TSV, parquet (the text kinds also gzipped) or a `save_to_disk` folder.

    Args:
        path: the file or folder.
        column_map: our column name to yours, `{"prompt": "question"}` or `"prompt=question,completion=answer"`.
        limit: first rows only; None = all.
        split: which split of a saved DatasetDict; None = the only one.

    Returns:
        A Dataset with at least one row.

    Raises:
        DataError: missing or empty file, unknown extension, a broken line, a column of mixed types, a wrong column
            in `column_map`, not UTF-8.
    """
    source = Path(path).expanduser()
    if limit is not None and limit < 1:
        raise DataError(f"limit must be at least 1 or None, got {limit}")
    if not source.exists():
        raise DataError(f"data file {source} does not exist{_similar_neighbour(source)}")
    dataset = _saved_dataset(source, split) if source.is_dir() else _from_file(source, limit)
    if limit is not None:
        dataset = dataset.select(range(min(limit, len(dataset))))
    if len(dataset) == 0:
        raise DataError(f"{source} has no rows")
    return apply_column_map(dataset, parse_column_map(column_map), source)


def _similar_neighbour(source: Path) -> str:
    from difflib import get_close_matches

    if not source.parent.is_dir():
        return f": its folder {source.parent} does not exist either"
    close = get_close_matches(source.name, [item.name for item in source.parent.iterdir()], n=1)
    return f"; did you mean {source.parent / close[0]}?" if close else ""


def _from_file(source: Path, limit: int | None) -> Dataset:
    from datasets import Dataset

    reader = _reader_of(source)
    if source.stat().st_size == 0:
        raise DataError(f"{source} is empty (0 bytes)")
    try:
        table: Table = reader(source, limit)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{source} is not UTF-8 text (byte {error.start} of a block); convert it, for instance: "
            f"iconv -f SHIFT_JIS -t UTF-8 {source.name} > utf8{''.join(source.suffixes)}"
        ) from None
    if not isinstance(table, list):
        return Dataset(table)
    check_one_type_a_column(table, source)
    return Dataset.from_list([row for _, row in table])


def _reader_of(source: Path) -> Reader:
    name = source.name.lower().removesuffix(".gz")
    extension = Path(name).suffix
    if extension not in READERS or (extension == ".parquet" and source.name.lower().endswith(".gz")):
        raise DataError(
            f"{source} has the unknown extension {''.join(source.suffixes[-2:]) or '(none)'!r}; expected "
            f"{', '.join(READERS)} (the text kinds also with .gz), or a folder from datasets' save_to_disk"
        )
    return READERS[extension]


def _saved_dataset(source: Path, split: str | None) -> Dataset:
    from datasets import Dataset, DatasetDict, load_from_disk

    if not ((source / "dataset_info.json").is_file() or (source / "dataset_dict.json").is_file()):
        found = ", ".join(sorted(item.name for item in source.iterdir())[:6]) or "nothing"
        raise DataError(
            f"{source} is not a folder written by datasets' save_to_disk (found {found}); name one data file instead"
        )
    loaded = load_from_disk(str(source))
    if isinstance(loaded, Dataset):
        return loaded
    assert isinstance(loaded, DatasetDict)
    if split is None and len(loaded) == 1:
        split = next(iter(loaded))
    if split not in loaded:
        names = ", ".join(loaded)
        raise DataError(
            f"{source} holds the splits {names}; name one (split={split!r} came), or give {source}/{next(iter(loaded))}"
        )
    return loaded[split]
