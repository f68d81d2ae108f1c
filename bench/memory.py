"""Peak memory of one call: each provider in a process of its own, measured by the high-water mark of its pages.

    python -m bench.memory [OP ...] [--shape N=2048,H=576,V=49152] [--dtype bf16] [--peers eager,trl]

Inputs and a first small product stand before the mark is set back, so that what is reported is what the call added. The
formula beside it is what the op promises: the tile of logits, the float32 gradient of the head and the gradient of the
hidden states. Gradients that are handed back in half precision are listed for themselves. Twice the tokens must cost no
more than their own gradient.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from bench.measure import ROOT, append_rows, machine_facts
from bench.request import Request, parse_dtypes, parse_shape
from rlsft_kernels import linear_logprob

OPS = ("linear_logprob", "linear_cross_entropy", "linear_policy_loss")
MIB = 2**20
STATUS = Path("/proc/self/status")
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and files the rows; a child process measures one provider."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("ops", nargs="*", default=list(OPS), help=f"some of {', '.join(OPS)}")
    parser.add_argument("--shape", default="N=2048,H=576,V=49152", type=parse_shape)
    parser.add_argument("--dtype", default=("bfloat16",), type=parse_dtypes)
    parser.add_argument("--peers", default="eager,trl", help="beside ours")
    parser.add_argument("--no-rows", action="store_true", help="print only")
    parser.add_argument("--child", nargs=2, metavar=("PROVIDER", "CASE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child is not None:
        request = Request(shape=options.shape, dtypes=options.dtype, threads=(2,))
        print(json.dumps(measured(options.ops[0], options.child[0], int(options.child[1]), request)))
        return 0
    for op in options.ops:
        rows = rows_of(op, options.shape, options.dtype, ("rlsft", *options.peers.split(",")))
        if not options.no_rows:
            append_rows(f"{op}.memory", rows)
    return 0


def rows_of(op: str, shape: dict[str, int], dtypes: tuple[str, ...], wanted: tuple[str, ...]) -> list[Row]:
    """Every provider at N tokens and at twice as many."""
    rows: list[Row] = []
    for dtype in dtypes:
        print(f"\nmemory of {op} {dtype}, two threads, H={shape['H']}, V={shape['V']}: MiB that one call adds")
        print(f"  {'provider':34} {'N':>7} {'peak':>9} {'formula':>9} {'ratio':>6} {'returned':>9}")
        for name, case in providers_of(op, dtype, wanted):
            for N in (shape["N"], 2 * shape["N"]):
                row = in_child(op, name, case, {**shape, "N": N}, dtype)
                rows.append(row)
                print(line_of(row))
    return rows


def providers_of(op: str, dtype: str, wanted: tuple[str, ...]) -> list[tuple[str, int]]:
    """(provider, number of its case) of the jobs with a backward, from the bench at its smallest shape."""
    from bench.run import bench_of

    cases = enumerate(bench_of(op).cases(request=Request(quick=True, dtypes=(dtype,), threads=(2,))))
    jobs = [(number, case) for number, case in cases if "backward" in case.note and "30 %" not in case.note]
    return [
        (provider.name, number)
        for number, case in jobs
        for provider in case.providers
        if provider.unavailable is None and any(part in provider.name.lower() for part in wanted)
    ]


def in_child(op: str, provider: str, case: int, shape: dict[str, int], dtype: str) -> Row:
    """One measurement in a fresh process."""
    sizes = ",".join(f"{letter}={size}" for letter, size in shape.items())
    command = [
        sys.executable,
        "-m",
        "bench.memory",
        op,
        "--shape",
        sizes,
        "--dtype",
        dtype,
        "--child",
        provider,
        str(case),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{provider} at {sizes}: {done.stderr[-2000:]}")
    return {"op": op, "provider": provider, "shape": sizes, "dtype": dtype, **json.loads(done.stdout.splitlines()[-1]),
            **machine_facts()}  # fmt: skip


def measured(op: str, name: str, number: int, request: Request) -> Row:
    """In the child: what the call added to the pages of this process."""
    from bench.run import bench_of

    case = next(case for i, case in enumerate(bench_of(op).cases(request=request)) if i == number)
    provider = next(provider for provider in case.providers if provider.name == name)
    N, H, V = case.inputs.sizes
    torch.set_num_threads(provider.threads)
    warm_up(getattr(torch, case.dtype))
    gc.collect()
    before = reset_peak()
    result = provider.run()
    peak = read_status("VmHWM") - before
    item = getattr(torch, case.dtype).itemsize
    returned = sum(x.numel() * x.element_size() for x in result.values())
    tile = min(signature(linear_logprob).parameters["tile_bytes"].default, N * V * item)
    formula = tile + 4 * V * H + N * H * item
    return {
        "peak_mib": round(peak / MIB, 1),
        "formula_mib": round(formula / MIB, 1),
        "returned_mib": round(returned / MIB, 1),
    }


def warm_up(dtype: torch.dtype) -> None:
    """Threads, libraries and their tables are loaded by a call on a head of a few tokens."""
    hidden, weight = torch.randn(4, 32, dtype=dtype), torch.randn(64, 32, dtype=dtype)
    leaves = (hidden.requires_grad_(), weight.requires_grad_())
    linear_logprob(*leaves, torch.arange(4)).logprob.sum().backward()


def reset_peak() -> int:
    """Sets the high-water mark back to what is resident now, and returns that in bytes.

    Freed memory that the allocator kept would be used again without a trace, so it goes back first.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return read_status("VmRSS")


def read_status(field: str) -> int:
    """A line of /proc/self/status in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


def line_of(row: Row) -> str:
    """One row of the table."""
    N = row["shape"].split(",")[0].removeprefix("N=")
    ratio = row["peak_mib"] / row["formula_mib"]
    return (
        f"  {row['provider']:34} {N:>7} {row['peak_mib']:9.1f} {row['formula_mib']:9.1f} {ratio:6.2f} "
        f"{row['returned_mib']:9.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
