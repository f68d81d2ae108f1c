"""Did ours get slower than at a commit? Medians of this run against the rows filed there, or measured again.

Machines drift, so a time is divided by the floor and by the baseline of its own run before two runs are compared. It is
slower only when it is so in both units: a copy of two microseconds and a call of half a millisecond drift apart. Rows
of another kind of machine do not count. Where the commit holds no row for a shape, its op library is built in a
worktree and the benches of this checkout time it, with the same floor and inputs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.measure import ROOT, device_name
from bench.request import Request

Row = dict[str, Any]
Key = tuple[str, ...]
UNITS = ("floor", "baseline")
Units = dict[str, float]


def compare(rows: dict[str, list[Row]], commit: str, request: Request, *, rounds: int | None, threshold: float) -> int:
    """Prints every row of ours beside what it was; 1 when one is slower by more than the threshold, 2 for no commit."""
    resolved = _git("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if resolved is None:
        print(f"bench: --compare wants a commit of this repository, got {commit!r}", file=sys.stderr)
        return 2
    slower = []
    for op, measured in rows.items():
        now = relative(measured)
        before = relative(rows_at(resolved, op))
        if not set(now) <= set(before):
            before |= relative(measured_again(resolved, op, request, rounds))
        slower += report(op, now, before, resolved[:9], threshold)
    return 1 if slower else 0


def relative(rows: Iterable[Row]) -> dict[Key, Units]:
    """(provider, shape, dtype, threads, job) -> time over floor and baseline of its own run; the last row counts."""
    found = {}
    for row in rows:
        if not row["provider"].startswith("rlsft") or not row["median_ms"]:
            continue
        units = {unit: row["median_ms"] / row[f"{unit}_ms"] for unit in UNITS if row.get(f"{unit}_ms")}
        if units:
            found[row["provider"], row["shape"], row["dtype"], str(row["threads"]), row["note"]] = units
    return found


def change_of(now: Units, before: Units) -> float:
    """How many times slower, in the unit that is kindest; 1 where the runs share none."""
    return min((now[unit] / before[unit] for unit in UNITS if unit in now and unit in before), default=1.0)


def rows_at(commit: str, op: str) -> list[Row]:
    """The rows of this kind of machine that were filed at a commit."""
    text = _git("show", f"{commit}:bench/results/{device_name()}/{op}.jsonl")
    return [json.loads(line) for line in (text or "").splitlines() if line.strip()]


def measured_again(commit: str, op: str, request: Request, rounds: int | None) -> list[Row]:
    """Rows of the op library of a commit, timed by the benches of this checkout."""
    print(f"\n{op}: {commit[:9]} holds no rows of these shapes; building it in a worktree to measure it now")
    with tempfile.TemporaryDirectory(prefix="rlsft-compare-") as folder:
        tree, output = Path(folder) / "tree", Path(folder) / "rows.json"
        _run(["git", "worktree", "add", "--quiet", "--detach", str(tree), commit])
        try:
            _run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree)
            # the path of a package wins over an installed one; bench itself comes from the working directory
            path = f"PYTHONPATH={tree / 'kernels'}"
            _run(
                ["env", path, sys.executable, "-m", "bench.run", op, *arguments(request, rounds), "--json", str(output)]
            )
            return json.loads(output.read_text())[op]  # type: ignore[no-any-return]
        finally:
            _run(["git", "worktree", "remove", "--force", str(tree)])


def arguments(request: Request, rounds: int | None) -> list[str]:
    """A request as the command line that makes it; peers but the baseline are left out."""
    found = ["--skip-tests", "--peers", "eager,loop"]
    if request.quick:
        found.append("--quick")
    if request.shape:
        found += ["--shape", ",".join(f"{letter}={size}" for letter, size in request.shape.items())]
    if request.dtypes:
        found += ["--dtype", ",".join(request.dtypes)]
    if request.threads:
        found += ["--threads", ",".join(str(count) for count in request.threads)]
    return found if rounds is None else [*found, "--rounds", str(rounds)]


def report(op: str, now: dict[Key, Units], before: dict[Key, Units], commit: str, threshold: float) -> list[Key]:
    """Prints the table; returns the rows that are slower by more than the threshold."""
    slower = []
    print(f"\n{op} against {commit}, times as slow as it was; above {threshold:g} is a regression")
    for key, units in now.items():
        name = f"{key[0]} {key[1]} {key[2]} {key[3]}T, {key[4]}"
        if key not in before:
            print(f"  {'new':>6}  {name}")
            continue
        change = change_of(units, before[key])
        worse = change > threshold
        print(f"  {change:6.2f}  {name}{'  SLOWER' if worse else ''}")
        slower += [key] if worse else []
    return slower


def _git(*command: str) -> str | None:
    done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _run(command: list[str], cwd: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
