"""Predicted bounds from made-up counters whose times are known by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gpu_evidence.predict import CHIPS, LABEL, LAUNCH_SECONDS, predict, tensor_flops


def counters(**changes: Any) -> dict[str, Any]:
    return {"instructions": {}, "sectors": {}, "wavefronts": {}, "unique_sectors": {}, **changes}


def test_a_streaming_kernel_is_bound_by_memory() -> None:
    bounds = predict(counters(unique_sectors={"x:load": 10**6}, sectors={"load": 10**6}), "sm_90")
    assert bounds.bound_by == "memory"
    assert bounds.lower == pytest.approx(LAUNCH_SECONDS + 32e6 / CHIPS["sm_90"].memory)
    assert bounds.upper > bounds.lower


def test_a_larger_grid_reads_shared_tensors_once() -> None:
    read = {"weight:load": 10**6, "x:load": 10**6}
    bounds = predict(counters(unique_sectors=read), "sm_80", scale=4, shared_tensors=("weight",))
    assert bounds.parts["memory"] == pytest.approx(5 * 32e6 / CHIPS["sm_80"].memory)


def test_flops_of_both_kinds_of_tensor_instruction() -> None:
    assert tensor_flops({"mma.m16n8k16": 10, "add": 99}) == 10 * 2 * 16 * 8 * 16
    assert tensor_flops({"wgmma.mma_async.m64n64k16": 8}) == 2 * 2 * 64 * 64 * 16


def test_every_prediction_says_that_it_is_one() -> None:
    assert predict(counters(), "sm_90").as_json()["label"] == LABEL == "predicted, not measured"
