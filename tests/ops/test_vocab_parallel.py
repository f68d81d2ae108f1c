"""vocab_parallel_linear_logprob: two and three ranks over gloo against one, merging by hand, errors."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rlsft_kernels import vocab_parallel_linear_logprob
from rlsft_kernels._head.rows import FoldState, finish_fold
from rlsft_kernels.linear_logprob.vocab_parallel import merge_states
from tests.support.vocab_ranks import OUTPUTS, SIZES, whole

ROOT = Path(__file__).resolve().parents[2]


def run_ranks(folder: Path, world: int, backend: str) -> list[dict[str, Any]]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.support.vocab_ranks", str(folder), str(rank), str(world), backend],
            cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    for rank in ranks:
        _, errors = rank.communicate(timeout=120)
        assert rank.returncode == 0, errors
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(world)]


@pytest.mark.parametrize(("world", "backend"), [(2, "native"), (2, "reference"), (3, "reference")])
def test_ranks_equal_one(tmp_path: Path, world: int, backend: str) -> None:
    """Uneven shares, targets at their edges, one all-gather a call; hidden gradients are whole on every rank."""
    found = run_ranks(tmp_path, world, backend)
    for dtype, impossible in found[0]:
        expected, (grad_hidden, grad_weight, grad_bias) = whole(dtype, impossible, backend)
        tolerance = {"rtol": 0.02, "atol": 0.05} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
        start = 0
        for rank, size in enumerate(SIZES[world]):
            mine = found[rank][dtype, impossible]
            for name, x, y in zip(OUTPUTS, mine["out"], expected, strict=True):
                torch.testing.assert_close(x, y, **tolerance, msg=f"{dtype} rank {rank} {name}")
            assert all(torch.equal(x, y) for x, y in zip(mine["out"], found[0][dtype, impossible]["out"], strict=True))
            torch.testing.assert_close(mine["grads"][0], grad_hidden, **tolerance)
            torch.testing.assert_close(mine["grads"][1], grad_weight[start : start + size], **tolerance)
            torch.testing.assert_close(mine["grads"][2], grad_bias[start : start + size], **tolerance)
            assert mine["gathers"] == 1
            start += size


def test_merging_by_hand() -> None:
    """Row 1: parts (0, ln 2) and (ln 3, -inf); row 2: the first part has seen only -inf."""
    ln2, ln3, low = math.log(2), math.log(3), -math.inf
    two = torch.tensor

    def part(row_max: list[float], sum_exp: list[float], shifted: list[float], first: list[int]) -> FoldState:
        wide = torch.float64
        return FoldState(
            two(row_max, dtype=wide), two(sum_exp, dtype=wide), two([0.0, 0.0], dtype=wide), two(shifted, dtype=wide),
            None, None, two(first),
        )  # fmt: skip

    left = part([ln2, low], [1.5, 0.0], [0.5 * -ln2, 0.0], [1, -1])
    right = part([ln3, 0.0], [1.0, 2.0], [0.0, 0.0], [2, 3])
    merged = merge_states([left, right])
    values = finish_fold(merged, two([2, 3]), 4, frozenset(("lse", "entropy", "is_top1")), torch.float64)
    assert values["lse"].tolist() == pytest.approx([math.log(6), ln2], rel=1e-12)
    # p = (1/6, 2/6, 3/6) and (1/2, 1/2)
    expected = -sum(p * math.log(p) for p in (1 / 6, 2 / 6, 3 / 6))
    assert values["entropy"].tolist() == pytest.approx([expected, ln2], rel=1e-12)
    assert values["is_top1"].tolist() == [True, True]


def test_the_first_part_with_the_maximum_names_the_column() -> None:
    wide = torch.float64
    parts = [
        FoldState(
            torch.tensor([2.0], dtype=wide), torch.ones(1, dtype=wide), torch.zeros(1, dtype=wide), None, None, None,
            torch.tensor([column]),
        )
        for column in (3, 8)
    ]  # fmt: skip
    merged = merge_states(parts)
    assert merged.first_largest is not None
    assert merged.first_largest.tolist() == [3]


def test_without_a_group_it_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"needs torch\.distributed; call init_process_group first"):
        vocab_parallel_linear_logprob(
            torch.zeros(2, 3), torch.zeros(4, 3), torch.tensor([0, 1]), group=None, vocab_start=0, vocab_size=4
        )
