"""One reader a file type. Our own line-by-line parsing, because it can say which line is broken."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rlsft.errors import DataError

NumberedRow = tuple[str, dict[str, Any]]  # where it stands ("line 7", "entry 3"), the row
Table = list[NumberedRow] | Any  # or an Arrow table
Reader = Callable[[Path, int | None], Table]


@contextmanager
def _open_text(source: Path) -> Iterator[TextIO]:
    """The file as text; gzip by its name; a byte-order mark, which Excel writes, is skipped."""
    opener = gzip.open if source.name.lower().endswith(".gz") else open
    try:
        with opener(source, "rt", encoding="utf-8-sig", newline="") as file:  # type: ignore[operator]
            yield file
    except (gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{source} is not a whole gzip file: {error}") from None


def read_jsonl(source: Path, limit: int | None) -> Table:
    """One JSON object a line; empty lines are skipped."""
    rows: list[NumberedRow] = []
    with _open_text(source) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"line {number}"
            rows.append((where, _json_object(source, where, line)))
            if limit is not None and len(rows) >= limit:
                break
    return _nonempty(rows, source)


def _json_object(source: Path, where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{source}, {where}: not valid JSON ({error.msg} at column {error.colno}): {line.strip()[:80]!r}. "
            f"JSONL holds one whole object a line; mend or delete that line"
        ) from None
    if not isinstance(row, dict):
        raise DataError(f'{source}, {where}: expected a JSON object like {{"prompt": …}}, got {type(row).__name__}')
    return row


def read_json(source: Path, limit: int | None) -> Table:
    """A list of objects, or an object that holds one list of them, such as `{"data": [...]}`."""
    with _open_text(source) as file:
        text = file.read()
    if not text.strip():
        raise DataError(f"{source} is empty")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        hint = ""
        if error.msg == "Extra data":
            hint = "; it looks like one object a line: rename it to .jsonl"
        raise DataError(
            f"{source}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno}){hint}"
        ) from None
    entries = _entries(value, source)
    for number, row in enumerate(entries):
        if not isinstance(row, dict):
            raise DataError(f"{source}, entry {number}: expected a JSON object, got {type(row).__name__}")
    return _nonempty([(f"entry {number}", row) for number, row in enumerate(entries[:limit])], source)


def _entries(value: Any, source: Path) -> list[Any]:
    if isinstance(value, list):
        return value
    lists = {key: item for key, item in value.items() if isinstance(item, list)} if isinstance(value, dict) else {}
    if "data" in lists:
        return lists["data"]
    if len(lists) == 1:
        return next(iter(lists.values()))
    found = (
        f"an object with the keys {', '.join(map(repr, value))}" if isinstance(value, dict) else type(value).__name__
    )
    raise DataError(f'{source} must be a list of objects or {{"data": [...]}}, got {found}')


def read_csv(source: Path, limit: int | None, *, delimiter: str = ",") -> Table:
    """Header and rows; every value stays text, so a completion "42" is not turned into a number."""
    csv.field_size_limit(1 << 30)
    rows: list[NumberedRow] = []
    with _open_text(source) as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = _header(next(reader, []), source, delimiter)
            for values in reader:
                if not values:
                    continue
                where = f"line {reader.line_num}"
                if len(values) != len(header):
                    raise DataError(
                        f"{source}, {where}: {len(values)} values for {len(header)} columns ({', '.join(header)}); "
                        f"a value that contains {delimiter!r} or a line break must be quoted"
                    )
                rows.append((where, dict(zip(header, values, strict=True))))
                if limit is not None and len(rows) >= limit:
                    break
        except csv.Error as error:
            raise DataError(f"{source}, line {reader.line_num}: not valid CSV ({error})") from None
    return _nonempty(rows, source)


def _header(header: list[str], source: Path, delimiter: str) -> list[str]:
    names = [name.strip() for name in header]
    if not any(names):
        raise DataError(f"{source} has no header line with column names")
    for other in {",", ";", "\t"} - {delimiter}:
        if len(names) == 1 and other in names[0]:
            raise DataError(
                f"{source} seems to be separated by {other!r}, not {delimiter!r}: save it as "
                f"{'.tsv' if other == chr(9) else 'CSV with commas'}"
            )
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise DataError(f"{source} has the column {sorted(doubled)[0]!r} twice")
    return names


def read_tsv(source: Path, limit: int | None) -> Table:
    """As CSV, separated by tabs."""
    return read_csv(source, limit, delimiter="\t")


def read_parquet(source: Path, limit: int | None) -> Table:
    """An Arrow table of the whole file, or of its first rows."""
    import pyarrow as pa
    from datasets.table import InMemoryTable
    from pyarrow import parquet

    try:
        table = parquet.read_table(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{source} is not a readable parquet file: {str(error).splitlines()[0]}") from None
    return InMemoryTable(table if limit is None else table.slice(0, limit))


def _nonempty(rows: list[NumberedRow], source: Path) -> list[NumberedRow]:
    if not rows:
        raise DataError(f"{source} has no rows")
    return rows


def check_one_type_a_column(rows: list[NumberedRow], source: Path) -> None:
    """Refuse a column that is text in one row and a list or number in another: name both rows."""
    first_seen: dict[str, tuple[str, str]] = {}
    for where, row in rows:
        for column, value in row.items():
            if value is None:
                continue
            kind = _kind(value)
            earlier_where, earlier = first_seen.setdefault(column, (where, kind))
            if kind != earlier:
                raise DataError(
                    f"{source}: column {column!r} mixes types: {earlier} in {earlier_where}, {kind} in {where} "
                    f"({str(value)[:40]!r}); make every row the same"
                )


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true/false"
    if isinstance(value, (int, float)):
        return "a number"
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}
