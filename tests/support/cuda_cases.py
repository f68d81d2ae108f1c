"""Inputs of the CUDA tests. As a program: what the C++ core makes of the ranking ones, written to an .npz file.

The CUDA kernels promise the bits of RLSFT_ISA=scalar, which a process chooses once: so it is a process of its own.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from rlsft_kernels import textrank

SIZES = (0, 1, 2, 3, 8, 16, 17)


def offsets_of(sizes: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor([0, *np.cumsum(sizes)], dtype=torch.int64)


def response_rows(sizes: tuple[int, ...], d: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Rows around one centre a group; the fifth row repeats the fourth, the seventh is zero, two are extreme."""
    draw = np.random.default_rng(seed)
    groups = [draw.standard_normal(d) + draw.standard_normal((m, d)) for m in sizes]
    rows = np.concatenate(groups)
    if len(rows) > 12:
        rows[4], rows[6] = rows[3], 0
        exponent = 70 if dtype == torch.float32 else 600  # whose squares overflow, and vanish
        rows[8] *= 2.0**exponent
        rows[9] *= 2.0**-exponent
    return torch.tensor(rows, dtype=dtype)


def graph_blocks(sizes: tuple[int, ...], dtype: torch.dtype, *, scale: float = 1.0) -> torch.Tensor:
    """Directed weights with dangling rows, a node no edge enters, and twins."""
    draw = np.random.default_rng(1)
    blocks = []
    for m in sizes:
        weights = draw.random((m, m)) * (draw.random((m, m)) < 0.6)
        if m > 3:
            weights[1], weights[:, 2] = 0, 0
            weights[3], weights[:, 3] = weights[0], weights[:, 0]
            weights[0, 3] = weights[3, 0] = weights[0, 0] = weights[3, 3] = 0.25
            weights[2] *= scale
        blocks.append(weights.reshape(-1))
    return torch.tensor(np.concatenate(blocks), dtype=dtype)


def shares(sizes: tuple[int, ...], seed: int) -> torch.Tensor:
    """Teleport or start: some entries are 0."""
    draw = np.random.default_rng(seed)
    return torch.tensor(np.concatenate([draw.integers(0, 4, m) + (np.arange(m) == 0) for m in sizes]).astype(float))


def textrank_cases() -> dict[str, dict[str, Any]]:
    """Arguments of textrank by name; every case has groups of every size that matters."""
    quiet = {"on_nonconvergence": "ignore", "max_iter": 60, "groups": offsets_of(SIZES)}
    f32, f64 = response_rows(SIZES, 20, torch.float32), response_rows(SIZES, 9, torch.float64)
    extra = {"teleport": shares(SIZES, 2), "start": shares(SIZES, 3)}
    graphs = graph_blocks(SIZES, torch.float64)
    wide = {"on_nonconvergence": "ignore", "max_iter": 8}
    return {
        "shifted float32": {"embeddings": f32, **quiet},
        "relu float64": {"embeddings": f64, "edge": "relu_cosine", **quiet},
        "cosine eigenvector": {"embeddings": f32, "edge": "cosine", "form": "eigenvector", **quiet},
        "eigenvector and katz": {"embeddings": f64, "form": "eigenvector", **extra, **quiet},
        "gauss_seidel": {"embeddings": f32, "edge": "relu_cosine", "method": "gauss_seidel", **extra, **quiet},
        "dense": {"similarity": graphs, **extra, **quiet},
        "twins from an uneven start": {
            "embeddings": f64,
            "edge": "relu_cosine",
            "start": extra["start"],
            "tol": 1e-3,
            **quiet,
        },
        "dense eigenvector": {"similarity": graphs.float(), "form": "eigenvector", **quiet},
        "dense, sums beyond range": {"similarity": graph_blocks(SIZES, torch.float64, scale=1e-310), **quiet},
        "64 rows": {"embeddings": response_rows((64,), 7, torch.float32), **wide},
        "65 rows": {"embeddings": response_rows((65,), 5, torch.float32), "form": "eigenvector", **wide},
        "65 nodes": {"similarity": graph_blocks((65,), torch.float64).reshape(65, 65), **wide},
    }


def main(target: str) -> None:
    found = {}
    for name, arguments in textrank_cases().items():
        result = textrank(backend="native", threads=1, **arguments)
        found |= {f"{name} {field}": np.asarray(getattr(result, field)) for field in result._fields}
    np.savez(target, **found)


if __name__ == "__main__":
    main(sys.argv[1])
