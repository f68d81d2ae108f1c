"""The CUDA kernels without a GPU: nvcc's PTX, executed on the CPU (ptx_runner.py).

`EmulatedCore` stands in for the functions of `rlsft_kernels._C` that queue kernels. It launches them as csrc/cuda/*.cu
do, on the addresses that the real Python path hands over, with every access checked against the tensors it was given.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlsft_kernels import _C, _backend
from tests.support.ptx_runner import run_ptx

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "csrc" / "cuda"
CACHE = ROOT / "build" / "ptx"
ARCHITECTURES = (80, 90, 120)
Patch = Callable[[str], str]


def require_nvcc() -> str:
    """The compiler, or a skip that says what is missing."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on PATH: the CUDA kernels cannot be compiled here")
    return nvcc


def compile_ptx(name: str, arch: int) -> str:
    """PTX of csrc/cuda/<name>.cu, with the options of the build, kept for the next run."""
    nvcc = require_nvcc()
    texts = [path.read_bytes() for path in sorted(SOURCES.iterdir())]
    texts += [path.read_bytes() for path in sorted((ROOT / "csrc" / "include" / "rlsft").rglob("*.hpp"))]
    texts.append(subprocess.run([nvcc, "--version"], capture_output=True, check=True).stdout)
    key = hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]
    target = CACHE / f"{name}_{arch}_{key}.ptx"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}.part")
        subprocess.run(
            [*compiler(nvcc), f"-arch=sm_{arch}", "-ptx", str(SOURCES / f"{name}.cu"), "-o", str(partial)], check=True
        )
        partial.replace(target)
    return target.read_text()


def compiler(nvcc: str) -> list[str]:
    """The options that csrc/cuda/cuda.cmake gives nvcc."""
    options = ["-std=c++17", "-O3", "-fmad=false", f"-I{ROOT / 'csrc' / 'include'}"]
    return [nvcc, *options, '-DRLSFT_CUDA_ARCHITECTURES=""']


class EmulatedCore:
    """Runs what would be queued, at once. `patch` edits the PTX of every kernel first: planted errors."""

    def __init__(self, arch: int, *, patch: Patch | None = None) -> None:
        self.arch, self.patch = arch, patch
        self.tensors: list[torch.Tensor] = []  # whatever an address was asked of: what kernels may touch
        self.launches: list[str] = []
        self.races: list[Any] = []

    def address(self, tensor: torch.Tensor | None) -> int:
        if tensor is None:
            return 0
        assert tensor.is_contiguous()
        self.tensors.append(tensor)
        return tensor.data_ptr()

    def _launch(self, source: str, kernel: str, grid: int, block: int, *values: float) -> None:
        ptx = compile_ptx(source, self.arch)
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in self.tensors}
        buffers = [(base, size) for base, size in storages.items() if size]
        run_ptx(self.patch(ptx) if self.patch else ptx, kernel, grid, block, list(values), buffers, self.races)
        self.launches.append(kernel)

    def cuda_textrank(self, *, is_double: bool, **a: Any) -> None:
        suffix = "f64" if is_double else "f32"
        negative = int(a["d"] > 0 and a["edge"] == 0 and a["form"] == 1)
        common = [a[name] for name in ("offsets", "block_offsets", "teleport", "start")]
        common += [float(a["damping"]), float(a["tol"]), a["max_iter"], a["form"], a["method"], negative]
        common += [a["matrix"], a["n_iter"], a["residual"]]
        if a["groups"] == 0:
            return
        head = [a["values"], a["d"], a["edge"]]
        self._launch("textrank", f"rlsft_textrank_small_{suffix}", a["groups"], 128, *head, a["scores"], *common)
        if a["largest"] > 64:
            both = [a["edges"], a["scores"]]
            self._launch("textrank", f"rlsft_textrank_wide_{suffix}", a["groups"], 256, *head, *both, *common)

    def cuda_isodata(self, *, is_double: bool, options: dict[str, Any], **a: Any) -> None:
        arrays = [a[name] for name in ("points", "offsets", "start", "scores", "weight", "workspace", "labels")]
        arrays += [a[name] for name in ("centers", "medoids", "counts", "steps", "n_steps", "stops")]
        starts = a["starts"]
        most, doubles = _C.cuda_isodata_workspace(rows=a["rows"], starts=starts, d=a["d"], options=options)
        sizes = [a["groups"], a["d"], starts, most, doubles]
        common = ("n_clusters", "n_init_clusters", "seed", "max_iter", "default_is_sqrt", "init_is_random", "cosine")
        if options["is_str"]:
            kernel, own = "rlsft_isodata_str", ["min_size", "max_size", "var_threshold", "variance_kind"]
        else:
            limits = ["min_samples", "max_std", "min_distance", "split_factor", "tol"]
            flags = ["split_by_largest", "squared_dispersion", "discard_as_noise", "stop_early"]
            kernel, own = "rlsft_isodata", ["max_merges", *limits, *flags]
        values = [options[name] for name in (*common, *own)]
        values = [int(value) if isinstance(value, bool) else value for value in values]
        if a["groups"]:
            suffix = "f64" if is_double else "f32"
            self._launch("isodata", f"{kernel}_{suffix}", a["blocks"], 128, *arrays, *sizes, *values)

    def cuda_pagerank_strengths(
        self, *, n: int, pointers: int, weights32: int, weights64: int, sums: int, stream: int
    ) -> None:
        suffix, weights = ("f32", weights32) if weights32 else ("f64", weights64)
        self._launch("pagerank", f"rlsft_pagerank_strengths_{suffix}", -(-n // 4), 128, n, pointers, weights, sums)

    def cuda_pagerank_sweeps(self, *, sweeps: int, **a: Any) -> None:
        if sweeps == 0:
            self._update(a, is_start=1)
        kind = "f32" if a["weights32"] else "f64" if a["weights64"] else "ones"
        for _ in range(sweeps):
            edges = [a["segments"], a["segment_begin"], a["sources"], a["weights32"] or a["weights64"]]
            state = [a["u"], a["partial"], a["progress"]]
            if a["segments"]:
                blocks = -(-a["segments"] // 32)
                self._launch("pagerank", f"rlsft_pagerank_gather_{kind}", blocks, 256, *edges, *state)
            self._update(a, is_start=0)

    def _update(self, a: dict[str, Any], *, is_start: int) -> None:
        blocks = -(-a["n"] // 256)
        vectors = [a[name] for name in ("partial", "inverse", "teleport", "dangling")]
        ends = [a["x"], a["u"], a["sums"], a["masses"], a["progress"]]
        rows = 0 if is_start else a["row_segments"]
        damping = 0.0 if is_start else float(a["damping"])
        self._launch("pagerank", "rlsft_pagerank_update", blocks, 256, a["n"], rows, *vectors, damping, is_start, *ends)
        values = [blocks, a["sums"], float(a["tol"]), a["max_iter"], is_start, a["masses"], a["progress"]]
        self._launch("pagerank", "rlsft_pagerank_finish", 1, 256, *values)


def emulate(monkeypatch: pytest.MonkeyPatch, arch: int, *, patch: Patch | None = None) -> EmulatedCore:
    """From here on the ops take CPU tensors for tensors on a CUDA device, and kernels run emulated."""
    require_nvcc()
    if not _C.has_cuda():
        pytest.skip(f"the core has no CUDA kernels: {_C.build_info()['cuda']}")
    core = EmulatedCore(arch, patch=patch)
    ops = [importlib.import_module(f"rlsft_kernels.{op}.op") for op in ("textrank", "isodata", "rank_and_cluster")]
    for op in ops:
        monkeypatch.setattr(op, "device_type_of", lambda x: "cuda" if isinstance(x, torch.Tensor) else "cpu")
    pagerank = importlib.import_module("rlsft_kernels.pagerank.op")
    monkeypatch.setattr(pagerank, "lies_on", lambda graph, device: not isinstance(graph, np.ndarray))
    monkeypatch.setattr(_backend, "native_cuda_status", lambda: (True, "emulated"))
    for op in ("textrank", "isodata", "pagerank"):
        path = importlib.import_module(f"rlsft_kernels.{op}.cuda_path")
        monkeypatch.setattr(path, "address", core.address)
    for name in ("cuda_textrank", "cuda_isodata", "cuda_pagerank_strengths", "cuda_pagerank_sweeps"):
        monkeypatch.setattr(_C, name, getattr(core, name))
    return core


def replace_once(find: str, put: str) -> Patch:
    """A planted error: the first match of the pattern `find` is replaced; it must be there."""

    def patch(ptx: str) -> str:
        changed, count = re.subn(find, put, ptx, count=1)
        assert count == 1, f"{find!r} is not in the PTX: plant the error somewhere else"
        return changed

    return patch
