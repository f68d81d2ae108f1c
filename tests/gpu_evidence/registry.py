"""What an entry of the registry is: how to make inputs, launch the real wrapper, and what is right.

The truth is the same plain PyTorch function run on the inputs in float64; its result on the inputs as they are is the
"eager" of the one tolerance rule (tests/support/closeness.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.support.closeness import assert_as_accurate_as_eager

Inputs = dict[str, Any]  # keyword arguments of `launch` and `reference`
Results = dict[str, Tensor]


@dataclass(frozen=True)
class Kernel:
    """One registered kernel; a case that is small runs on the emulator in a second."""

    name: str
    launch: Callable[..., Results]  # the real wrapper on CPU tensors; may overwrite its inputs, which are fresh
    reference: Callable[..., Results]  # plain PyTorch in the dtype of its inputs, same names
    cases: Mapping[str, Callable[[], Inputs]]  # executed: include a tail, an unaligned and an empty shape
    budget: Mapping[str, Callable[[], Inputs]]  # compiled only: aligned shapes as used in training
    tensor_core: bool = False  # the compiled code must use the tensor core
    check_races: bool = True
    modes: tuple[str, ...] = ("interpreter", "ptx", "aot")
    harmless: Mapping[str, str] = field(default_factory=dict)  # name of a PTX mutation -> why nothing changes


def in_float64(inputs: Inputs) -> Inputs:
    def widen(value: Any) -> Any:
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    return {name: widen(value) for name, value in inputs.items()}


def check(kernel: Kernel, case: str) -> None:
    """Launches one case and compares every result; raises AssertionError with the name of the worst."""
    torch.manual_seed(0)
    inputs = kernel.cases[case]()
    kept = {name: value.clone() if isinstance(value, Tensor) else value for name, value in inputs.items()}
    actual = kernel.launch(**inputs)
    eager, truth = kernel.reference(**kept), kernel.reference(**in_float64(kept))
    assert set(actual) == set(truth), f"results are {sorted(actual)}, the reference has {sorted(truth)}"
    for name, result in actual.items():
        label = f"{kernel.name}/{case}: {name}"
        if not result.is_floating_point():
            assert torch.equal(result, truth[name].to(result.dtype)), f"{label} differs from the reference"
        elif result.numel() == 0:
            assert result.shape == truth[name].shape, f"{label} has shape {list(result.shape)}"
        else:
            assert_as_accurate_as_eager(result, eager[name].to(result.dtype), truth[name].double(), name=label)
