"""The mutants runner on a small tree of its own: kills, survivors, and what is no fair kill."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOSS = '''"""A Bradley-Terry loss of one pair."""
import math

def loss(chosen: float, rejected: float) -> float:
    gap = chosen - rejected
    return math.log1p(math.exp(-abs(gap))) + max(-gap, 0.0)
'''
TESTS = """from tinyloss import loss

def test_a_tie_costs_log_two():
    assert abs(loss(1.0, 1.0) - 0.6931471805599453) < 1e-12

def test_the_better_answer_is_cheaper():
    assert loss(2.0, 1.0) < loss(1.0, 2.0)

def test_red_anyway():
    assert loss(0.0, 0.0) == 0
"""
ENTRY = """
[[mutant]]
name = "{name}"
file = "tinyloss.py"
find = '''{find}'''
replace = '''{replace}'''
tests = "test_tinyloss.py::{test}"
"""


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rlsft_mutants", ROOT / "scripts" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one function, its tests and an empty catalogue."""
    (tmp_path / "tests" / "mutants").mkdir(parents=True)
    (tmp_path / "tinyloss.py").write_text(LOSS)
    (tmp_path / "test_tinyloss.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -ra\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def plant(tree: Path, find: str, replace: str, test: str, name: str = "bug") -> None:
    with (tree / "tests" / "mutants" / "tiny.toml").open("a") as file:
        file.write(ENTRY.format(name=name, find=find, replace=replace, test=test))


def test_a_bug_that_a_test_sees_is_killed_and_the_tree_stays_as_it_was(
    runner: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tree, "chosen - rejected", "rejected - chosen", "test_the_better_answer_is_cheaper", "sign")
    plant(tree, "-abs(gap)", "-abs(gap) - 1", "test_a_tie_costs_log_two", "shift")
    assert runner.main([], root=tree) == 0
    out = capsys.readouterr().out
    assert "2 of 2 mutants killed" in out
    assert "killed" in out.splitlines()[0]
    assert "test_the_better_answer_is_cheaper" in out
    assert (tree / "tinyloss.py").read_text() == LOSS


def test_a_bug_that_no_test_sees_survives(runner: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tree, "chosen - rejected", "rejected - chosen", "test_a_tie_costs_log_two")
    assert runner.main([], root=tree) == 1
    assert "SURVIVED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("replace", "test", "why"),
    [
        ("chosen - ", "test_a_tie_costs_log_two", "pytest exit"),  # a syntax error: no test saw it
        ("rejected - chosen", "test_red_anyway", "not green without the bug"),
        ("rejected - chosen", "test_of_another_name", "not green without the bug"),
    ],
)
def test_what_is_no_fair_kill_is_broken(
    runner: ModuleType, tree: Path, replace: str, test: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tree, "chosen - rejected", replace, test)
    assert runner.main([], root=tree) == 1
    out = capsys.readouterr().out
    assert "BROKEN" in out
    assert why in out


def test_bugs_of_one_op_and_one_name_can_be_chosen(
    runner: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tree, "chosen - rejected", "rejected - chosen", "test_the_better_answer_is_cheaper", "sign")
    plant(tree, "-abs(gap)", "-abs(gap) - 1", "test_the_better_answer_is_cheaper", "survivor")
    assert runner.main(["--op", "tiny", "--only", "sign"], root=tree) == 0
    assert "1 of 1 mutants killed" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        runner.main(["--op", "other"], root=tree)
    assert "there are catalogues tiny" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("find", "replace", "message"),
    [("no such text", "x", "find occurs 0 times"), ("gap", "x", "find occurs 3 times"), ("max(", "max(", "equals")],
)
def test_a_bug_that_cannot_be_planted_is_named(
    runner: ModuleType, tree: Path, find: str, replace: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tree, find, replace, "test_a_tie_costs_log_two")
    assert runner.main([], root=tree) == 1
    assert message in capsys.readouterr().err


def test_an_entry_with_a_missing_or_unknown_field_is_named(runner: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text('[[mutant]]\nname = "a"\nfile = "f"\nfnd = "x"\nreplace = "y"\ntests = "t"\n')
    with pytest.raises(ValueError, match=r"tiny.toml, mutant 0: missing \['find'\], unknown \['fnd'\]"):
        runner.read_catalogue(tmp_path)
