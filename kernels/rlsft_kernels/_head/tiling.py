"""How large tiles of logits are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

DEFAULT_TILE_BYTES = 64 * 2**20
# A product of 2048 rows reads the weight once for many rows; more rows would only make the tile narrower.
_ROWS = {"cpu": 2048, "cuda": 8192}
# What stays warm between a product and the pass over its tile. Forward tiles are only read, so a few megabytes do; the
# backward's three products want wider ones (2 cores, 2 MiB of L2 each: 2 to 32 MiB are within 10 % of each other).
_WARM_BYTES = {"fold": 8 * 2**20, "gradient": 16 * 2**20}


@dataclass(frozen=True)
class Tiling:
    """Blocks of rows times blocks of columns."""

    num_rows: int
    num_columns: int
    rows: int
    columns: int

    def row_blocks(self) -> Iterator[slice]:
        """All rows."""
        for start in range(0, self.num_rows, self.rows):
            yield slice(start, min(start + self.rows, self.num_rows))

    def column_blocks(self, start: int = 0) -> Iterator[slice]:
        """The columns from `start`, a multiple of `columns`, on."""
        for begin in range(start, self.num_columns, self.columns):
            yield slice(begin, min(begin + self.columns, self.num_columns))


def tiles_of(
    num_rows: int, num_columns: int, dtype: torch.dtype, device: torch.device, tile_bytes: int, purpose: str
) -> Tiling:
    """Tiles for a pass that goes over columns: many rows, and as many columns as the bytes allow."""
    limit = min(tile_bytes, _WARM_BYTES[purpose]) if device.type == "cpu" else tile_bytes
    rows = max(1, min(num_rows, _ROWS.get(device.type, 8192), limit // dtype.itemsize))
    columns = max(1, limit // (rows * dtype.itemsize))
    if columns > 64:
        columns -= columns % 64
    return Tiling(num_rows, num_columns, rows, min(columns, max(1, num_columns)))


def rows_of(num_rows: int, num_columns: int, dtype: torch.dtype, tile_bytes: int) -> Tiling:
    """Tiles for a pass that needs whole rows."""
    rows = max(1, tile_bytes // max(1, num_columns * dtype.itemsize))
    return Tiling(num_rows, num_columns, min(rows, max(1, num_rows)), num_columns)
