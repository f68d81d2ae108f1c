"""The house rules that code can check: import direction, light imports, no shadowed package, one map."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# room -> the rooms of rlsft that it may import from (docs/architecture.md); errors and artifacts are open to all
ALLOWED = {
    "text": set(),
    "metrics": {"text"},
    "objectives": set(),
    "data": {"text"},
    "models": {"data"},
    "ranking": {"text", "metrics", "data"},
    "rewards": {"models", "data", "metrics", "objectives"},
    "rollouts": {"models", "data"},
    "evaluation": {"metrics", "text", "ranking", "rewards", "rollouts", "models", "data"},
    "integrations": {"text", "data", "models", "objectives", "ranking", "rewards"},
    "trainers": {
        "text", "metrics", "objectives", "data", "models", "ranking", "rewards", "rollouts", "evaluation",
    },
    "cli": {
        "text", "metrics", "objectives", "data", "models", "ranking", "rewards", "rollouts", "evaluation", "trainers",
    },
}  # fmt: skip
OPEN = {"rlsft.errors", "rlsft.artifacts", "rlsft._version"}
NO_MODELS = {"text", "metrics", "objectives"}


def imported_names(path: Path) -> set[str]:
    """Every module that `path` imports, inside functions too; a relative import is refused."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno} uses a relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def python_files(folder: str) -> list[Path]:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files, f"no Python files under {folder}: the rule would check nothing"
    return files


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_rooms_import_only_what_lies_below_them(room: str) -> None:
    for path in python_files(f"rlsft/{room}"):
        for name in imported_names(path):
            if not name.startswith("rlsft.") or any(name == top or name.startswith(top + ".") for top in OPEN):
                continue
            other = name.split(".")[1]
            ok = other == room or other in ALLOWED[room] or other not in ALLOWED
            assert ok, f"{path.relative_to(ROOT)} imports {name}; {room} may use {sorted(ALLOWED[room])}"


@pytest.mark.parametrize("room", sorted(NO_MODELS))
def test_pure_rooms_know_no_models(room: str) -> None:
    for path in python_files(f"rlsft/{room}"):
        bad = {n for n in imported_names(path) if n.split(".")[0] in {"transformers", "trl", "peft", "datasets"}}
        assert not bad, f"{path.relative_to(ROOT)} imports {sorted(bad)}"


def test_ops_know_nothing_of_the_methods() -> None:
    for path in python_files("kernels/rlsft_kernels"):
        tops = {name.split(".")[0] for name in imported_names(path)}
        allowed = {"rlsft_kernels", "torch", "numpy", "triton", "scipy", "networkx", ""} | set(sys.stdlib_module_names)
        assert tops <= allowed, f"{path.relative_to(ROOT)} imports {sorted(tops - allowed)}"


def test_product_code_never_imports_tests_or_benches() -> None:
    for folder in ("rlsft", "kernels/rlsft_kernels"):
        for path in python_files(folder):
            bad = {n for n in imported_names(path) if n.split(".")[0] in {"tests", "bench"}}
            assert not bad, f"{path.relative_to(ROOT)} imports {sorted(bad)}"


def test_kernels_folder_is_no_package() -> None:
    """Hugging Face ships a package named `kernels`; an __init__.py here would shadow it and break transformers."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not (ROOT / "tests" / "kernels" / "__init__.py").exists()


def test_only_the_binding_file_knows_python_and_none_knows_torch() -> None:
    sources = [p for p in (ROOT / "csrc").rglob("*") if p.suffix in {".cpp", ".hpp"}]
    assert sources
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"#\s*include\s*[<\"](torch|ATen|c10)/", text), path
        if path.parent.name != "bindings":
            assert not re.search(r"#\s*include\s*[<\"](Python\.h|pybind11/)", text), path


def test_every_op_has_its_parts() -> None:
    ops = [p for p in (ROOT / "kernels/rlsft_kernels").iterdir() if p.is_dir() and not p.name.startswith("_")]
    assert len(ops) >= 8
    for op in ops:
        assert (op / "op.py").exists(), f"{op.name} has no op.py"
        assert (op / "reference.py").exists(), f"{op.name} has no reference.py"
        assert list((ROOT / "tests/ops").glob(f"test_{op.name}*.py")), f"{op.name} has no tests/ops/test_{op.name}*.py"


@pytest.mark.parametrize("package", ["rlsft", "rlsft_kernels"])
def test_import_is_light(package: str) -> None:
    code = (
        f"import sys, {package}; "
        "heavy = ('triton', 'transformers', 'trl', 'rlsft_kernels._C', 'datasets', 'networkx'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == "[]"


def test_public_names_resolve() -> None:
    import rlsft
    import rlsft_kernels

    for module in (rlsft, rlsft_kernels):
        missing = [name for name in module.__all__ if not hasattr(module, name)]
        assert not missing, f"{module.__name__}.__all__ names what does not exist: {missing}"


def test_public_signatures_match_the_committed_snapshot() -> None:
    """A changed public signature is a decision: rerun with RLSFT_UPDATE_SNAPSHOT=1 and review the diff."""
    from tests.support.signatures import public_signatures

    path = ROOT / "tests" / "public_api.json"
    current = public_signatures()
    if os.environ.get("RLSFT_UPDATE_SNAPSHOT") == "1":
        path.write_text(json.dumps(current, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    expected = json.loads(path.read_text(encoding="utf-8"))
    assert current == expected


def test_the_project_speaks_of_itself_alone() -> None:
    """No path of a build machine and no registry host stands in the tree; links to papers and projects are fine."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False).stdout.split()
    hosts = "|".join(["py" + "pi[.]org", "python" + "hosted", "deb" + "ian[.]org", "npm" + "js[.]"])
    pattern = re.compile(rf"(/wor[k]/|https?://\S*({hosts}))")
    for name in listed:
        path = ROOT / name
        if path.suffix in {".png", ".svg", ".parquet", ".gz"} or not path.is_file():
            continue
        match = pattern.search(path.read_text(encoding="utf-8", errors="ignore"))
        assert match is None, f"{name} names {match.group(0)!r}"
