"""The one entry of the benches: tests first, then correctness on the timed inputs, then time, then rows.

python -m bench.run [all | OP ...] [--quick] [--skip-tests]
python -m bench.run OP --shape N=2048,H=768,V=50257 --peers trl,eager --dtype bf16 --threads 2 --rounds 9
python -m bench.run OP --compare COMMIT
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import bench.ops
from bench.measure import ROOT, Provider, append_rows, machine_facts, time_interleaved, version_of
from bench.request import Request, parse_dtypes, parse_shape

Row = dict[str, Any]


class Case(Protocol):
    """One shape of one op with its providers. A case with a `floor` names the provider that nothing can beat."""

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
    parser = _parser()
    options = parser.parse_args(arguments)
    names = available() if options.ops == ["all"] else options.ops
    unknown = sorted(set(names) - set(available()))
    if unknown:
        parser.error(f"no bench named {', '.join(unknown)}; there are {', '.join(available())}")
    try:
        request = _request(options)
        for name in names:
            check_request(name, request)
    except ValueError as error:
        parser.error(str(error))
    rows: dict[str, list[Row]] = {}
    for name in names:
        if not options.skip_tests and not tests_pass(name):
            print(f"bench: the tests of {name} fail; no time is taken of a wrong result", file=sys.stderr)
            return 1
        rows[name] = run_op(name, request, rounds=options.rounds, keep=options.json is None and not options.quick)
    if options.json is not None:
        Path(options.json).write_text(json.dumps(rows))
    if options.compare is None:
        return 0
    from bench.compare import compare

    return compare(rows, options.compare, request, rounds=options.rounds, threshold=options.threshold)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rlsft bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ops", nargs="*", default=["all"], help=f"all, or some of: {', '.join(available())}")
    parser.add_argument("--shape", help="sizes of your own, as N=2048,H=768,V=50257; the letters are the bench's")
    parser.add_argument("--dtype", help="bf16, fp32, or both with a comma")
    parser.add_argument("--threads", help="2, or 1,2: how many threads torch and the core may use")
    parser.add_argument("--peers", help="only these beside ours and the floor, by a part of their name: trl,eager")
    parser.add_argument("--rounds", type=int, help="samples of each provider (fewer of one that takes seconds)")
    parser.add_argument("--quick", action="store_true", help="small shapes and three rounds; writes no rows")
    parser.add_argument("--skip-tests", action="store_true", help="do not run the op's tests before timing")
    parser.add_argument("--compare", metavar="COMMIT", help="exit 1 when ours got slower than at COMMIT")
    parser.add_argument("--threshold", type=float, default=1.15, help="slower by this factor is a regression (1.15)")
    parser.add_argument("--json", metavar="FILE", help="write the rows there and not to bench/results")
    return parser


def _request(options: argparse.Namespace) -> Request:
    if options.rounds is not None and options.rounds < 1:
        raise ValueError(f"--rounds must be at least 1, got {options.rounds}")
    threads = () if options.threads is None else tuple(int(part) for part in options.threads.split(","))
    if any(count < 1 for count in threads):
        raise ValueError(f"--threads must be at least 1, got {options.threads}")
    return Request(
        quick=options.quick,
        shape={} if options.shape is None else parse_shape(options.shape),
        dtypes=() if options.dtype is None else parse_dtypes(options.dtype),
        threads=threads,
        peers=() if options.peers is None else tuple(part.strip().lower() for part in options.peers.split(",")),
    )


def bench_of(name: str) -> ModuleType:
    """The module of an op's bench."""
    return importlib.import_module(f"bench.ops.{name}")


def check_request(name: str, request: Request) -> None:
    """Raises ValueError when the bench cannot take what was asked for."""
    letters = getattr(bench_of(name), "SHAPE_LETTERS", None)
    if letters is None and (request.shape or request.dtypes or request.threads):
        raise ValueError(f"the bench of {name} has shapes, dtypes and threads of its own; leave the options out")
    if request.shape and set(request.shape) != set(letters or ()):
        wanted = ",".join(f"{letter}=..." for letter in letters or ())
        raise ValueError(f"--shape of {name} wants {wanted}, got {','.join(request.shape)}")


def tests_pass(name: str) -> bool:
    """Whether tests/ops/test_<op>*.py are green."""
    files = sorted(str(path) for path in (ROOT / "tests" / "ops").glob(f"test_{name}*.py"))
    if not files:
        return False
    return subprocess.run([sys.executable, "-m", "pytest", "-q", *files], cwd=ROOT, check=False).returncode == 0


def run_op(name: str, request: Request, *, rounds: int | None, keep: bool) -> list[Row]:
    """Checks, times and reports every case of one op."""
    rows: list[Row] = []
    module = bench_of(name)
    takes_request = hasattr(module, "SHAPE_LETTERS")
    for case in module.cases(request=request) if takes_request else module.cases(quick=request.quick):
        case.providers = [provider for provider in case.providers if request.wants(provider.name)]
        errors = {provider.name: checked(case, provider) for provider in case.providers}
        time_interleaved(case.providers, rounds or (3 if request.quick else 25), seconds_each=seconds_each(case))
        print_table(name, case, errors)
        rows += [row_of(name, case, provider, errors[provider.name]) for provider in case.providers]
    if keep:
        print(f"rows appended to {append_rows(name, rows).relative_to(ROOT)}")
    return rows


def checked(case: Case, provider: Provider) -> str:
    """What the row says of the error. A peer that is wrong here is not timed; ours raises AssertionError."""
    if provider.unavailable is None:
        try:
            return case.check(provider)
        except AssertionError as error:
            if provider.package is None:
                raise
            provider.unavailable = f"wrong, {error}"
    return provider.unavailable


def seconds_each(case: Case) -> float:
    """How long a provider may be sampled; a bench with many cases of seconds a call asks for less."""
    return getattr(case, "seconds_each", 8.0)


def row_of(name: str, case: Case, provider: Provider, error: str) -> Row:
    """One measurement with everything needed to read it later."""
    timed = bool(provider.samples_ms)
    return {
        "op": name,
        "provider": provider.name,
        "shape": case.shape,
        "dtype": case.dtype,
        "threads": provider.threads,
        "median_ms": round(provider.median_ms, 4) if timed else None,
        "samples_ms": [round(sample, 4) for sample in provider.samples_ms],
        "floor_ms": _rounded(median_of(case, getattr(case, "floor", None))),
        "baseline": case.baseline,
        "baseline_ms": _rounded(median_of(case, case.baseline)),
        "scaled_by": provider.scale,
        "error": error,
        "note": case.note,
        "peer_version": version_of(provider.package),
        **machine_facts(),
    }


def median_of(case: Case, name: str | None) -> float:
    """The median of a provider of the case; nan where it took no part."""
    return next((provider.median_ms for provider in case.providers if provider.name == name), math.nan)


def _rounded(milliseconds: float) -> float | None:
    return None if math.isnan(milliseconds) else round(milliseconds, 4)


def print_table(name: str, case: Case, errors: dict[str, str]) -> None:
    """Medians, spread, and the ratios to the floor and to the baseline."""
    floor, baseline = median_of(case, getattr(case, "floor", None)), median_of(case, case.baseline)
    threads = ",".join(str(count) for count in sorted({provider.threads for provider in case.providers}))
    print(f"\n{name} {case.shape} {case.dtype}, threads {threads}: {case.note}")
    print(f"  {'provider':34} {'median ms':>10} {'min ms':>9} {'max ms':>9} {'x floor':>8} {'x baseline':>11}  error")
    for provider in case.providers:
        if not provider.samples_ms:
            print(f"  {provider.name:34} {'-':>10} {'-':>9} {'-':>9} {'-':>8} {'-':>11}  {errors[provider.name]}")
            continue
        scaled = f" (1/{provider.scale:g} of the work, scaled)" if provider.scale != 1 else ""
        median = provider.median_ms
        print(
            f"  {provider.name:34} {median:10.3f} {min(provider.samples_ms):9.3f} {max(provider.samples_ms):9.3f} "
            f"{_ratio(median / floor)} {_ratio(median / baseline, 11)}  {errors[provider.name]}{scaled}"
        )


def _ratio(ratio: float, width: int = 8) -> str:
    return " " * (width - 1) + "-" if math.isnan(ratio) else f"{ratio:{width}.2f}"


if __name__ == "__main__":
    sys.exit(main())
