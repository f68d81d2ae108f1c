"""Builds rlsft_kernels._C with CMake. A machine without a compiler still gets a working, slower install.

RLSFT_NATIVE=off skips the build; RLSFT_NATIVE=require turns a failed build into a failed install.
RLSFT_CUDA=OFF leaves the CUDA kernels out, ON requires nvcc, AUTO (the default) takes it when it is there.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
BUILD_INFO = "_build_info.json"  # read by rlsft_kernels._backend, printed by `rlsft doctor`


class CMakeBuild(build_ext):
    """Runs CMake over csrc/; on failure records why, warns and lets the installation go on."""

    def run(self) -> None:
        # setuptools clears `inplace` while it builds and copies the result into the source tree afterwards
        self.into_source_tree = bool(self.inplace) or getattr(self, "editable_mode", False)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("RLSFT_NATIVE", "auto")
        if mode not in ("auto", "off", "require"):
            raise SystemExit(f"RLSFT_NATIVE must be auto, off or require, got {mode!r}")
        try:
            if mode == "off":
                raise RuntimeError("RLSFT_NATIVE=off was set during the installation")
            run_cmake(target)
            info = {"native": True, "reason": "built"}
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            if mode == "require":
                raise
            target.unlink(missing_ok=True)  # never ship an object older than its sources
            info = {"native": False, "reason": str(error)}
            self.warn(f"rlsft_kernels._C was not built, the ops will run on their slower reference: {error}")
        self.record(info, target)

    def record(self, info: dict[str, object], target: Path) -> None:
        text = json.dumps(info, indent=1) + "\n"
        (target.parent / BUILD_INFO).write_text(text)
        if self.into_source_tree:
            source = ROOT / "kernels" / "rlsft_kernels"
            (source / BUILD_INFO).write_text(text)
            if not info["native"]:
                for stale in source.glob("_C*.so"):
                    stale.unlink()


def run_cmake(target: Path) -> None:
    """Configure and build into a directory that is kept, so that a second build compiles only what changed."""
    cmake = shutil.which("cmake")
    if cmake is None:
        raise RuntimeError("cmake was not found on PATH (install cmake >= 3.20 and a C++17 compiler, then reinstall)")
    build = ROOT / "build" / f"cmake-{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    import pybind11

    configure = [
        cmake,
        "-S",
        str(ROOT),
        "-B",
        str(build),
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
        f"-DRLSFT_CUDA={os.environ.get('RLSFT_CUDA', 'AUTO')}",
        *(["-G", "Ninja"] if shutil.which("ninja") and not (build / "Makefile").exists() else []),
        *shlex.split(os.environ.get("CMAKE_ARGS", "")),
    ]
    compilers = {name: os.environ.get(name, "") for name in ("CC", "CXX", "CXXFLAGS", "CUDACXX")}
    compilers["nvcc"] = shutil.which("nvcc") or ""
    forget_cache_of_other_tools(build, compilers)
    run_logged(configure)
    run_logged([cmake, "--build", str(build), "--target", "_C", "--parallel", str(os.cpu_count() or 1)])
    (built,) = build.glob("_C*.so")
    shutil.copy2(built, target)


def forget_cache_of_other_tools(build: Path, compilers: dict[str, str]) -> None:
    """CMake keeps the compilers it saw: another CXX or nvcc, or a checkout that moved, needs a fresh directory."""
    mark, wanted = build / "rlsft_tools.json", json.dumps({"root": str(ROOT), **compilers})
    if build.exists() and (not mark.exists() or mark.read_text() != wanted):
        shutil.rmtree(build)
    build.mkdir(parents=True, exist_ok=True)
    mark.write_text(wanted)


def run_logged(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout)
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-12:])
        raise RuntimeError(f"{Path(command[0]).name} failed with exit code {done.returncode}:\n{tail}")


setup(
    packages=[
        *find_packages(".", include=["rlsft", "rlsft.*"]),
        *find_packages("kernels", include=["rlsft_kernels", "rlsft_kernels.*"]),
    ],
    # kernels/ itself must stay without __init__.py: see docs/architecture.md
    package_dir={"rlsft_kernels": "kernels/rlsft_kernels"},
    package_data={"rlsft": ["py.typed"], "rlsft_kernels": ["py.typed", "_C.pyi"]},
    include_package_data=False,
    ext_modules=[Extension("rlsft_kernels._C", sources=[], optional=True)],
    cmdclass={"build_ext": CMakeBuild},
    zip_safe=False,
)
