"""The benches on tiny shapes: every provider is checked before it is timed, and rows say what they must."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import rlsft_kernels
from bench import run
from bench.measure import Provider, time_interleaved
from bench.request import Request, parse_dtypes, parse_shape

HEAD_OPS = ("linear_logprob", "linear_cross_entropy", "linear_policy_loss", "ppo_chain")
TOKEN_OPS = ("policy_value_loss", "kl_shaped_gae", "pair_loss", "pairwise_reward_loss")


def bench(op: str, tmp_path: Path, *options: str) -> list[dict[str, Any]]:
    """The rows of one tiny bench."""
    output = tmp_path / "rows.json"
    fast = ["--quick", "--skip-tests", "--rounds", "1", "--threads", "1", "--json", str(output)]
    assert run.main([op, *fast, *options]) == 0
    return json.loads(output.read_text())[op]


@pytest.mark.parametrize("op", HEAD_OPS + TOKEN_OPS)
def test_every_bench_runs_and_its_rows_have_a_floor_and_a_baseline(op: str, tmp_path: Path) -> None:
    rows = bench(op, tmp_path, *(("--dtype", "bf16,fp32") if op in HEAD_OPS else ()))
    dtypes = {"bfloat16", "float32"} if op in HEAD_OPS else {"float32"}
    assert {row["dtype"] for row in rows} == dtypes
    for row in rows:
        assert row["floor_ms"] > 0
        assert row["baseline_ms"] > 0
        assert (row["median_ms"] is None) == (row["samples_ms"] == [])
        assert row["error"]
        assert row["threads"] == 1
    ours = [row for row in rows if row["provider"] == "rlsft"]
    assert ours
    assert all(row["median_ms"] for row in ours) == hasattr(rlsft_kernels, op)


def test_the_peers_of_the_head_take_part_where_they_are_installed(tmp_path: Path) -> None:
    rows = {row["provider"]: row for row in bench("linear_logprob", tmp_path, "--dtype", "fp32")}
    for name, package in (("TRL ChunkedLogProbFunction", "trl"), ("Liger chunked logprob (torch)", "liger_kernel")):
        installed = find_spec(package) is not None
        assert (rows[name]["median_ms"] is not None) == installed
    assert rows["torch.compile of eager"]["error"] == "left out of --quick"


def test_peers_shape_and_dtype_can_be_chosen(tmp_path: Path) -> None:
    rows = bench("linear_cross_entropy", tmp_path, "--shape", "N=5,H=8,V=33", "--peers", "eager", "--dtype", "bf16")
    assert {row["shape"] for row in rows} == {"N=5,H=8,V=33"}
    peers = {row["provider"] for row in rows if not row["provider"].startswith(("rlsft", "floor"))}
    assert peers == {"eager full logits", "torch.compile of eager"}


@pytest.mark.parametrize("op", ["linear_cross_entropy", "pairwise_reward_loss"])
def test_a_wrong_result_is_not_timed(op: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss and gradients that are 5 % too large."""
    right = getattr(rlsft_kernels, op)

    def wrong(*arguments: Any, **settings: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, stats = right(*arguments, **settings)
        return loss * 1.05, stats

    monkeypatch.setattr(rlsft_kernels, op, wrong)
    with pytest.raises(AssertionError, match=r"rlsft: .* is off by .* of its length .* not timed"):
        bench(op, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["textrank", "--shape", "N=3"], "the bench of textrank has shapes, dtypes and threads of its own"),
        (["linear_logprob", "--shape", "N=3,H=4"], "--shape of linear_logprob wants N=...,H=...,V=..., got N,H"),
        (["linear_logprob", "--shape", "N=0,H=4,V=5"], "--shape wants sizes as N=2048,H=768,V=50257"),
        (["linear_logprob", "--dtype", "int8"], "--dtype must be of fp32"),
        (["linear_logprob", "--rounds", "0"], "--rounds must be at least 1, got 0"),
        (["linear_logprob", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["linear_logprob", "--threads", "two"], "two"),
        (["linear_logprobs"], "no bench named linear_logprobs"),
    ],
)
def test_a_request_that_cannot_be_met_is_named(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run.main(options)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_requests_are_parsed() -> None:
    assert parse_shape("N=2048, H=768,V=50257") == {"N": 2048, "H": 768, "V": 50257}
    assert parse_dtypes("bf16,fp32") == ("bfloat16", "float32")
    assert Request(peers=("trl",)).wants("TRL ChunkedLogProbFunction")
    assert Request(peers=("trl",)).wants("floor: 3 bare GEMMs")
    assert not Request(peers=("trl",)).wants("eager full logits")


def test_rounds_are_interleaved_and_the_unavailable_is_left_out() -> None:
    calls: list[str] = []
    quick = Provider("quick", lambda: calls.append("quick"))
    slow = Provider("slow", lambda: calls.append("slow"), slow=True)
    missing = Provider("missing", lambda: calls.append("missing"), unavailable="not installed")
    time_interleaved([quick, slow, missing], rounds=5)
    assert len(quick.samples_ms) == len(slow.samples_ms) == 5
    assert missing.samples_ms == []
    assert missing.median_ms != missing.median_ms
    assert "missing" not in calls
    first, last = calls.index("slow"), len(calls) - 1 - calls[::-1].index("slow")
    assert "quick" in calls[first:last], "all samples of one provider came before the other's"


def test_a_slow_provider_stops_at_its_time_limit_after_one_sample() -> None:
    slow, quick = Provider("slow", lambda: None, slow=True), Provider("quick", lambda: None)
    time_interleaved([slow, quick], rounds=9, seconds_each=0.0)
    assert len(slow.samples_ms) == 1
    assert len(quick.samples_ms) == 4


def test_the_truth_of_the_head_agrees_with_autograd() -> None:
    from bench.head import head_inputs, truth_gradients, truth_logprobs

    inputs = head_inputs(300, 8, 37)  # more rows than one float64 block
    hidden, weight = inputs.hidden.double().requires_grad_(), inputs.weight.double().requires_grad_()
    logprobs = (hidden @ weight.T).log_softmax(1).gather(1, inputs.targets[:, None])[:, 0]
    torch.testing.assert_close(truth_logprobs(inputs), logprobs.detach())
    wanted = torch.autograd.grad(logprobs, (hidden, weight), inputs.upstream.double())
    found = truth_gradients(inputs, inputs.upstream)
    torch.testing.assert_close((found["hidden"], found["weight"]), wanted)


def test_three_tenths_of_the_policy_tokens_have_no_say() -> None:
    from bench.head import head_inputs
    from bench.ops.linear_policy_loss import policy_inputs

    head = head_inputs(64 * 40, 4, 11)
    assert (policy_inputs(head, "live").coefficients != 0).all()
    assert (policy_inputs(head, "known").coefficients == 0).double().mean() == 0.3
    assert 0.25 < float((policy_inputs(head, "ratio").coefficients == 0).double().mean()) < 0.35
