"""Fixtures of the op tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch


def _nan_filled(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def allocate_nan(*args: Any, **kwargs: Any) -> torch.Tensor:
        fresh = allocate(*args, **kwargs)
        return fresh.fill_(torch.nan) if fresh.is_floating_point() and not fresh.requires_grad else fresh

    return allocate_nan


@pytest.fixture
def nan_in_fresh_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh float memory holds NaN, so that an element an op forgot to write fails instead of passing by luck."""
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(owner, name, _nan_filled(getattr(owner, name)))
