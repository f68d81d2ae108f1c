"""The planted bugs of tests/mutants/*.toml can still be planted: `make mutants` would find out only hours later."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("rlsft_mutants", ROOT / "scripts" / "mutants.py")
assert SPEC is not None
assert SPEC.loader is not None
runner = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = runner
SPEC.loader.exec_module(runner)

MUTANTS = runner.read_catalogue(ROOT / "tests" / "mutants")
FUSED_OPS = (
    "linear_logprob", "linear_cross_entropy", "linear_policy_loss", "policy_value_loss", "kl_shaped_gae", "ppo_chain",
    "pair_loss", "pairwise_reward_loss",
)  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.op}/{mutant.name}")
def test_the_bug_has_its_place_and_its_test_exists(mutant: runner.Mutant) -> None:
    mutant.planted(ROOT)
    targets = [part for part in shlex.split(mutant.tests) if ".py" in part]
    assert targets, f"{mutant.name}: tests names no file"
    for target in targets:
        path, *name = target.split("::")
        assert (ROOT / path).is_file(), f"{mutant.name}: no test file {path}"
        if name:
            function = name[-1].split("[")[0]
            assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), f"{mutant.name}: no {target}"
    # the tests of csrc/cuda compile its sources themselves
    in_core = mutant.file.startswith("csrc/") and not mutant.file.startswith("csrc/cuda/")
    assert mutant.rebuild == in_core, f"{mutant.name}: rebuild = true is for C++, and C++ needs it"


def test_names_are_unique() -> None:
    names = Counter((mutant.op, mutant.name) for mutant in MUTANTS)
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("op", FUSED_OPS)
def test_every_fused_op_has_ten_planted_bugs(op: str) -> None:
    assert sum(mutant.op == op for mutant in MUTANTS) >= 10, f"tests/mutants/{op}.toml"
