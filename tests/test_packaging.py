"""What a user installs: the wheel's content, and an installation on a machine without a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("setup.py", "pyproject.toml", "CMakeLists.txt", "MANIFEST.in", "LICENSE", "README.md")
FOLDERS = ("csrc", "kernels", "rlsft", "tests", "bench")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources alone, as in a fresh clone: no compiled core, no build folder to take stale files from."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, copy / name)
    ignored = shutil.ignore_patterns("*.so", "_build_info.json", "__pycache__", "results", "*.egg-info")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    return copy


def _environment(**changes: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if key not in ("RLSFT_NATIVE", "PYTHONPATH")}
    return {**clean, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **changes}


def _install(checkout: Path, target: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation"]
    return subprocess.run(
        [*command, "--target", str(target), str(checkout)],
        env=_environment(**changes),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake and a compiler")
def test_the_wheel_holds_both_packages_the_core_and_the_types(checkout: Path, tmp_path: Path) -> None:
    pytest.importorskip("build", reason="needs pip install build")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(checkout)],
        # what belongs into a wheel does not depend on CUDA, whose compilation is most of a build
        env=_environment(RLSFT_NATIVE="require", RLSFT_CUDA="OFF"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "rlsft/__init__.py",
        "rlsft/py.typed",
        "rlsft/cli/__init__.py",
        "rlsft_kernels/__init__.py",
        "rlsft_kernels/py.typed",
        "rlsft_kernels/_C.pyi",
        "rlsft_kernels/_build_info.json",
        "rlsft_kernels/textrank/op.py",
    ):
        assert needed in names
    assert any(name.startswith("rlsft_kernels/_C.") and name.endswith(".so") for name in names)
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"rlsft", "rlsft_kernels"}
    _every_module_is_in(names)


def _every_module_is_in(names: list[str]) -> None:
    """A folder without __init__.py would silently be left out of the wheel."""
    for folder, prefix in ((ROOT / "rlsft", "rlsft"), (ROOT / "kernels" / "rlsft_kernels", "rlsft_kernels")):
        for path in folder.rglob("*.py"):
            assert f"{prefix}/{path.relative_to(folder).as_posix()}" in names


# an editable install of this checkout would lend its own _C to the installation under test
USE_IT = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
import warnings, numpy as np
from rlsft_kernels import textrank
from rlsft_kernels._backend import native_status
print(native_status())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(textrank(np.array([[0, 1], [1, 0.0]])).scores.tolist())
print([str(w.message) for w in caught if "slower reference" in str(w.message)] != [])
"""

WITHOUT = {
    "no-compiler": ({"CXX": "/bin/false"}, "cmake failed with exit code"),
    "no-cmake": ({"PATH": "/nonexistent"}, "cmake was not found on PATH"),
    "switched-off": ({"RLSFT_NATIVE": "off"}, "RLSFT_NATIVE=off was set during the installation"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "reason"), WITHOUT.values(), ids=WITHOUT)
def test_installing_without_a_compiler_succeeds_and_says_why_it_is_slow(
    checkout: Path, tmp_path: Path, changes: dict[str, str], reason: str
) -> None:
    done = _install(checkout, tmp_path, **changes)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert not list(tmp_path.glob("rlsft_kernels/_C*.so"))
    used = subprocess.run(
        [sys.executable, "-c", USE_IT],
        env=_environment(PYTHONPATH=str(tmp_path)),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    status, scores, warned = used.stdout.splitlines()
    assert status.startswith("(False")
    assert reason in status
    assert "pip install" in status
    assert scores == "[0.5, 0.5]"
    assert warned == "True"


@pytest.mark.slow
def test_a_required_core_that_cannot_be_built_fails_the_installation(checkout: Path, tmp_path: Path) -> None:
    done = _install(checkout, tmp_path, CXX="/bin/false", RLSFT_NATIVE="require")
    assert done.returncode != 0
    assert "cmake failed with exit code" in done.stdout + done.stderr


def test_kernels_is_not_an_importable_package() -> None:
    # Hugging Face has a package named `kernels` that transformers imports; ours would hide it
    assert not (ROOT / "kernels" / "__init__.py").exists()
