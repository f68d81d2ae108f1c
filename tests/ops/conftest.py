"""Fixtures of the op tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch


def _nan_filled(allocate: Callable[..., Any]) -> Callable[..., Any]:
    def allocate_nan(*args: Any, **kwargs: Any) -> Any:
        fresh = allocate(*args, **kwargs)
        if isinstance(fresh, torch.Tensor) and fresh.is_floating_point() and not fresh.requires_grad:
            return fresh.fill_(torch.nan)
        if isinstance(fresh, np.ndarray) and fresh.dtype.kind == "f":
            fresh.fill(np.nan)
        return fresh

    return allocate_nan


@pytest.fixture
def nan_in_fresh_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh float memory holds NaN, so that an element an op forgot to write fails instead of passing by luck."""
    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch.Tensor, "new_empty"),
        (np, "empty"),
        (np, "empty_like"),
    ):
        monkeypatch.setattr(owner, name, _nan_filled(getattr(owner, name)))
