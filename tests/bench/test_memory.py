"""Peak memory: full logits are seen, and the child process reports what its own call added."""

from __future__ import annotations

import torch

from bench import memory


def test_the_high_water_mark_sees_a_buffer_that_is_gone_again() -> None:
    before = memory.reset_peak()
    torch.ones(64 * memory.MIB // 4)  # above the size from which glibc maps a buffer of its own
    peak = memory.read_status("VmHWM")
    assert 62 <= (peak - before) / memory.MIB <= 72
    assert peak - memory.reset_peak() >= 60 * memory.MIB, "the mark was not set back"


def test_full_logits_cost_what_they_weigh() -> None:
    sizes = {"N": 512, "H": 16, "V": 16_384}
    row = memory.in_child("linear_cross_entropy", "eager full logits", 0, sizes, "float32")
    logits_mib = 512 * 16_384 * 4 / memory.MIB
    assert row["peak_mib"] > 1.8 * logits_mib  # the logits and at least their gradient
    assert row["formula_mib"] == round((512 * 16_384 * 4 + 4 * 16_384 * 16 + 512 * 16 * 4) / memory.MIB, 1)
    assert row["returned_mib"] == round((4 + 4 * 16_384 * 16 + 512 * 16 * 4) / memory.MIB, 1)
    assert "N=512" in memory.line_of(row) or " 512 " in memory.line_of(row)


def test_ours_and_the_chosen_peers_are_measured_on_the_jobs_with_a_backward() -> None:
    found = memory.providers_of("linear_logprob", "float32", ("rlsft", "trl"))
    assert ("rlsft", 1) in found  # case 0 is the forward alone
    assert {name.split()[0].rstrip(",") for name, _ in found} == {"rlsft", "TRL"}
    assert {number for _, number in found} == {1}
