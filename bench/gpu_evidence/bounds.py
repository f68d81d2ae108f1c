"""`python -m bench.gpu_evidence.bounds`: time bounds of the kernels of each job at 8192 rows, predicted, not measured.

Each launch runs once through its compiled PTX on the CPU; its counters, scaled to the larger grid, give what every
resource of the chip would need alone. Writes bench/results/gpu_evidence/bounds.{json,md}.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
os.environ.setdefault("TRITON_CACHE_DIR", tempfile.mkdtemp(prefix="rlsft-triton-"))

from bench.gpu_evidence.jobs import JOBS, ROWS, Job
from tests.gpu_evidence.predict import CHIPS, LABEL, predict
from tests.gpu_evidence.run_ptx import ptx_on_cpu

RESULTS = Path(__file__).resolve().parents[1] / "results" / "gpu_evidence"
SCALED_ROWS = 8192


def bounds_of(job: Job, arch: str) -> list[dict[str, Any]]:
    """One row for each launch of a row kernel; launches over other grids keep their size."""
    with ptx_on_cpu(arch, check_races=False) as executions:
        job.run()
    found = []
    for execution in executions:
        is_by_row = execution.launch.grid[0] == ROWS or execution.launch.grid[0] * execution.launch.grid[1] == ROWS
        scale = SCALED_ROWS / ROWS if is_by_row else 1.0
        bounds = predict(execution.machine.counters.summary(), arch, scale=scale)
        found.append({"work": job.work, "provider": job.provider, "kernel": execution.launch.name, **bounds.as_json()})
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown that says what it is above the numbers."""
    lines = [
        f"**{LABEL}**: {SCALED_ROWS} rows, bfloat16.", "",
        "| work | provider | kernel | chip | lower, us | upper, us | bound by |", "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        times = [format(row[key], ".0f") for key in ("lower_us", "upper_us")]
        cells = [row["work"], row["provider"], row["kernel"], row["chip"], *times, row["bound_by"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    warnings.filterwarnings("ignore")
    wanted = [job for job in JOBS if job.work.endswith("of logits") and importlib.util.find_spec(job.package)]
    rows = [row for arch in CHIPS for job in wanted for row in bounds_of(job, arch)]
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "bounds.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "bounds.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
