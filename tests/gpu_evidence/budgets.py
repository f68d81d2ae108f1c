"""The committed resource budgets: `python -m tests.gpu_evidence.budgets --update` rewrites budgets.json.

kernel -> architecture -> case -> launch -> figures. Registers and shared memory may fall below their budget; anything
worse, a new launch or a vanished one fails with the lines that differ.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

BUDGETS = Path(__file__).with_name("budgets.json")
REGISTER_SLACK = 4  # what a different patch release of the assembler may take more
Figures = dict[str, Any]


def load() -> dict[str, Any]:
    return json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}


def measure(arch: str, names: list[str] | None = None) -> dict[str, dict[str, dict[str, Figures]]]:
    """kernel -> case -> launch -> figures, compiled now."""
    from tests.gpu_evidence.capture import capture
    from tests.gpu_evidence.kernels import KERNELS
    from tests.gpu_evidence.sass import report

    found: dict[str, dict[str, dict[str, Figures]]] = {}
    for kernel in KERNELS.values():
        if "aot" not in kernel.modes or (names and kernel.name not in names):
            continue
        for case, make in kernel.budget.items():
            with capture(arch) as launches:
                kernel.launch(**make())
            assert launches, f"{kernel.name}/{case} launched nothing"
            found.setdefault(kernel.name, {})[case] = {launch.label: report(launch) for launch in launches}
    return found


def broken(figures: Figures, *, tensor_core: bool) -> list[str]:
    """What no budget may excuse."""
    faults = []
    if figures["spills"]:
        faults.append(f"{figures['spills']} spill instructions")
    if figures.get("narrow_loop_loads"):
        faults.append(f"{figures['narrow_loop_loads']} global loads of 8 or 16 bits in loops at an aligned shape")
    if tensor_core and not figures["tensor_core"]:
        faults.append("no tensor-core instruction")
    return faults


def differences(committed: dict[str, Figures], actual: dict[str, Figures]) -> list[str]:
    """Lines that say what left its budget; empty where all is within."""
    lines = [f"- {label}: launched no more" for label in committed.keys() - actual.keys()]
    lines += [f"+ {label}: not in the budget" for label in actual.keys() - committed.keys()]
    for label in sorted(committed.keys() & actual.keys()):
        for key, allowed in committed[label].items():
            value = actual[label].get(key)
            if _is_worse(key, allowed, value):
                lines.append(f"! {label}: {key} {allowed} -> {value}")
    return lines


def _is_worse(key: str, allowed: Any, value: Any) -> bool:
    if value is None or isinstance(allowed, bool):
        return bool(value != allowed)
    if key == "blocks_per_sm":
        return bool(value < allowed)
    return bool(value > allowed + (REGISTER_SLACK if key == "registers" else 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update", action="store_true", help="rewrite budgets.json from what compiles now")
    parser.add_argument("--kernel", action="append", help="only this kernel (may be repeated)")
    arguments = parser.parse_args()
    from tests.gpu_evidence.archs import ARCHS

    budgets = load()
    for arch in ARCHS:
        for name, cases in measure(arch, arguments.kernel).items():
            for case, launches in cases.items():
                old = budgets.get(name, {}).get(arch, {}).get(case, {})
                for line in differences(old, launches):
                    print(f"{name} {arch} {case}  {line}")
                budgets.setdefault(name, {}).setdefault(arch, {})[case] = launches
    if arguments.update:
        BUDGETS.write_text(json.dumps(budgets, indent=1, sort_keys=True) + "\n")
        print(f"wrote {BUDGETS}")


if __name__ == "__main__":
    main()
