"""Choosing, reporting and missing backends; the stub of the compiled module; instruction sets."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlsft_kernels import _backend, textrank
from rlsft_kernels._backend import backend_calls, choose_backend, doctor_report, native_status
from tests.support.graphs import random_graph, response_groups

SUPPORTED = {"native": {"cpu": ("float32",)}, "triton": {"cuda": ("float32",)}}


@pytest.fixture
def no_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the compiled core."""
    monkeypatch.setattr(_backend, "native_status", lambda: (False, "rlsft_kernels._C was not built: no compiler"))
    monkeypatch.setattr(_backend, "_said", set())


def choose(requested: str, device_type: str = "cpu", dtype: str = "float32") -> str:
    return choose_backend("op", requested, device_type=device_type, dtype=dtype, supported=SUPPORTED)


def test_auto_takes_the_compiled_core_on_the_cpu_and_counts_it() -> None:
    before = backend_calls().get(("op", "native"), 0)
    assert choose("auto") == "native"
    assert backend_calls()["op", "native"] == before + 1


def test_auto_takes_the_reference_quietly_where_the_op_has_nothing_faster() -> None:
    assert choose("auto", dtype="float64") == "reference"
    assert choose("auto", device_type="mps") == "reference"


def test_auto_says_once_that_it_had_to_settle_for_the_reference(no_native: None) -> None:
    with pytest.warns(RuntimeWarning, match=r"op runs on its slower reference .* not built: no compiler"):
        assert choose("auto") == "reference"
    assert choose("auto") == "reference"  # a second warning would be an error here


def test_a_backend_asked_for_by_name_is_never_replaced(no_native: None) -> None:
    with pytest.raises(RuntimeError, match=r"backend='native' was asked for but is not available: .*no compiler"):
        choose("native")
    with pytest.raises(ValueError, match="backend='native' takes float32 on cpu, got float64 on cpu"):
        choose("native", dtype="float64")
    with pytest.raises(ValueError, match="backend='triton' takes float32 on cuda, got float32 on cpu"):
        choose("triton")


def test_ops_work_without_the_compiled_core(no_native: None) -> None:
    weights = random_graph(5, seed=0)
    with pytest.warns(RuntimeWarning, match="textrank runs on its slower reference"):
        scores = textrank(weights).scores
    np.testing.assert_array_equal(scores, textrank(weights, backend="reference").scores)


def test_native_is_present_and_textrank_uses_it() -> None:
    assert native_status() == (True, "the compiled core is present")
    before = backend_calls().get(("textrank", "native"), 0)
    textrank(random_graph(5, seed=0))
    assert backend_calls()["textrank", "native"] == before + 1


def test_the_reason_of_a_failed_build_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "_build_info.json"
    monkeypatch.setattr(_backend, "BUILD_INFO", info)
    missing = ImportError("No module named 'rlsft_kernels._C'")
    assert "was never built here" in _backend._why_native_is_missing(missing)
    info.write_text(json.dumps({"native": False, "reason": "cmake was not found on PATH"}))
    reason = _backend._why_native_is_missing(missing)
    assert "was not built: cmake was not found on PATH; to build it: pip install" in reason
    info.write_text(json.dumps({"native": True, "reason": "built"}))
    assert "was built but cannot be loaded" in _backend._why_native_is_missing(missing)


def test_doctor_reports_what_this_installation_is() -> None:
    report = doctor_report()
    assert report["native"] is True
    assert Path(report["native_path"]).exists()
    assert report["native_isa"] in ("scalar", "avx2", "avx512")
    assert "-O3" in report["native_flags"]
    assert "fast-math" not in report["native_flags"]
    assert {"native_compiler", "torch", "numpy", "device", "triton_reason", "torch_threads"} <= report.keys()
    json.dumps(report)


def _run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def test_the_choice_is_logged_on_request() -> None:
    code = "import numpy as np; from rlsft_kernels import textrank; [textrank(np.eye(2)) for _ in range(3)]"
    err = _run(code, RLSFT_LOG_BACKEND="1").stderr
    assert err.count("[rlsft] textrank: native backend for float64 on cpu (auto: the fastest for cpu)") == 1


RANK_AND_PRINT = """
import numpy as np
from rlsft_kernels import _C, textrank
rows = np.random.default_rng(0).standard_normal((3, 18, 50))
for dtype in ("float32", "float64"):
    for form in ("stochastic", "eigenvector"):
        print(*textrank(embeddings=rows.astype(dtype), form=form, backend="native").scores.reshape(-1))
print(_C.cpu_isa())
"""


def test_every_instruction_set_gives_the_same_scores() -> None:
    best = doctor_report()["native_isa"]
    names = ("scalar", "avx2", "avx512")
    outputs = {}
    for isa in names[: names.index(best) + 1]:
        *rows, used = _run(RANK_AND_PRINT, RLSFT_ISA=isa).stdout.splitlines()
        assert used == isa
        outputs[isa] = np.array([row.split() for row in rows], dtype=np.float64)
    for got in outputs.values():
        np.testing.assert_allclose(got[:2], outputs["scalar"][:2], atol=5e-7)
        np.testing.assert_allclose(got[2:], outputs["scalar"][2:], atol=1e-14)


def test_an_unknown_instruction_set_is_refused() -> None:
    error = _run(RANK_AND_PRINT, RLSFT_ISA="sse9").stderr
    assert "RLSFT_ISA must be scalar, avx2 or avx512, got sse9" in error


def test_the_stub_names_what_the_module_has() -> None:
    from rlsft_kernels import _C

    stub = ast.parse(Path(_backend.__file__).with_name("_C.pyi").read_text())
    stated = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    assert stated == {name for name in dir(_C) if not name.startswith("_")}
    for node in stub.body:
        if isinstance(node, ast.FunctionDef):
            first_line = getattr(_C, node.name).__doc__
            for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
                assert argument.arg in first_line, f"{node.name}: {argument.arg} is not in the module"


def test_importing_the_library_loads_neither_the_core_nor_triton() -> None:
    code = (
        "import sys, rlsft_kernels; print(sorted({'triton', 'rlsft_kernels._C', 'transformers'} & sys.modules.keys()))"
    )
    assert _run(code).stdout.strip() == "[]"


def test_the_pool_survives_a_fork() -> None:
    code = """
import os, numpy as np
from rlsft_kernels import textrank
rows = np.random.default_rng(0).standard_normal((300, 16, 200)).astype(np.float32)
expected = textrank(embeddings=rows, threads=2).scores
pid = os.fork()
if pid == 0:
    same = (textrank(embeddings=rows, threads=2).scores == expected).all()
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == "0", done.stderr


def test_the_core_refuses_arrays_it_would_misread() -> None:
    from rlsft_kernels import _C

    rows = response_groups(1, 4, 8)[0]
    n_iter, residual, scores = np.empty(1, np.int64), np.empty(1), np.empty(4, np.float32)
    tail: Any = (1, None, None, 0.85, 1e-10, 100, 0, 0, 1, scores, n_iter, residual)
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _C.textrank_embeddings(rows.astype(np.float16), np.array([0, 4]), *tail)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _C.textrank_embeddings(np.asfortranarray(rows), np.array([0, 4]), *tail)
    with pytest.raises(ValueError, match="offsets must rise from 0 to the number of rows"):
        _C.textrank_embeddings(rows, np.array([0, 5]), *tail)
    with pytest.raises(ValueError, match="scores must be"):
        _C.textrank_embeddings(rows[:3], np.array([0, 3]), *tail)
