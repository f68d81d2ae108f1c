"""A user's KPI: found by name, checked on every call, errors that name the row."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from rlsft.errors import ConfigError, DataError
from rlsft.evaluation import Generation, load_kpi, score_kpi

SOURCE = """
def score(prompt, completion, reference):
    return len(completion) - len(reference or "")

def words(prompt, completion, reference):
    return "many"

def breaks(prompt, completion, reference):
    return 1 / (len(completion) - 3)

LIMIT = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `my_own_kpi.py` as current directory; path and modules are restored."""
    (tmp_path / "my_own_kpi.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    for name in ("my_own_kpi", "needs_more", "goes_wrong"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in ("my_own_kpi", "needs_more", "goes_wrong"):
        sys.modules.pop(name, None)


def row(completion: str, reference: str | None = "abc") -> Generation:
    references = () if reference is None else (reference,)
    return Generation(prompt="question", completion=completion, model="STR", references=references)


def test_kpi_is_loaded_from_the_current_directory(here: Path) -> None:
    kpi = load_kpi("my_own_kpi:score")
    assert kpi.name == "my_own_kpi:score"
    assert kpi("q", "abcde", "abc") == 2.0
    assert [r.kpi for r in score_kpi(kpi, [row("a"), row("abcd", None)])] == [-2.0, 4.0]


def test_current_directory_shadows_nothing_afterwards(here: Path) -> None:
    load_kpi("my_own_kpi:score")
    assert sys.path[0] != str(here)
    assert sys.path.count(str(here)) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("my_own_kpi", "kpi must read module:function, such as my_kpi:score, got 'my_own_kpi'"),
        (":score", "kpi must read module:function"),
        ("no_such_kpi:score", r"no module named 'no_such_kpi' in .* put no_such_kpi\.py there"),
        ("my_own_kpi:scor", "'scor' does not exist in my_own_kpi .* it has breaks, score, words"),
        ("my_own_kpi:LIMIT", "'LIMIT' is not callable in my_own_kpi"),
    ],
)
def test_a_wrong_name_is_explained(here: Path, spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_kpi(spec)


def test_a_module_that_cannot_be_imported_is_explained(here: Path) -> None:
    (here / "needs_more.py").write_text("import not_installed_anywhere\n", encoding="utf-8")
    (here / "goes_wrong.py").write_text("raise RuntimeError('no key')\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="'needs_more' imports 'not_installed_anywhere', which is not installed"):
        load_kpi("needs_more:score")
    with pytest.raises(ConfigError, match="importing 'goes_wrong' raised RuntimeError: no key"):
        load_kpi("goes_wrong:score")


def test_errors_inside_name_the_row(here: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"KPI my_own_kpi:breaks failed on row 2 of 2 \(STR, prompt 'question', answer 'abc'\): ZeroDivisionError",
    ):
        score_kpi(load_kpi("my_own_kpi:breaks"), [row("ab"), row("abc")])


def test_a_wrong_return_names_the_row(here: Path) -> None:
    with pytest.raises(DataError, match=r"row 1 of 1 .* must return a finite number, got 'many' \(str\)"):
        score_kpi(load_kpi("my_own_kpi:words"), [row("ab")])
    with pytest.raises(DataError, match=r"KPI <lambda> failed on row 1 .*got nan \(float\)"):
        score_kpi(lambda prompt, completion, reference: float("nan"), [row("ab")])
    with pytest.raises(DataError, match="got None"):
        score_kpi(lambda prompt, completion, reference: None, [row("ab")])  # type: ignore[arg-type,return-value]


def test_numpy_and_truth_values_are_numbers() -> None:
    values = [np.float32(0.5), np.array([2.0]), True, 3]
    rows = score_kpi(lambda prompt, completion, reference: values[int(completion)], [row(str(i)) for i in range(4)])
    assert [r.kpi for r in rows] == [0.5, 2.0, 1.0, 3.0]
