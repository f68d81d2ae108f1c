"""Edits of compiled PTX that break it. A harness that lets one pass proves nothing about the kernels it passes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Mutation = Callable[[str], str]


def _drop(pattern: str) -> Mutation:
    return lambda ptx: re.sub(pattern, ";", ptx)


def _wait_less(ptx: str) -> str:
    return re.sub(r"cp\.async\.wait_group\s+(\d+);", lambda m: f"cp.async.wait_group {int(m[1]) + 1};", ptx)


def _wrong_lane(ptx: str) -> str:
    return re.sub(r"(shfl\.sync\.bfly\.b32\s*[^,]+,\s*[^,]+), (?:1|0x1),", r"\1, 2,", ptx)


def _no_load_mask(ptx: str) -> str:
    """Predicated global loads run for every lane; copies that a size of 0 switches off copy all their bytes."""
    loads = re.sub(r"@!?%p\d+\s+(ld\.global)", r"\1", ptx)
    return re.sub(r"(cp\.async\.c[ag]\.shared\.global[^;]*\], 0x\w+), %r\d+;", r"\1;", loads)


def _no_store_mask(ptx: str) -> str:
    return re.sub(r"@!?%p\d+\s+(st\.global)", r"\1", ptx)


MUTATIONS: dict[str, Mutation] = {
    "barriers dropped": _drop(r"(?:bar|barrier)\.sync\s+[^;]*;"),
    "waits dropped": _drop(r"cp\.async\.wait_group\s+\d+;"),
    "one wait less": _wait_less,
    "shuffle from the wrong lane": _wrong_lane,
    "less becomes less or equal": lambda ptx: re.sub(r"setp\.lt\.([su])(32|64)", r"setp.le.\1\2", ptx),
    "greater becomes greater or equal": lambda ptx: re.sub(r"setp\.gt\.([su])(32|64)", r"setp.ge.\1\2", ptx),
    "load masks dropped": _no_load_mask,
    "store masks dropped": _no_store_mask,
    "maximum becomes minimum": lambda ptx: re.sub(r"\bmax(\.NaN)?(\.ftz)?\.f32", r"min\1\2.f32", ptx),
    "add becomes subtract": lambda ptx: re.sub(r"\badd(\.rn)?(\.ftz)?\.f32", r"sub\1\2.f32", ptx),
}  # fmt: skip


def verdict(arch: str, kernel: Any, mutation: Mutation) -> str:
    """ "not applicable", "caught: how" or "survived", over all cases of the kernel."""
    from tests.gpu_evidence.ptx.types import EmulatorError
    from tests.gpu_evidence.registry import check
    from tests.gpu_evidence.run_ptx import ptx_on_cpu

    applied = False

    def edit(ptx: str) -> str:
        nonlocal applied
        changed = mutation(ptx)
        applied = applied or changed != ptx
        return changed

    for case in kernel.cases:
        try:
            with ptx_on_cpu(arch, mutation=edit, check_races=kernel.check_races) as executions:
                check(kernel, case)
        except (AssertionError, EmulatorError) as error:
            return f"caught by {case}: {str(error)[:160]}"
        races = [line for e in executions for line in e.machine.race_reports]
        if races:
            return f"caught by {case}: race: {races[0]}"
    return "survived" if applied else "not applicable"


def survey(arch: str) -> dict[str, dict[str, Any]]:
    """kernel/mutation -> verdict, for every kernel whose PTX runs."""
    from tests.gpu_evidence.kernels import KERNELS, cases_of

    names = dict.fromkeys(name for name, _ in cases_of("ptx"))
    return {
        f"{name}/{label}": {"verdict": verdict(arch, KERNELS[name], mutation)}
        for name in names
        for label, mutation in MUTATIONS.items()
    }
