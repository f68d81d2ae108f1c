"""Everything that needs a real GPU, in one run: python -m bench.gpu_suite [--ops ...] [--dry-run] [--output DIR]

For every fused op at the shapes of large models: is it right against float64, did the Triton kernels run, do two runs
agree bit for bit, does a CUDA graph capture it, does it ever wait for the device; how long does it take beside TRL,
Liger, CCE and torch.compile, which share of the chip's limit is that, how much memory does it add, and how far off was
the prediction. Rows go to bench/results/<gpu>/<op>.jsonl. `--dry-run` walks the same path on the CPU with tiny shapes.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.gpu_device import CudaDevice, Device, DryDevice
from bench.measure import ROOT, Provider, append_rows, machine_facts, version_of
from bench.request import Request
from bench.run import bench_of

Row = dict[str, Any]
PREDICTIONS = ROOT / "bench" / "results" / "gpu_evidence" / "predictions.json"
ROUNDS = 20
CHECKS = ("triton", "repeats", "graph", "no_sync")
HEAD_SHAPES = [
    {"N": 8192, "H": 4096, "V": 131_072},
    {"N": 8192, "H": 4096, "V": 151_936},
    {"N": 4096, "H": 2048, "V": 32_000},
]
SHAPES: dict[str, list[dict[str, int]]] = {
    "linear_logprob": HEAD_SHAPES,
    "linear_cross_entropy": HEAD_SHAPES,
    "linear_policy_loss": HEAD_SHAPES,
    "ppo_chain": HEAD_SHAPES[2:],
    "policy_value_loss": [{"B": 1024, "T": 1024}],
    "kl_shaped_gae": [{"B": 512, "T": 4096}, {"B": 4, "T": 131_072}],
    "pair_loss": [{"P": 4096}, {"P": 1_048_576}],
    "pairwise_reward_loss": [{"P": 4096}, {"P": 1_048_576}],
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the suite; 1 when one of our results is wrong or raises, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_suite", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--ops", nargs="*", default=sorted(SHAPES), choices=sorted(SHAPES), metavar="OP")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU: does the script itself work?")
    parser.add_argument("--output", type=Path, help="folder of the rows instead of bench/results")
    options = parser.parse_args(arguments)
    if not options.dry_run and not torch.cuda.is_available():
        print("gpu_suite: torch sees no GPU here; --dry-run walks through the suite on the CPU", file=sys.stderr)
        return 2
    device: Device = DryDevice() if options.dry_run else CudaDevice()
    predictions = read_predictions(PREDICTIONS)
    failures: list[str] = []
    for op in options.ops:
        rows = list(rows_of(op, device, predictions))
        failures += [f"{op} {row['shape']} {row['dtype']}: {row['error']}" for row in rows if failed(row)]
        file_rows(op, rows, device, options.output, dry=options.dry_run)
    print("\n".join(["", *(f"FAILED {failure}" for failure in failures), f"{len(failures)} failures"]))
    return 1 if failures else 0


def rows_of(op: str, device: Device, predictions: list[Row]) -> Iterator[Row]:
    """Every provider of every case of an op."""
    requests = [Request(quick=True, threads=(1,))] if device.kind == "cpu" else [
        Request(shape=shape, threads=(1,), device=device.kind) for shape in SHAPES[op]
    ]  # fmt: skip
    for request in requests:
        for case in bench_of(op).cases(request=request):
            print(f"\n{op} {case.shape} {case.dtype}: {case.note} ({device.name})")
            for provider in case.providers:
                row = row_of(op, case, provider, device) | predicted(op, case, provider, device, predictions)
                print(line_of(row))
                yield row
            device.release()


def row_of(op: str, case: Any, provider: Provider, device: Device) -> Row:
    """Correctness first; then everything that is measured. An exception is a result too."""
    row: Row = {
        "op": op, "provider": provider.name, "shape": case.shape, "dtype": case.dtype, "note": case.note,
        "gpu": device.name, "median_ms": None, "error": provider.unavailable,
        "peer_version": version_of(provider.package), **machine_facts(),
    }  # fmt: skip
    if provider.unavailable is not None:
        return row
    try:
        row["error"] = case.check(provider)
        row |= {f"{stage}_ms": value for stage, value in quantiles(device.times(provider.run, ROUNDS)).items()}
        row["peak_mib"] = device.peak_mib(provider.run)
        row["roofline"] = roofline_share(case, row["median_ms"], device)
        if is_ours(provider):
            row["triton"] = None if device.kind == "cpu" else "triton" in row["error"]
            row["repeats"] = device.repeats(provider.run)
            row["graph"] = device.captures(provider.run)
            row["no_sync"] = device.never_waits(provider.run)
    except Exception as error:  # the suite has one chance on a lent machine: note it and go on with the next
        row["error"], row["failed"] = f"{type(error).__name__}: {error}", True
        traceback.print_exc(limit=-3)
    return row


def is_ours(provider: Provider) -> bool:
    """The op on the backend that "auto" picks."""
    return provider.name == "rlsft"


def failed(row: Row) -> bool:
    """Ours raised, was wrong, ran elsewhere, differed between two runs, was not captured, or waited."""
    if not row["provider"].startswith("rlsft"):
        return False
    return bool(row.get("failed")) or any(row.get(check) is False for check in CHECKS)


def quantiles(samples: list[float]) -> dict[str, float]:
    """p20, median and p80."""
    ordered = torch.tensor(samples, dtype=torch.float64)
    found = ordered.quantile(torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)).tolist()
    return dict(zip(("p20", "median", "p80"), found, strict=True))


def roofline_share(case: Any, median_ms: float, device: Device) -> float | None:
    """The chip's own time for the job's products or bytes, whichever is longer, as a share of the measured one."""
    limits = device.limits
    if limits is None:
        return None
    flops_per_second = limits.bf16_flops if case.dtype == "bfloat16" else limits.tf32_flops
    ideal_ms = 1e3 * max(case.flops / flops_per_second, case.bytes_moved / limits.bytes_per_second)
    return round(ideal_ms / median_ms, 3)


def read_predictions(path: Path) -> list[Row]:
    """[{"op", "provider", "shape", "dtype", "note", "gpu", "lower_ms", "upper_ms"}], or nothing."""
    return json.loads(path.read_text()) if path.is_file() else []


def predicted(op: str, case: Any, provider: Provider, device: Device, predictions: list[Row]) -> Row:
    """The prediction for this row, if there is one: `gpu` is a part of the chip's name."""
    for entry in predictions:
        same = (entry["op"], entry["provider"], entry["shape"], entry["dtype"]) == (
            op, provider.name, case.shape, case.dtype,
        )  # fmt: skip
        if same and entry.get("note", case.note) == case.note and entry["gpu"].lower() in device.name.lower():
            return {"predicted_lower_ms": entry["lower_ms"], "predicted_upper_ms": entry["upper_ms"]}
    return {}


def line_of(row: Row) -> str:
    """One row of the table."""
    if row["median_ms"] is None:
        return f"  {row['provider']:34} {'-':>10}  {row['error']}"
    parts = [f"{row['peak_mib']:9.1f} MiB" if row["peak_mib"] is not None else ""]
    if row["roofline"] is not None:
        parts.append(f"{row['roofline']:.0%} of the chip")
    if "predicted_lower_ms" in row:
        ratio = row["measured_to_predicted"] = round(row["median_ms"] / row["predicted_lower_ms"], 3)
        parts.append(f"{ratio:.2f}x the predicted lower bound ({row['predicted_upper_ms']:.3f} ms upper)")
    parts += [f"{check}={row[check]}" for check in CHECKS if row.get(check) is not None]
    return f"  {row['provider']:34} {row['median_ms']:10.3f}  {row['error']}  {'  '.join(filter(None, parts))}"


def file_rows(op: str, rows: list[Row], device: Device, output: Path | None, *, dry: bool) -> None:
    """Appends to the results of this chip, or to the folder asked for; a dry run files nothing by itself."""
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / f"{op}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif not dry:
        append_rows(op, rows, device.folder)


if __name__ == "__main__":
    sys.exit(main())
