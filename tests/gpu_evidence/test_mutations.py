"""Broken PTX of every kernel must be caught: by a wrong result, an error or a race report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("triton", reason="triton is not installed (pip install 'rlsft[test]')")

from tests.gpu_evidence.kernels import KERNELS, cases_of
from tests.gpu_evidence.mutations import MUTATIONS

ARCH = "sm_80"
Evidence = Callable[[str, str], dict[str, dict[str, Any]]]
_MUST_APPLY = {
    "sample_lse": ("barriers dropped", "waits dropped", "one wait less", "shuffle from the wrong lane"),
    "sample_softmax": ("barriers dropped", "shuffle from the wrong lane", "less becomes less or equal"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in cases_of("ptx")))
def test_broken_code_is_caught(evidence: Evidence, name: str, mutation: str) -> None:
    verdict = evidence("mutations", ARCH)[f"{name}/{mutation}"]["verdict"]
    if mutation in _MUST_APPLY.get(name, ()):
        assert verdict.startswith("caught"), verdict
    elif mutation in KERNELS[name].harmless:
        assert not verdict.startswith("caught"), f"{verdict}: no longer harmless, take it off the list"
    else:
        assert verdict != "survived", f"{mutation} in {name} on {ARCH} changes nothing that the harness sees"
