"""What holds of every element-wise op on the compiled core: accuracy, layouts, masks, threads, bits, registration."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rlsft_kernels import policy_value_loss
from rlsft_kernels._backend import backend_calls, doctor_report, native_status
from tests.ops.loss_cases import CASES, Case, Tokens, cast
from tests.support.closeness import assert_as_accurate_as_eager

if not native_status()[0]:
    pytest.skip(f"no native core: {native_status()[1]}", allow_module_level=True)
ROOT = Path(__file__).resolve().parents[2]
ISAS = ("scalar", "avx2", "avx512")
BEST = ISAS.index(doctor_report()["native_isa"])
# one register, odd, one chunk, one more than a chunk, one block and three, three blocks and a bit
SIZES = (2, 3, 16, 31, 256, 257, 8192 + 3, 3 * 8192 + 300)
all_cases = pytest.mark.parametrize("case", CASES, ids=str)


def assert_same_bits(found: Tokens, expected: Tokens) -> None:
    assert found.keys() == expected.keys()
    for name, x in found.items():
        assert torch.equal(x, expected[name]), name


def assert_accurate(case: Case, tokens: Tokens, found: Tokens, dtype: torch.dtype) -> None:
    eager, truth = case.expected(cast(tokens, torch.float32)), case.expected(cast(tokens, torch.float64))
    assert found.keys() == truth.keys()
    for name, x in found.items():
        wide = eager[name].to(x.dtype if name.startswith("grad") else torch.float32)
        assert x.dtype == (dtype if name.startswith("grad") else torch.float32), name
        assert_as_accurate_as_eager(x, wide, truth[name], name=f"{case} {name}")


@all_cases
@pytest.mark.parametrize("count", SIZES)
def test_float32_is_as_accurate_as_eager_at_every_border(count: int, case: Case) -> None:
    """Chunks of 256 and blocks of 8192 end inside and at the end; a block that is dropped or read twice shows."""
    if case.op == "kl_shaped_gae" and count > 9000:
        pytest.skip("the reference is a loop over time; longer rows are compared in test_long_rows")
    tokens = cast(case.make(count), torch.float32)
    assert_accurate(case, tokens, case.run(tokens, "native"), torch.float32)


@all_cases
@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_every_dtype_and_backend_is_as_accurate_as_eager(dtype: torch.dtype, backend: str, case: Case) -> None:
    tokens = cast(case.make(301), dtype)
    found = case.run(tokens, backend)
    assert_accurate(case, tokens, found, dtype)


@all_cases
def test_auto_runs_native_for_what_it_takes(case: Case) -> None:
    for dtype, backend in (
        (torch.float32, "native"), (torch.bfloat16, "native"), (torch.float16, "native"), (torch.float64, "reference")
    ):  # fmt: skip
        before = backend_calls().get((case.op, backend), 0)
        case.run(cast(case.make(5), dtype))
        assert backend_calls()[case.op, backend] == before + 1


@all_cases
def test_every_native_op_reaches_the_core(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The counter says what was chosen; this says what ran."""
    from rlsft_kernels import _C

    calls: list[str] = []
    plain = getattr(_C, case.op)
    monkeypatch.setattr(_C, case.op, lambda *args: calls.append(case.op) or plain(*args))
    tokens = cast(case.make(5), torch.float32)
    case.run(tokens, "reference")
    assert calls == []
    case.run(tokens)
    assert calls == [case.op]


@all_cases
def test_two_runs_and_any_number_of_threads_give_the_same_bits(case: Case) -> None:
    tokens = cast(case.make(20 * 8192 + 77), torch.float32)
    before = torch.get_num_threads()
    results = []
    for threads in (1, 1, 2, 3):
        torch.set_num_threads(threads)
        results.append(case.run(tokens))
    torch.set_num_threads(before)
    for result in results[1:]:
        assert_same_bits(result, results[0])


def strided(x: Tensor) -> Tensor:
    """Equal values, every other element of its memory, one element off the allocation's start."""
    spread = torch.full((*x.shape[:-1], 2 * x.shape[-1] + 1), 77).to(x.dtype)
    spread[..., 1::2] = x
    return spread[..., 1::2]


def misaligned(x: Tensor) -> Tensor:
    """Contiguous, one element off the allocation's start."""
    memory = torch.empty(x.numel() + 1, dtype=x.dtype)
    memory[1:] = x.reshape(-1)
    return memory[1:].view(x.shape)


@all_cases
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("move", [strided, misaligned])
def test_layout_does_not_matter(move: object, dtype: torch.dtype, case: Case) -> None:
    tokens = cast(case.make(259), dtype)
    moved = {name: move(x) for name, x in tokens.items()}  # type: ignore[operator]
    assert_same_bits(case.run(moved), case.run(tokens))


def test_expanded_inputs_are_read_as_they_look() -> None:
    one = torch.tensor([[0.3]]).expand(4, 70)
    arguments = {
        "logprobs": one,
        "old_logprobs": one * 0,
        "advantages": one,
        "mask": torch.ones(1, 1).bool().expand(4, 70),
    }
    dense = {name: x.contiguous() for name, x in arguments.items()}
    rest: dict[str, None] = dict.fromkeys(("values", "old_values", "returns"))
    assert torch.equal(policy_value_loss(**arguments, **rest)[0], policy_value_loss(**dense, **rest)[0])


@pytest.mark.parametrize("case", [c for c in CASES if "mask" in c.make(3)], ids=str)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.int64, torch.uint8], ids=str)
def test_masked_tokens_add_exactly_zero_whatever_they_hold(
    mask_dtype: torch.dtype, poison: float, case: Case, nan_in_fresh_memory: None
) -> None:
    tokens = cast(case.make(300), torch.float32)
    mask = tokens["mask"]
    poisoned = {
        name: torch.where(mask, x, poison) if x.shape == mask.shape and name != "mask" else x
        for name, x in tokens.items()
    } | {"mask": mask.to(mask_dtype) * (256 if mask_dtype == torch.int64 else 2 if mask_dtype == torch.uint8 else 1)}
    if mask_dtype == torch.bool:
        poisoned["mask"] = mask
    found = case.run(poisoned)
    assert_same_bits(found, case.run(tokens))
    for name in [f"grad {leaf}" for leaf in case.leaves if leaf in tokens] or ["advantages", "returns"]:
        assert (found[name][~mask] == 0).all(), name
        assert found[name].isfinite().all(), name


@pytest.mark.parametrize("case", [c for c in CASES if c.leaves], ids=str)
def test_what_is_not_a_number_reaches_the_loss(case: Case) -> None:
    """At every lane of a register and in the last, incomplete one."""
    for at in (*range(2), 5, 18, 19, 258, 259):
        tokens = cast(case.make(260), torch.float32)
        if "mask" in tokens:
            tokens["mask"][at] = True
        for leaf in case.leaves[:2]:
            if leaf in tokens:
                bad = tokens[leaf].clone()
                bad[at] = math.nan
                assert case.run(tokens | {leaf: bad})["loss"].isnan(), (at, leaf)


@all_cases
def test_nothing_counts(case: Case) -> None:
    tokens = cast(case.make(9), torch.float32)
    if "mask" in tokens:
        tokens["mask"] = torch.zeros_like(tokens["mask"])
        found = case.run(tokens)
        zero = {name: x for name, x in found.items() if name not in ("moments", "too_few_to_whiten")}
        assert all((x == 0).all() for x in zero.values()), zero
    empty = cast({name: x[..., :0] if x.shape[-1] == 9 else x for name, x in tokens.items()}, torch.float32)
    found = case.run(empty)
    assert found["count"] == 0
    assert found.get("loss", torch.zeros(())) == 0


@pytest.mark.parametrize("case", [c for c in CASES if c.leaves], ids=str)
def test_order_does_not_matter_and_one_element_is_a_batch(case: Case) -> None:
    tokens = case.make(500)
    order = torch.randperm(500)
    plain = case.run(cast(tokens, torch.float32))
    mixed = case.run(cast({name: x[order] for name, x in tokens.items()}, torch.float32))
    for name, x in plain.items():
        shuffled = x[order] if x.ndim else x
        torch.testing.assert_close(mixed[name], shuffled, msg=lambda m, name=name: f"{name}: {m}")
    one = cast({name: x[:1] for name, x in tokens.items()}, torch.float32)
    assert_accurate(case, one, case.run(one, "native"), torch.float32)


@pytest.mark.parametrize("case", [c for c in CASES if c.leaves], ids=str)
def test_upstream_factor_and_a_second_backward(case: Case) -> None:
    tokens = {name: x.requires_grad_(name in case.leaves) for name, x in cast(case.make(40), torch.float32).items()}
    inputs = [tokens[name] for name in case.leaves if name in tokens]
    loss, _ = case.call(**tokens, **case.settings, backend="native")
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    scaled = torch.autograd.grad(loss * -8, inputs, retain_graph=True)  # a power of two: no rounding
    again = torch.autograd.grad(loss, inputs, retain_graph=True)
    for a, b, c in zip(first, scaled, again, strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, -8 * a)
    (recorded,) = torch.autograd.grad(loss, inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match=f"{case.op} has no second derivative"):
        recorded.sum().backward()


def test_a_default_device_or_dtype_of_the_caller_changes_nothing() -> None:
    for case in CASES:
        tokens = cast(case.make(20), torch.float32)
        expected = case.run(tokens)
        torch.set_default_dtype(torch.float64)
        try:
            found = case.run(tokens)
        finally:
            torch.set_default_dtype(torch.float32)
        assert_same_bits(found, expected)


# --- instruction sets ------------------------------------------------------------------------------------------------

PROBE = """
import sys
import numpy as np, torch
from tests.ops.loss_cases import CASES, cast
found = {}
for case in CASES:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        torch.manual_seed(5)
        for name, x in case.run(cast(case.make(611), dtype), "native").items():
            found[f"{case} {dtype} {name}"] = x.float().numpy()
np.savez(sys.argv[1], **found)
"""


@pytest.mark.skipif("RLSFT_ISA" in os.environ, reason="the instruction set is forced already")
def test_instruction_sets_agree(tmp_path: Path) -> None:
    found = {}
    for isa in ISAS[: BEST + 1]:
        target = tmp_path / f"{isa}.npz"
        subprocess.run(
            [sys.executable, "-c", PROBE, str(target)],
            env={**os.environ, "RLSFT_ISA": isa, "PYTHONPATH": os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])},
            cwd=ROOT, check=True,
        )  # fmt: skip
        with np.load(target) as loaded:
            found[isa] = dict(loaded)
    for isa, results in found.items():
        for name, values in results.items():
            plain = found["scalar"][name]
            eps = 1e-6 if "float32" in name or " grad" not in name else 1e-2
            np.testing.assert_allclose(values, plain, rtol=eps, atol=4 * eps * np.abs(plain).max(initial=1e-3),
                                       err_msg=f"{isa}: {name}")  # fmt: skip
