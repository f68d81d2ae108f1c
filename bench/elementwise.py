"""Losses and scans over tokens: the case, the comparison with float64, and the floor, a copy of the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.head import ran_on, relative_error
from bench.measure import Provider

Result = dict[str, Tensor]
FLOOR = "floor: copy of the same bytes"
LIMIT = 1e-5  # float32 sums of a million terms


@dataclass
class TokenCase:
    """One op on so many tokens or pairs."""

    op: str
    shape: str
    note: str
    truth: Mapping[str, Tensor]  # float64
    providers: list[Provider]
    bytes_moved: int
    flops: int = 0
    dtype: str = "float32"
    baseline: str = "eager"
    floor: str = FLOOR
    seconds_each: float = 4.0

    def check(self, provider: Provider) -> str:
        """The largest relative error of a tensor that the provider returned."""
        if provider.name == self.floor:
            return "a limit"
        torch.set_num_threads(provider.threads)
        result, backend = ran_on(provider.run, self.op)
        errors = {name: relative_error(x, prefix_of(self.truth[name], x)) for name, x in result.items()}
        worst = max(errors, key=lambda name: errors[name])
        if not errors[worst] <= LIMIT:
            raise AssertionError(
                f"{provider.name}: {worst} is off by {errors[worst]:.1e} of its length on {self.shape}; not timed"
            )
        return f"{worst} {errors[worst]:.1e}{backend}"


def prefix_of(truth: Tensor, x: Tensor) -> Tensor:
    """What a provider that works on the first rows alone must give."""
    return truth[: len(x)] if truth.ndim else truth


def copy_floor(bytes_moved: int, threads: int, device: str) -> Provider:
    """Half of the bytes read, half of them written, by torch."""
    source = torch.zeros(max(1, bytes_moved // 8), device=device)
    target = torch.empty_like(source)
    return Provider(FLOOR, lambda: target.copy_(source), threads=threads)
