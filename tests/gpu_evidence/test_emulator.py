"""The emulator on hand-written PTX: right numbers, and every kind of wrong access or unknown instruction raises."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.gpu_evidence.ptx.arithmetic import fma
from tests.gpu_evidence.ptx.checks import Buffer
from tests.gpu_evidence.ptx.machine import Machine
from tests.gpu_evidence.ptx.parser import Module
from tests.gpu_evidence.ptx.types import EmulatorError, from_bf16, to_bf16

_HEAD = """
.version 8.7
.target sm_90
.address_size 64
{globals}
.visible .entry kernel(.param .u64 .ptr .global .align 1 out, .param .u32 n)
{{
.reg .pred %p<9>; .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .f32 %f<9>;
ld.param.u64 %rd1, [out];
ld.param.u32 %r1, [n];
mov.u32 %r2, %tid.x;
mul.wide.u32 %rd2, %r2, 4;
add.s64 %rd3, %rd1, %rd2;
setp.lt.u32 %p1, %r2, %r1;
{body}
ret;
}}
"""


def run(body: str, *, n: int = 64, threads: int = 64, shared: int = 0, size: int = 64) -> tuple[torch.Tensor, Machine]:
    """The int32 buffer `out [size]` after one block, and its machine."""
    out = torch.zeros(size, dtype=torch.int32)
    declared = f".shared .align 16 .b8 tile[{shared}];" if shared else ""
    module = Module(_HEAD.format(globals=declared, body=body))
    buffers = [Buffer(out.data_ptr(), 4 * size, "out")]
    machine = Machine(module, (threads, 1, 1), buffers=buffers)
    machine.run((1, 1, 1), module.pack([out.data_ptr(), n]))
    return out, machine


STORE = "st.global.u32 [%rd3], %r3;"


def test_a_mask_stores_only_below_n() -> None:
    out, _ = run("add.s32 %r3, %r2, 7;\n@%p1 " + STORE, n=50)
    assert out.tolist() == [i + 7 if i < 50 else 0 for i in range(64)]


def test_branches_diverge_and_meet_again() -> None:
    body = f"""
    mov.u32 %r3, 1;
    @%p1 bra LOW;
    mov.u32 %r3, 2;
    bra.uni END;
    LOW: add.s32 %r3, %r3, 10;
    END: add.s32 %r3, %r3, 100;
    {STORE}"""
    out, _ = run(body, n=5)
    assert out.tolist() == [111] * 5 + [102] * 59


def test_a_store_behind_the_buffer_raises() -> None:
    with pytest.raises(EmulatorError, match=r"out-of-bounds store of 1 lanes.*\+252 bytes from the start of out"):
        run("mov.u32 %r3, 1;" + STORE, size=63)


def test_a_load_behind_the_buffer_raises() -> None:
    with pytest.raises(EmulatorError, match="out-of-bounds load"):
        run("ld.global.u32 %r3, [%rd3 + 4];")


def test_a_misaligned_access_raises() -> None:
    with pytest.raises(EmulatorError, match="misaligned 16-byte load"):
        run("ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd3];", n=1)
    with pytest.raises(EmulatorError, match="misaligned 4-byte store"):
        run("mov.u32 %r3, 0; st.global.u32 [%rd3 + 2], %r3;")


@pytest.mark.parametrize(
    "line",
    ["dp4a.u32.u32 %r3, %r1, %r2, %r1;", "brev.b32 %r3, %r1;", "tcgen05.alloc.sync.aligned.b32 [%r1], 32;", "trap;"],
)
def test_an_unknown_opcode_raises_although_it_is_never_reached(line: str) -> None:
    with pytest.raises(EmulatorError, match="is not modelled"):
        run("bra END;\n" + line + "\nEND: mov.u32 %r3, 1;")


@pytest.mark.parametrize(
    "line",
    [
        "add.rz.f32 %f1, %f2, %f3;",
        "add.cc.u32 %r3, %r1, %r2;",
        "mul.rn.f32.bf16 %f1, %r3, %f2;",
        "add.rn.f32.f32 %f1, %f2, %f3;",
        "mad.hi.u32 %r3, %r1, %r2, %r1;",
        "add.sat.s32 %r3, %r1, %r2;",
        "max.xorsign.abs.f32 %f1, %f2, %f3;",
        "cvt.rz.f16.f32 %r3, %f1;",
        "add.s16x2 %r3, %r1, %r2;",
        "ex2.approx.ftz.bf16x2 %r3, %r1;",
        "ld.local.u32 %r3, [%rd3];",
        "bar.red.popc.u32 %r3, 0, %p1;",
        "cp.async.bulk.shared.global [%r1], [%rd3], 16;",
        "mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%r3}, {%r1}, {%r2}, {%r3};",
        "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {%r3}, {%r1}, {%r2}, {%r3};",
    ],
)
def test_an_unknown_modifier_raises(line: str) -> None:
    with pytest.raises(EmulatorError, match="not modelled"):
        run("bra END;\n" + line + "\nEND: mov.u32 %r3, 1;")


def _exchange(barrier: str) -> str:
    """Thread t writes shared word t and reads word t ^ 32, which the other warp wrote."""
    return f"""
    shl.b32 %r4, %r2, 2;
    mov.u32 %r5, tile;
    add.s32 %r6, %r5, %r4;
    st.shared.u32 [%r6], %r2;
    {barrier}
    xor.b32 %r4, %r4, 128;
    add.s32 %r6, %r5, %r4;
    ld.shared.u32 %r3, [%r6];
    {STORE}"""


def test_shared_memory_with_a_barrier_is_no_race() -> None:
    out, machine = run(_exchange("bar.sync 0;"), shared=256)
    assert out.tolist() == [i ^ 32 for i in range(64)]
    assert machine.race_reports == []


@pytest.mark.parametrize("barrier", ["", "bar.warp.sync -1;"])
def test_shared_memory_without_a_barrier_is_a_race(barrier: str) -> None:
    _, machine = run(_exchange(barrier), shared=256)
    assert any("ld.shared" in report for report in machine.race_reports)


def test_a_write_after_a_read_is_a_race() -> None:
    body = _exchange("bar.sync 0;") + "xor.b32 %r4, %r4, 128;\nadd.s32 %r6, %r5, %r4;\nst.shared.u32 [%r6], %r3;"
    _, machine = run(body, shared=256)
    assert any("st.shared" in report for report in machine.race_reports)


def test_two_warps_that_write_different_values_to_one_word_race() -> None:
    _, machine = run("mov.u32 %r5, tile;\nst.shared.u32 [%r5], %r2;", shared=256)
    assert machine.race_reports


def test_two_warps_that_write_the_same_value_do_not_race() -> None:
    _, machine = run("mov.u32 %r5, tile;\nst.shared.u32 [%r5], %r1;", shared=256)
    assert machine.race_reports == []


def test_a_barrier_that_a_part_of_the_block_misses_raises() -> None:
    with pytest.raises(EmulatorError, match="not all threads"):
        run("@%p1 bra END;\nbar.sync 0;\nEND: mov.u32 %r3, 1;", n=3)


def test_shared_memory_ends_where_it_was_declared() -> None:
    with pytest.raises(EmulatorError, match="shared access"):
        run("mov.u32 %r5, tile;\nst.shared.u32 [%r5 + 256], %r2;", shared=256)


def test_a_shuffle_from_an_absent_lane_raises() -> None:
    body = "@%p1 shfl.sync.bfly.b32 %r3, %r2, 16, 31, -1;"
    with pytest.raises(EmulatorError, match="not there"):
        run(body, n=16, threads=32)
    out, _ = run("shfl.sync.bfly.b32 %r3, %r2, 16, 31, -1;" + STORE)
    assert out.tolist() == [i ^ 16 for i in range(64)]


def test_cp_async_lands_at_the_wait() -> None:
    def copied(wait: str) -> list[int]:
        body = f"""
        mov.u32 %r3, 5;
        {STORE}
        shl.b32 %r4, %r2, 2;
        mov.u32 %r5, tile;
        add.s32 %r6, %r5, %r4;
        cp.async.ca.shared.global [%r6], [%rd3], 4;
        cp.async.commit_group;
        {wait}
        ld.shared.u32 %r3, [%r6];
        {STORE}"""
        return run(body, shared=256)[0].tolist()

    assert copied("cp.async.wait_group 0;") == [5] * 64
    assert copied("cp.async.wait_group 1;") != [5] * 64


def test_bfloat16_rounds_to_nearest_even_as_torch() -> None:
    x = torch.randn(10000) * torch.logspace(-30, 30, 10000)
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, 1.00390625, 1.01171875, 3.4e38])
    x = torch.cat([x, special])
    expected = x.bfloat16().float().numpy()
    np.testing.assert_array_equal(from_bf16(to_bf16(x.numpy())), expected)


def test_a_mixed_sum_takes_bfloat16_and_float32() -> None:
    """Only the first operand is narrow; reading both as bfloat16 gives plausible nonsense."""
    half, wide = to_bf16(np.array([1.5], np.float32))[0], np.array([0.1], np.float32).view(np.uint32)[0]
    body = f"mov.b16 %rs1, {half}; mov.b32 %r4, {wide}; sub.rn.f32.bf16 %r3, %rs1, %r4;"
    out, _ = run(body + STORE)
    assert out.view(torch.float32)[0] == torch.tensor(1.5) - torch.tensor(0.1)
    body = f"mov.b16 %rs1, {half}; mov.b32 %r4, {wide}; fma.rn.f32.bf16 %r3, %rs1, %rs1, %r4;"
    assert run(body + STORE)[0].view(torch.float32)[0] == torch.tensor(2.25) + torch.tensor(0.1)


def test_packed_float32_arithmetic() -> None:
    body = """
    mov.b32 %r3, 0f3FC00000;
    mov.b64 %rd4, {%r3, %r3};
    fma.rn.f32x2 %rd5, %rd4, %rd4, %rd4;
    mov.b64 {%r4, %r3}, %rd5;"""
    assert run(body + STORE)[0].view(torch.float32)[0] == 1.5 * 1.5 + 1.5


def test_fma_of_float64_rounds_once() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        x, y = rng.gauss(0, 1), rng.gauss(0, 1)
        z = -x * y * (1 + rng.choice([0, 1, 2**-30, 2**-52])) + rng.choice([0, 2**-60])
        exact = float(Fraction(x) * Fraction(y) + Fraction(z))
        assert float(fma(np.float64(x), np.float64(y), np.float64(z))) == exact


def test_counters_of_a_coalesced_and_a_scattered_store() -> None:
    _, machine = run("mov.u32 %r3, 1;" + STORE)
    assert machine.counters.requests["store"] == 2
    assert machine.counters.sectors["store"] in (8, 9, 10)  # 256 bytes, wherever torch has put them
    body = "mul.wide.u32 %rd4, %r2, 128;\nadd.s64 %rd3, %rd1, %rd4;\nmov.u32 %r3, 1;" + STORE
    _, machine = run(body, size=64 * 32)
    assert machine.counters.sectors["store"] == 64


def test_bank_conflicts() -> None:
    body = "mul.lo.u32 %r4, %r2, 128;\nmov.u32 %r5, tile;\nadd.s32 %r6, %r5, %r4;\nst.shared.u32 [%r6], %r2;"
    _, machine = run(body, shared=64 * 128)
    assert machine.counters.wavefronts["store"] == 64
    assert machine.counters.ideal_wavefronts["store"] == 2
