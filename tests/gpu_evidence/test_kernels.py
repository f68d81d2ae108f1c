"""Every registered kernel: its source by the interpreter, its PTX by the emulator, its resources by the assembler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed (pip install 'rlsft[test]')")

from tests.gpu_evidence import budgets
from tests.gpu_evidence.archs import ARCHS, EMULATED
from tests.gpu_evidence.kernels import KERNELS, cases_of

Evidence = Callable[[str, str], dict[str, dict[str, Any]]]


def _require(outcome: dict[str, Any]) -> None:
    if "error" in outcome:
        pytest.fail(f"{outcome['error']}\n{outcome['traceback']}", pytrace=False)


@pytest.mark.parametrize(("name", "case"), cases_of("interpreter"))
def test_source_agrees_with_float64(evidence: Evidence, name: str, case: str) -> None:
    _require(evidence("interpreter", "none")[f"{name}/{case}"])


@pytest.mark.parametrize("arch", EMULATED)
@pytest.mark.parametrize(("name", "case"), cases_of("ptx"))
def test_compiled_code_agrees_with_float64(evidence: Evidence, arch: str, name: str, case: str) -> None:
    _require(evidence("ptx", arch)[f"{name}/{case}"])


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(("name", "case"), cases_of("aot"))
def test_resources_stay_in_their_budget(evidence: Evidence, arch: str, name: str, case: str) -> None:
    outcome = evidence("aot", arch)[f"{name}/{case}"]
    _require(outcome)
    launches = outcome["launches"]
    faults = {
        label: found
        for label, figures in launches.items()
        if (found := budgets.broken(figures, tensor_core=KERNELS[name].tensor_core))
    }
    assert not faults, f"{name} on {arch}: {faults}"
    lines = budgets.differences(budgets.load().get(name, {}).get(arch, {}).get(case, {}), launches)
    assert not lines, "\n".join([f"{name} on {arch}, {case}; python -m tests.gpu_evidence.budgets --update", *lines])
