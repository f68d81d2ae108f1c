"""One process for one mode and architecture: `python -m tests.gpu_evidence.worker MODE ARCH OUT`.

The interpreter and the compiled path cannot share a process, because Triton reads TRITON_INTERPRET when it is imported;
and one process for many cases imports torch and Triton once. Writes {"kernel/case": outcome} as JSON.
"""

from __future__ import annotations

import json
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

Outcome = dict[str, Any]


def interpreted(arch: str) -> dict[str, Outcome]:
    from tests.gpu_evidence import interpreter

    interpreter.repair()
    from tests.gpu_evidence.kernels import KERNELS, cases_of
    from tests.gpu_evidence.registry import check

    return {
        f"{name}/{case}": _outcome(lambda n=name, c=case: check(KERNELS[n], c))
        for name, case in cases_of("interpreter")
    }


def emulated(arch: str) -> dict[str, Outcome]:
    from tests.gpu_evidence.kernels import KERNELS, cases_of
    from tests.gpu_evidence.registry import check
    from tests.gpu_evidence.run_ptx import ptx_on_cpu

    def run(name: str, case: str) -> Outcome:
        with ptx_on_cpu(arch, check_races=KERNELS[name].check_races) as executions:
            check(KERNELS[name], case)
        races = [f"{e.launch.name}: {line}" for e in executions for line in e.machine.race_reports]
        assert not races, "races in shared memory: " + "; ".join(races[:3])
        return {"launches": [e.launch.label for e in executions]}

    return {f"{name}/{case}": _outcome(lambda n=name, c=case: run(n, c)) for name, case in cases_of("ptx")}


def compiled(arch: str) -> dict[str, Outcome]:
    from tests.gpu_evidence.budgets import measure
    from tests.gpu_evidence.kernels import KERNELS

    outcomes: dict[str, Outcome] = {}
    for name, kernel in KERNELS.items():
        if "aot" not in kernel.modes:
            continue
        outcome = _outcome(lambda n=name: measure(arch, [n]).get(n, {}))
        for case in kernel.budget:
            launches = outcome.get(case)
            outcomes[f"{name}/{case}"] = {"launches": launches} if launches else outcome
    return outcomes


def mutated(arch: str) -> dict[str, Outcome]:
    from tests.gpu_evidence.mutations import survey

    return survey(arch)


MODES: dict[str, Callable[[str], dict[str, Outcome]]] = {
    "interpreter": interpreted, "ptx": emulated, "aot": compiled, "mutations": mutated,
}  # fmt: skip


def _outcome(run: Callable[[], Outcome | None]) -> Outcome:
    try:
        return run() or {}
    except Exception as error:
        where = "".join(traceback.format_exception(error)[-3:])
        return {"error": f"{type(error).__name__}: {error}", "traceback": where}


def main() -> None:
    mode, arch, out = sys.argv[1:4]
    warnings.simplefilter("ignore")  # NumPy warns of overflows that the kernels mean
    Path(out).write_text(json.dumps(MODES[mode](arch)))


if __name__ == "__main__":
    main()
