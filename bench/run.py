"""The one entry of the benches: tests first, then correctness on the timed inputs, then time, then rows.

python -m bench.run [all | OP ...] [--quick] [--skip-tests]
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import subprocess
import sys
from typing import Any, Protocol

import bench.ops
from bench.measure import ROOT, Provider, append_rows, machine_facts, time_interleaved, version_of


class Case(Protocol):
    """One shape of one op with its providers."""

    shape: str
    dtype: str
    note: str
    baseline: str  # the provider that the ratios compare with
    providers: list[Provider]

    def check(self, provider: Provider) -> str:
        """Raises when the provider's result is wrong on the timed input; returns what it measured of the error."""


def available() -> list[str]:
    """Every module of bench/ops is a bench."""
    return sorted(module.name for module in pkgutil.iter_modules(bench.ops.__path__))


def main(arguments: list[str] | None = None) -> int:
    """Runs the named benches; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("ops", nargs="*", default=["all"], help=f"all, or some of: {', '.join(available())}")
    parser.add_argument("--quick", action="store_true", help="small shapes and three rounds; writes no rows")
    parser.add_argument("--skip-tests", action="store_true", help="do not run the op's tests before timing")
    options = parser.parse_args(arguments)
    names = available() if options.ops == ["all"] else options.ops
    unknown = sorted(set(names) - set(available()))
    if unknown:
        parser.error(f"no bench named {', '.join(unknown)}; there are {', '.join(available())}")
    for name in names:
        if not options.skip_tests and not tests_pass(name):
            print(f"bench: the tests of {name} fail; no time is taken of a wrong result", file=sys.stderr)
            return 1
        run_op(name, quick=options.quick)
    return 0


def tests_pass(name: str) -> bool:
    """Whether tests/ops/test_<op>*.py are green."""
    files = sorted(str(path) for path in (ROOT / "tests" / "ops").glob(f"test_{name}*.py"))
    if not files:
        return False
    return subprocess.run([sys.executable, "-m", "pytest", "-q", *files], cwd=ROOT, check=False).returncode == 0


def run_op(name: str, *, quick: bool) -> None:
    """Checks, times and reports every case of one op."""
    rows: list[dict[str, Any]] = []
    for case in importlib.import_module(f"bench.ops.{name}").cases(quick=quick):
        errors = {provider.name: case.check(provider) for provider in case.providers}
        time_interleaved(case.providers, rounds=3 if quick else 25)
        print_table(name, case, errors)
        rows += [row_of(name, case, provider, errors[provider.name]) for provider in case.providers]
    if not quick:
        print(f"rows appended to {append_rows(name, rows).relative_to(ROOT)}")


def row_of(name: str, case: Case, provider: Provider, error: str) -> dict[str, Any]:
    """One measurement with everything needed to read it later."""
    return {
        "op": name,
        "provider": provider.name,
        "shape": case.shape,
        "dtype": case.dtype,
        "threads": provider.threads,
        "median_ms": round(provider.median_ms, 4),
        "samples_ms": [round(sample, 4) for sample in provider.samples_ms],
        "scaled_by": provider.scale,
        "error": error,
        "note": case.note,
        "peer_version": version_of(provider.package),
        **machine_facts(),
    }


def print_table(name: str, case: Case, errors: dict[str, str]) -> None:
    """Medians, spread and the ratio to the baseline."""
    baseline = next(provider for provider in case.providers if provider.name == case.baseline).median_ms
    print(f"\n{name} {case.shape} {case.dtype}: {case.note}")
    print(f"  {'provider':34} {'median ms':>10} {'min ms':>9} {'max ms':>9} {'x baseline':>11}  error")
    for provider in case.providers:
        scaled = f" (1/{provider.scale:g} of the groups, scaled)" if provider.scale != 1 else ""
        print(
            f"  {provider.name:34} {provider.median_ms:10.3f} {min(provider.samples_ms):9.3f} "
            f"{max(provider.samples_ms):9.3f} {provider.median_ms / baseline:11.2f}  {errors[provider.name]}{scaled}"
        )


if __name__ == "__main__":
    sys.exit(main())
