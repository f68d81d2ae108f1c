"""The weight gradient of a head, added up over tiles: AMX, the product and addition elsewhere, plain torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rlsft_kernels import _C
from rlsft_kernels._outer_product import accumulate_weight_gradient, adds_in_float32
from tests.support.closeness import assert_as_accurate_as_eager

ROOT = Path(__file__).resolve().parents[2]
AMX = _C.outer_product_isa() == "amx"
needs_amx: Any = pytest.mark.skipif(not AMX, reason="this CPU has no AMX, or RLSFT_ISA switches it off")
# rows, columns, width: one less and one more than a tile, two tiles, a block, and what is summed at once
SIZES = [
    (1, 1, 1), (2, 15, 16), (31, 16, 15), (32, 32, 32), (33, 33, 17), (320, 127, 33), (321, 128, 31), (64, 129, 64),
    (65, 160, 48), (700, 97, 65), (3, 300, 2),
]  # fmt: skip


def factors(rows: int, columns: int, width: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    """The tile is a view of a wider one, whose other columns must not matter."""
    torch.manual_seed(rows * 1000 + columns)
    wide = torch.randn(rows, columns + 7).to(dtype)
    wide[:, columns:] = float("nan")
    return wide[:, :columns], torch.randn(rows, width).to(dtype)


def eager_sum(base: Tensor, grad: Tensor, hidden: Tensor) -> Tensor:
    return base + (grad.t() @ hidden).to(base.dtype)


@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
@pytest.mark.parametrize("first", [True, False], ids=["first", "next"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sums_of_every_size(sizes: tuple[int, int, int], first: bool, native: bool) -> None:
    """Against float64; what the sum held before the first tile must not matter, not even NaN."""
    rows, columns, width = sizes
    grad, hidden = factors(rows, columns, width)
    base = torch.zeros(columns, width) if first else torch.randn(columns, width)
    acc = torch.full_like(base, float("nan")) if first else base.clone()
    accumulate_weight_gradient(acc, grad, hidden, first=first, native=native)
    truth = base.double() + grad.double().t() @ hidden.double()
    assert_as_accurate_as_eager(acc, eager_sum(base, grad, hidden), truth)


@needs_amx
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_amx_rounds_to_float32_only(sizes: tuple[int, int, int]) -> None:
    """As accurate as torch's product of float32 copies, which a product rounded to bfloat16 is not."""
    rows, columns, width = sizes
    grad, hidden = factors(rows, columns, width)
    acc = torch.randn(columns, width)
    eager = torch.addmm(acc, grad.float().t(), hidden.float())
    truth = acc.double() + grad.double().t() @ hidden.double()
    accumulate_weight_gradient(acc, grad, hidden, first=False, native=True)
    error, allowed = (acc - truth).abs().max(), (eager - truth).abs().max()
    scale = (grad.double().abs().t() @ hidden.double().abs()).max() + 4
    assert float(error) <= 2 * float(allowed) + 4 * torch.finfo(torch.float32).eps * float(scale)


@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
def test_many_tiles_add_up(native: bool) -> None:
    grad, hidden = factors(230, 150, 40)
    acc = torch.full((150, 40), float("inf"))
    eager = torch.zeros(150, 40)
    for start in range(0, 230, 70):
        rows = slice(start, start + 70)
        accumulate_weight_gradient(acc, grad[rows], hidden[rows], first=start == 0, native=native)
        eager = eager_sum(eager, grad[rows], hidden[rows])
    assert_as_accurate_as_eager(acc, eager, grad.double().t() @ hidden.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_sum_in_the_dtype_of_the_factors(dtype: torch.dtype) -> None:
    grad, hidden = factors(40, 30, 20, dtype)
    acc = torch.full((30, 20), float("nan"), dtype=dtype)
    accumulate_weight_gradient(acc, grad, hidden, first=True, native=True)
    assert torch.equal(acc, torch.mm(grad.t(), hidden))
    expected = torch.addmm(acc, grad.t(), hidden)
    accumulate_weight_gradient(acc, grad, hidden, first=False, native=True)
    assert torch.equal(acc, expected)


def test_float16_takes_torch() -> None:
    grad, hidden = factors(40, 30, 20, torch.float16)
    acc = torch.ones(30, 20)
    accumulate_weight_gradient(acc, grad, hidden, first=False, native=True)
    assert torch.equal(acc, 1 + (grad.t() @ hidden).float())


@pytest.mark.parametrize("native", [True, False], ids=["native", "torch"])
def test_no_rows(native: bool) -> None:
    acc = torch.ones(5, 3)
    empty = torch.zeros(0, 5, dtype=torch.bfloat16), torch.zeros(0, 3, dtype=torch.bfloat16)
    accumulate_weight_gradient(acc, *empty, first=False, native=native)
    assert torch.equal(acc, torch.ones(5, 3))
    accumulate_weight_gradient(acc, *empty, first=True, native=native)
    assert torch.equal(acc, torch.zeros(5, 3))


def test_sums_do_not_depend_on_threads() -> None:
    """Large enough that four threads are really used."""
    grad, hidden = factors(640, 2200, 760)
    base = torch.randn(2200, 760)
    product = torch.randn(4_000_000).bfloat16().view(torch.uint16).numpy()
    sums, added = [], []
    for threads in (1, 2, 3, 4):
        if AMX:
            acc = base.clone()
            bits = grad.view(torch.uint16).numpy(), hidden.view(torch.uint16).numpy()
            _C.accumulate_outer(*bits, acc.numpy(), False, threads)
            sums.append(acc)
        total = torch.ones(4_000_000)
        _C.add_product(total.numpy(), product, threads)
        added.append(total)
    assert all(torch.equal(sums[0], x) for x in sums[1:])
    assert all(torch.equal(added[0], x) for x in added[1:])


def test_adding_a_product_is_exact() -> None:
    """One rounded float32 addition an element, special numbers and a tail included."""
    product = torch.randn(1003).bfloat16()
    product[:4] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e-39])
    acc = torch.randn(1003)
    expected = acc + product.float()
    _C.add_product(acc.numpy(), product.view(torch.uint16).numpy(), 1)
    assert torch.equal(acc.view(torch.int32)[1:], expected.view(torch.int32)[1:])
    assert acc[0].isnan()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", ["grad", "hidden"])
def test_bad_values_reach_their_row_or_column_alone(place: str, bad: float) -> None:
    grad, hidden = (x.clone() for x in factors(40, 130, 33))
    (grad if place == "grad" else hidden)[39, 17] = bad
    acc = torch.zeros(130, 33)
    accumulate_weight_gradient(acc, grad, hidden, first=True, native=True)
    hit = torch.zeros(130, 33, dtype=torch.bool)
    if place == "grad":
        hit[17] = True
    else:
        hit[:, 17] = True
    assert torch.equal(~acc.isfinite(), hit)


@needs_amx
def test_amx_takes_subnormal_numbers_for_zero() -> None:
    """2^-127 is one in bfloat16, and 2^-130 a product of two that are not."""

    def product_of(g: float, x: float, before: float) -> float:
        acc = torch.full((1, 1), before)
        pair = torch.tensor([[g]]).bfloat16(), torch.tensor([[x]]).bfloat16()
        accumulate_weight_gradient(acc, *pair, first=False, native=True)
        return acc.item()

    assert product_of(2.0**-126, 2.0**20, 0.0) == 2.0**-106
    assert product_of(2.0**-127, 2.0**20, 0.0) == 0.0
    assert product_of(2.0**-65, 2.0**-65, 0.0) == 0.0
    assert product_of(0.0, 0.0, 2.0**-130) == 0.0


PROBE = """
import torch
from rlsft_kernels import _C
from rlsft_kernels._outer_product import accumulate_weight_gradient
torch.manual_seed(0)
grad, hidden, acc = torch.randn(50, 70).bfloat16(), torch.randn(50, 30).bfloat16(), torch.ones(70, 30)
expected = acc + (grad.t() @ hidden).float()
accumulate_weight_gradient(acc, grad, hidden, first=False, native=True)
print(_C.outer_product_isa(), torch.equal(acc, expected))
try:
    _C.accumulate_outer(grad.view(torch.uint16).numpy(), hidden.view(torch.uint16).numpy(), acc.numpy(), False, 1)
except RuntimeError as error:
    print(error)
"""


def test_an_older_instruction_set_switches_amx_off() -> None:
    """The product then is torch's, and calling the kernel anyway is an error, not a crash."""
    path = os.pathsep.join([str(ROOT / "kernels"), str(ROOT)])
    env = {**os.environ, "RLSFT_ISA": "scalar", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", PROBE], env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["none True", "accumulate_outer needs a CPU with AMX: see outer_product_isa"], (
        done.stderr
    )


def test_who_adds_in_float32() -> None:
    assert adds_in_float32(torch.bfloat16, native=True) == AMX
    assert not adds_in_float32(torch.bfloat16, native=False)
    assert not adds_in_float32(torch.float16, native=True)


def test_wrong_arguments_of_the_core_are_refused() -> None:
    grad, hidden = (x.contiguous().view(torch.uint16).numpy() for x in factors(4, 5, 3))
    out = torch.zeros(5, 3).numpy()
    for bad in [(grad[0], hidden, out), (grad[:, ::2], hidden, out), (grad[:3], hidden, out), (grad, hidden, out[:4])]:
        with pytest.raises(ValueError, match="must"):
            _C.accumulate_outer(*bad, True, 1)
    for bad in [(grad, hidden, torch.zeros(3, 5).numpy().T), (grad, hidden, torch.zeros(5, 3).double().numpy())]:
        with pytest.raises(TypeError):
            _C.accumulate_outer(*bad, True, 1)
    with pytest.raises(ValueError, match="equally long"):
        _C.add_product(out.reshape(-1), grad.reshape(-1), 1)
