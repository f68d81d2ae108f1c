"""`python -m bench.gpu_evidence`: counts every job and writes bench/results/gpu_evidence/traffic.{json,md}.

Peers: pip install --no-deps liger-kernel==0.8.5 cut-cross-entropy==25.1.1 (with their dependencies they would bring a
CUDA torch). A missing one is left out with a line that says so.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
os.environ.setdefault("TRITON_CACHE_DIR", tempfile.mkdtemp(prefix="rlsft-triton-"))

from tests.gpu_evidence.traffic import LaunchTraffic, counted

RESULTS = Path(__file__).resolve().parents[1] / "results" / "gpu_evidence"


def measure(job: Any) -> dict[str, Any]:
    """Counters of one job: its launches, and their sums in units of the tile of logits."""
    with counted() as launches:
        error = job.run()
    return {
        "work": job.work, "provider": job.provider, "version": _version(job.package), "error": error,
        "tile_bytes": job.tile_bytes, "tile": _moved(launches, job.tile), "all": _moved(launches, ()),
        "dot_flops": sum(launch.dot_flops for launch in launches), "gemm_flops_by_formula": job.gemm_flops,
        "launches": [launch.as_json() for launch in launches],
    }  # fmt: skip


def _moved(launches: list[LaunchTraffic], tensors: tuple[str, ...]) -> dict[str, int]:
    """Bytes of the named tensors, of all where none is named."""
    names: tuple[str | None, ...] = tensors or (None,)
    return {
        f"{kind}_{what}": sum(launch.total(what, kind, name) for launch in launches for name in names)
        for kind in ("load", "store", "atomic")
        for what in ("issued", "unique", "sectors")
    }


def _version(package: str) -> str:
    return "" if package.startswith("rlsft_kernels") else metadata.version(package)


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; passes over the tile of logits, and bytes of everything."""
    lines = [
        "| work | provider | logits read | logits written | bytes issued | bytes, each once | GFLOP in kernels "
        "| GFLOP of GEMMs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        tile, everything, size = row["tile"], row["all"], row["tile_bytes"]
        on_chip = row["tile"] == row["all"]
        passes = ["-", "-"] if on_chip else [f"{tile[f'{kind}_issued'] / size:.2f}x" for kind in ("load", "store")]
        issued, unique = (
            sum(everything[f"{k}_{what}"] for k in ("load", "store", "atomic")) for what in ("issued", "unique")
        )
        cells = [
            row["work"], f"{row['provider']} {row['version']}".strip(), *passes, f"{issued:,}", f"{unique:,}",
            f"{row['dot_flops'] / 1e9:.3f}", f"{row['gemm_flops_by_formula'] / 1e9:.3f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    from bench.gpu_evidence.jobs import JOBS

    warnings.filterwarnings("ignore")
    rows = []
    for job in JOBS:
        if importlib.util.find_spec(job.package) is None:
            print(f"{job.work} by {job.provider}: {job.package} is not installed (see the top of this file)")
            continue
        rows.append(measure(job))
        print(f"{job.work} by {job.provider}: error {rows[-1]['error']:.1e}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "traffic.json").write_text(json.dumps(rows, indent=1) + "\n")
    (RESULTS / "traffic.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
