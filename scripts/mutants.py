"""Planted bugs: each entry of tests/mutants/*.toml changes one place of a copy of the tree and must turn a test red.

    python scripts/mutants.py [--op NAME] [--only MUTANT]

An entry is `[[mutant]]` with `name`, `file` (path in the repository), `find` (text that occurs there once), `replace`,
`tests` (what pytest is given, as narrow as possible) and, for C++, `rebuild = true`. Exit 1 when a mutant survives or
cannot be planted, or when its tests are not green without it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CATALOGUE = Path("tests") / "mutants"
TIMEOUT = 600  # seconds for the tests of one mutant; one that hangs them is caught
FIELDS = {"name", "file", "find", "replace", "tests", "rebuild"}
RED = 1  # pytest's exit code when tests ran and failed


@dataclass(frozen=True)
class Mutant:
    """One planted bug."""

    op: str  # the name of its catalogue
    name: str
    file: str
    find: str
    replace: str
    tests: str
    rebuild: bool = False

    def planted(self, root: Path) -> str:
        """The file with the bug in it; ValueError when the place is not there exactly once."""
        path = root / self.file
        if not path.is_file():
            raise ValueError(f"{self.op}/{self.name}: no file {self.file}")
        text = path.read_text(encoding="utf-8")
        found = text.count(self.find)
        if found != 1:
            raise ValueError(f"{self.op}/{self.name}: find occurs {found} times in {self.file}, must be once")
        if self.find == self.replace:
            raise ValueError(f"{self.op}/{self.name}: replace equals find")
        return text.replace(self.find, self.replace)


def read_catalogue(folder: Path) -> list[Mutant]:
    """Every mutant of every file, in order; ValueError names an entry that is not well formed."""
    mutants = []
    for path in sorted(folder.glob("*.toml")):
        for i, entry in enumerate(tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", [])):
            missing, unknown = FIELDS - {"rebuild"} - set(entry), set(entry) - FIELDS
            if missing or unknown:
                raise ValueError(f"{path.name}, mutant {i}: missing {sorted(missing)}, unknown {sorted(unknown)}")
            mutants.append(Mutant(op=path.stem, **entry))
    return mutants


class Copy:
    """The tree in a folder of its own, where bugs are planted and tests run."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=root, capture_output=True, text=True, check=True).stdout.split("\0")
        built = [str(path.relative_to(root)) for path in (root / "kernels" / "rlsft_kernels").glob("_C*.so")]
        built += ["kernels/rlsft_kernels/_build_info.json"]
        for name in filter(None, [*names, *built]):
            if (root / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, folder / name)

    def run(self, *command: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        """A command in the copy, which finds the copy's packages and no others of that name."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self.folder / "kernels"), str(self.folder)]),
            # the sources change within one second and keep their size: a cached module would be taken for fresh
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
            # tests of the CUDA sources compile them on their own; in the module they would take most of its build
            "RLSFT_CUDA": "OFF",
        }
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=timeout,
        )  # fmt: skip

    def build(self) -> str | None:
        """Builds the core, after the first time only what changed; the end of the compiler's output when it fails."""
        done = self.run("setup.py", "-q", "build_ext", "--inplace")
        return None if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]

    def pytest(self, target: str) -> tuple[int, str]:
        """pytest's exit code and output; a run beyond the time limit counts as red."""
        try:
            done = self.run("-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(target), timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return RED, "timed out"
        return done.returncode, done.stdout + done.stderr

    @contextmanager
    def with_bug(self, mutant: Mutant) -> Iterator[None]:
        """The copy with the bug, and without it afterwards."""
        path = self.folder / mutant.file
        original = path.read_text(encoding="utf-8")
        path.write_text(mutant.planted(self.folder), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(original, encoding="utf-8")


def verdict(copy: Copy, mutant: Mutant) -> tuple[str, str]:
    """("killed" | "SURVIVED" | "BROKEN", why)."""
    with copy.with_bug(mutant):
        if mutant.rebuild:
            failure = copy.build()
            if failure:
                return "BROKEN", f"does not compile: {failure}"
        code, output = copy.pytest(mutant.tests)
    if code == RED:
        return "killed", next((line for line in output.splitlines() if line.startswith("FAILED")), output[-200:])
    if code == 0:
        return "SURVIVED", f"{mutant.tests} stays green"
    # an import error or a syntax error is no test that saw the bug
    return "BROKEN", f"pytest exit {code}: {output[-800:]}"


def judge(mutants: list[Mutant], root: Path) -> list[tuple[Mutant, str]]:
    """The verdict on each mutant, printed as it comes."""
    with tempfile.TemporaryDirectory(prefix="rlsft-mutants-") as folder:
        copy = Copy(root, Path(folder))
        if any(mutant.rebuild for mutant in mutants):
            print("building the core in the copy ...", flush=True)
            failure = copy.build()
            if failure:
                raise RuntimeError(f"the core does not build without a bug: {failure}")
        # before any bug: a test that is red anyway proves nothing
        not_green = {tests: _why_not_green(copy, tests) for tests in {mutant.tests: None for mutant in mutants}}
        results = []
        # those that need the compiler last: the core of all others is the one without a bug
        for mutant in sorted(mutants, key=lambda mutant: mutant.rebuild):
            begin = time.monotonic()
            why_not = not_green[mutant.tests]
            found, why = ("BROKEN", why_not) if why_not else verdict(copy, mutant)
            print(f"{found:9} {time.monotonic() - begin:6.1f} s  {mutant.op}/{mutant.name}: {why}", flush=True)
            results.append((mutant, found))
        return results


def _why_not_green(copy: Copy, tests: str) -> str | None:
    code, output = copy.pytest(tests)
    if code == 0:
        return None
    return f"{tests} is not green without the bug (pytest exit {code}): {output[-800:]}"


def main(arguments: list[str] | None = None, *, root: Path = ROOT) -> int:
    """Plants every bug that was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--op", help="only the catalogue of this name")
    parser.add_argument("--only", help="only mutants of this name")
    options = parser.parse_args(arguments)
    everything = read_catalogue(root / CATALOGUE)
    mutants = [m for m in everything if options.op in (None, m.op) and options.only in (None, m.name)]
    if not mutants:
        parser.error(f"no mutant matches; there are catalogues {', '.join(sorted({m.op for m in everything}))}")
    try:
        for mutant in mutants:
            mutant.planted(root)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    results = judge(mutants, root)
    alive = [f"{mutant.op}/{mutant.name} ({found})" for mutant, found in results if found != "killed"]
    print(f"{len(results) - len(alive)} of {len(results)} mutants killed" + "".join(f"\n  {name}" for name in alive))
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
