"""Each instruction set, forced in a process of its own: the tolerance rule, equal decisions, bad input refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rlsft_kernels import bleu_scores, isodata, keyword_rank, pagerank, rouge_l_scores, similarity_matrix
from rlsft_kernels._backend import native_status
from tests.support.closeness import assert_as_accurate_as_eager
from tests.support.graphs import dense_solution
from tests.support.isa_probe import EDGES, clustered, sparse_weights, token_lists

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("scalar", "avx2", "avx512")
if not native_status()[0]:
    pytest.skip(f"no native core: {native_status()[1]}", allow_module_level=True)


def best_of_this_cpu() -> str:
    """Asked in a process of its own, without the wish that this one may run under."""
    free = {name: value for name, value in os.environ.items() if name != "RLSFT_ISA"}
    path = os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])
    asked = [sys.executable, "-c", "from rlsft_kernels import _C; print(_C.cpu_isa())"]
    return subprocess.run(
        asked, env={**free, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    ).stdout.strip()


HERE = NAMES[: NAMES.index(best_of_this_cpu()) + 1]
pytestmark = pytest.mark.xdist_group("dispatch")  # one process for the whole file: a probe takes seconds


def run_probe(isa: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "tests.support.isa_probe", *arguments],
        env={**os.environ, "RLSFT_ISA": isa, "PYTHONPATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, np.ndarray]]:
    """What each instruction set of this CPU returned."""
    results = {}
    for isa in HERE:
        target = tmp_path_factory.mktemp("isa") / f"{isa}.npz"
        done = run_probe(isa, str(target))
        assert done.returncode == 0, done.stderr
        with np.load(target) as loaded:
            results[isa] = dict(loaded)
        assert str(results[isa]["isa"]) == isa
    return results


@pytest.mark.parametrize("isa", HERE)
def test_no_bad_value_passes_at_any_place_of_a_row(isa: str, found: dict[str, dict[str, np.ndarray]]) -> None:
    assert found[isa]["accepted"].tolist() == []


def eager_similarity(rows: torch.Tensor, edge: str) -> torch.Tensor:
    unit = rows / rows.norm(dim=-1, keepdim=True)
    cosine = unit @ unit.mT
    edges = 0.5 + 0.5 * cosine if edge == "shifted_cosine" else cosine.clamp(min=0)
    return edges * (1 - torch.eye(rows.shape[-2], dtype=rows.dtype))


def eager_scores(edges: torch.Tensor) -> torch.Tensor:
    """The textbook loop, in the edges' own precision."""
    teleport = torch.full(edges.shape[:-1], 1 / edges.shape[-1], dtype=edges.dtype)
    strength = edges.sum(-1, keepdim=True)
    transition = torch.where(strength > 0, edges / strength, teleport[..., None, :])
    x = teleport
    for _ in range(200):
        x = 0.15 * teleport + 0.85 * (x[..., None, :] @ transition)[..., 0, :]
    return x


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("edge", EDGES)
def test_edges_and_scores_are_as_accurate_as_eager(
    edge: str, dtype: str, isa: str, found: dict[str, dict[str, np.ndarray]]
) -> None:
    got = found[isa]
    rows = torch.from_numpy(got[f"rows {dtype}"])
    eager, truth = eager_similarity(rows, edge), eager_similarity(rows.double(), edge)
    actual = torch.from_numpy(got[f"similarity {edge} {dtype}"])
    assert_as_accurate_as_eager(actual, eager, truth, name=f"{isa} edges")
    scores = torch.from_numpy(got[f"textrank {edge} stochastic {dtype}"])
    exact = torch.stack([torch.from_numpy(dense_solution(block.numpy())) for block in truth])
    # the iteration stops at an L1 step of 1e-10: in float64 that, not rounding, is the error
    slack = 2.0 if dtype == "float32" else 1e6
    assert_as_accurate_as_eager(scores, eager_scores(eager), exact, name=f"{isa} scores", slack=slack)


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_decisions_are_those_of_the_reference(dtype: str, isa: str, found: dict[str, dict[str, np.ndarray]]) -> None:
    got = found[isa]
    for variant in ("ball_hall", "str"):
        for geometry in ("euclidean", "cosine"):
            reference = isodata(clustered(dtype), variant=variant, geometry=geometry, backend="reference")  # type: ignore[arg-type]
            np.testing.assert_array_equal(got[f"labels {variant} {geometry} {dtype}"], reference.labels)
            np.testing.assert_array_equal(got[f"medoids {variant} {geometry} {dtype}"], reference.medoids)


def test_instruction_sets_agree_with_each_other(found: dict[str, dict[str, np.ndarray]]) -> None:
    plain = found["scalar"]
    for isa, got in found.items():
        assert got.keys() == plain.keys()
        for name, values in got.items():
            if name == "isa":
                continue
            if values.dtype.kind != "f" or name.startswith(("rows", "graphs")):
                np.testing.assert_array_equal(values, plain[name], err_msg=f"{isa}: {name}")
                continue
            allowed = 1e-6 if values.dtype == np.float32 else 1e-12
            np.testing.assert_allclose(values, plain[name], atol=allowed, rtol=0, err_msg=f"{isa}: {name}")
            if name.startswith(("textrank", "dense", "pagerank")):
                np.testing.assert_array_equal(values.argsort(-1), plain[name].argsort(-1), err_msg=f"{isa}: {name}")


def test_sparse_ranks_and_token_scores_are_those_of_the_reference(found: dict[str, dict[str, np.ndarray]]) -> None:
    tokens = token_lists()
    keywords = keyword_rank(np.concatenate(tokens), backend="reference").scores
    bleu = bleu_scores(tokens[:10], tokens[10:], backend="reference")
    rouge = rouge_l_scores(tokens[:10], tokens[10:], backend="reference").f1
    ranks = pagerank(sparse_weights("float64"), tol=1e-13, backend="reference")
    for got in found.values():
        np.testing.assert_allclose(got["keywords"], keywords, atol=1e-9, rtol=0)  # both stop at a step of 1e-10
        np.testing.assert_allclose(got["bleu"], bleu, atol=1e-12, rtol=0)
        np.testing.assert_allclose(got["rouge"], rouge, atol=1e-12, rtol=0)
        np.testing.assert_allclose(got["pagerank float64"], ranks, atol=6e-8, rtol=0)  # 0.85 / 0.15 times the step
        np.testing.assert_allclose(got["pagerank float32"], ranks, atol=1e-7, rtol=0)


def test_token_edges_are_those_of_the_reference(found: dict[str, dict[str, np.ndarray]]) -> None:
    tokens = token_lists()
    for edge in ("word_overlap", "bm25"):
        reference = similarity_matrix(tokens=tokens, edge=edge, backend="reference")
        for got in found.values():
            np.testing.assert_allclose(got[f"tokens {edge}"], reference, atol=1e-13, rtol=0)


@pytest.mark.parametrize("wish", ["sse9", "AVX2", "neon"])
def test_a_wrong_name_is_refused_in_words(wish: str) -> None:
    done = run_probe(wish, os.devnull)
    assert done.returncode != 0
    assert f"RLSFT_ISA must be scalar, avx2 or avx512, got {wish}" in done.stderr


@pytest.mark.skipif(len(HERE) == len(NAMES), reason="this CPU has them all; csrc/tests/test_cpu.cpp covers the refusal")
def test_an_instruction_set_the_cpu_lacks_is_refused() -> None:
    done = run_probe(NAMES[len(HERE)], os.devnull)
    assert f"is not supported by this CPU, which has {HERE[-1]}" in done.stderr


def test_the_build_keeps_nan_what_it_is() -> None:
    from rlsft_kernels import _C

    flags = str(_C.build_info()["flags"])
    assert not any(bad in flags for bad in ("-ffast-math", "-Ofast", "-ffinite-math-only", "-march=native"))


def test_no_inline_function_of_a_newer_instruction_set_can_be_linked_for_everybody() -> None:
    """A weak symbol in an AVX object may be the one copy that the linker keeps, for CPUs without AVX too."""
    objects = [
        path
        for path in (ROOT / "build").glob("**/rlsft_core.dir/**/*.o")
        if path.stem.endswith(("_avx2.cpp", "_avx512.cpp"))
        and not path.relative_to(ROOT / "build").parts[0].startswith(("sanitize", "fuzz"))
    ]
    if not objects or shutil.which("nm") is None:
        pytest.skip("no object files of a build here, or no nm")
    for path in objects:
        listing = subprocess.run(["nm", "-C", "--defined-only", str(path)], capture_output=True, text=True, check=True)
        weak = [line for line in listing.stdout.splitlines() if line.split(" ", 2)[1] in ("W", "V", "u")]
        foreign = [line for line in weak if "avx2" not in line and "avx512" not in line]
        assert foreign == [], path
