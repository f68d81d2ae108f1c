"""column_map: our column names for the user's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlsft.data.formats import KNOWN_COLUMNS, require_columns
from rlsft.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def parse_column_map(column_map: Mapping[str, str] | str | None) -> dict[str, str]:
    """Our name to theirs, from a mapping or from `"prompt=question,completion=answer"`.

    Raises:
        DataError: text that is not of that form, or one of their columns used twice.
    """
    if not column_map:
        return {}
    if isinstance(column_map, str):
        parsed: dict[str, str] = {}
        for part in column_map.split(","):
            ours, equals, theirs = (piece.strip() for piece in part.partition("="))
            if not (ours and equals and theirs):
                raise DataError(
                    f"column_map must look like 'prompt=question,completion=answer' (our name = yours), "
                    f"got {part.strip()!r} in {column_map!r}"
                )
            if ours in parsed:
                raise DataError(f"column_map names {ours!r} twice: {column_map!r}")
            parsed[ours] = theirs
    else:
        parsed = {str(ours): str(theirs) for ours, theirs in column_map.items()}
    doubled = {theirs for theirs in parsed.values() if list(parsed.values()).count(theirs) > 1}
    if doubled:
        raise DataError(f"column_map uses your column {sorted(doubled)[0]!r} for two of ours: {parsed}")
    return parsed


def apply_column_map(dataset: Dataset, column_map: Mapping[str, str], source: object = "the data") -> Dataset:
    """`dataset` with each of their columns renamed to ours; a column that already had our name is replaced.

    Raises:
        DataError: a column that is not there; names the columns found and the nearest one.
    """
    columns = dataset.column_names
    for ours, theirs in column_map.items():
        if theirs not in columns and ours in columns and theirs in KNOWN_COLUMNS:
            raise DataError(
                f"column_map reads our name = yours, and {source} has no column {theirs!r} but has {ours!r}: "
                f"write column_map='{theirs}={ours}'"
            )
        if theirs not in columns:
            _say_what_is_missing(ours, theirs, columns, source)
    renamed = dict(column_map)
    replaced = [ours for ours, theirs in renamed.items() if ours in columns and ours != theirs]
    keep = [name for name in columns if name not in replaced or name in renamed.values()]
    back = {theirs: ours for ours, theirs in renamed.items()}
    table = dataset.select_columns(keep)
    names = [back.get(name, name) for name in keep]
    return table if names == keep else _renamed(table, keep, names)


def _renamed(dataset: Dataset, old: list[str], new: list[str]) -> Dataset:
    # Two steps, so that a swap of two names does not collide on the way.
    passing = {name: f"__rlsft_{number}" for number, name in enumerate(old)}
    dataset = dataset.rename_columns(passing)
    return dataset.rename_columns({passing[a]: b for a, b in zip(old, new, strict=True)})


def _say_what_is_missing(ours: str, theirs: str, columns: list[str], source: object) -> None:
    from difflib import get_close_matches

    close = get_close_matches(theirs, columns, n=1)
    if not close:
        require_columns(columns, [theirs], source=f"column_map maps {ours!r} to {theirs!r}, but {source}")
    raise DataError(
        f"column_map maps {ours!r} to {theirs!r}, but {source} has no such column (found "
        f"{', '.join(map(repr, columns))}); did you mean column_map='{ours}={close[0]}'?"
    )
