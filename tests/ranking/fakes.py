"""Encoders whose geometry a test can write down."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


class TableEncoder:
    """Looks every text up."""

    name = "table"
    languages: tuple[str, ...] | None = None

    def __init__(self, rows: Mapping[str, Sequence[float]]) -> None:
        self._rows = rows

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([self._rows[text] for text in texts], dtype=np.float32)


def hash_encoder(texts: Sequence[str]) -> NDArray[np.float32]:
    """A random direction a text, near that of other texts with the same first word."""
    return np.stack([_direction(text.split()[0]) + 0.4 * _direction(text) for text in texts]).astype(np.float32)


def _direction(text: str, width: int = 24) -> NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=width)


def planted_group(
    levels: Sequence[float], num_outliers: int, *, seed: int, width: int = 64
) -> tuple[list[str], NDArray[np.float64]]:
    """Texts at rising distance from a centre, then outliers in directions of their own; ([m], [m + 1, d]).

    The last row is the centre itself. Answer i is `centre + levels[i] * direction_i`, all directions orthogonal.
    """
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(width, width)))[0]
    centre = basis[0]
    near = [centre + level * basis[1 + i] for i, level in enumerate(levels)]
    far = [basis[1 + len(levels) + i] for i in range(num_outliers)]
    names = [f"near {seed} {i}" for i in range(len(levels))] + [f"far {seed} {i}" for i in range(num_outliers)]
    return names, np.stack([*near, *far, centre])
