"""Fail when a compiler is there and the native core is not: such an install would quietly run slow."""

from __future__ import annotations

import os
import shutil
import sys

from rlsft_kernels._backend import native_status


def main() -> int:
    available, reason = native_status()
    if available:
        return 0
    compiler = os.environ.get("CXX") or next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
    if compiler and shutil.which(compiler) and shutil.which("cmake"):
        print(f"The native core is missing although {compiler} and cmake are here: {reason}", file=sys.stderr)
        return 1
    print(f"No native core, the slower reference runs: {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
